//! The whole of what is supervised.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use cli::cgroup;
use provider::local::api::Place;
use tokio::sync::OnceCell;

use crate::fleet::Fleet;
use crate::instance::Instance;
use crate::network::Network;
use crate::service::Service;
use crate::tokens::Tokens;
use crate::{metadata, sweep};

/// All that one locald supervises.
pub struct Locald {
    pub place: Place,
    pub network: Network,
    pub instances: Mutex<BTreeMap<String, Arc<Instance>>>,
    pub services: Mutex<BTreeMap<String, Arc<Service>>>,
    /// Services are made one at a time: they must not be given the same address or name.
    pub making_service: tokio::sync::Mutex<()>,
    pub tokens: Mutex<Tokens>,
    fleet: OnceCell<Fleet>,
}

/// A lock whose holder never leaves things half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Locald {
    /// Takes over what is recorded: adopts what runs, starts again what does not, removes what nobody owns.
    pub async fn take_over(place: &Place) -> Result<Arc<Self>> {
        let locald = Arc::new(Self {
            place: place.clone(),
            network: Network::new(place.key()),
            instances: Mutex::default(),
            services: Mutex::default(),
            making_service: tokio::sync::Mutex::default(),
            tokens: Mutex::default(),
            fleet: OnceCell::new(),
        });
        sweep::sweep(place, &locald.network)?;
        let (instances, services) = (place.instance_records()?, place.service_records()?);
        if instances.is_empty() && services.is_empty() {
            locald.network.remove()?;
            return Ok(locald);
        }
        locald.fleet().await?;
        locald.take_over_instances(instances);
        for record in services {
            let name = record.spec.name.clone();
            // One that cannot be started must not keep the others from it; a later `repair` says why.
            if let Err(error) = locald.take_over_service(record).await {
                tracing::error!("service {name}: {error:#}");
            }
        }
        locald.end_orphans();
        Ok(locald)
    }

    /// The network, name servers and metadata service, which are started if they do not run.
    pub async fn fleet(self: &Arc<Self>) -> Result<&Fleet> {
        let start = || Fleet::start(&self.place, &self.network, |listener| metadata::serve(self.clone(), listener));
        self.fleet.get_or_try_init(start).await
    }

    /// Tells the name servers which instances and services are recorded now.
    pub fn tell_names(&self) -> Result<()> {
        self.fleet.get().map_or(Ok(()), Fleet::tell_names)
    }

    /// Whether there is nothing to supervise.
    pub fn owns_nothing(&self) -> bool {
        lock(&self.instances).is_empty() && lock(&self.services).is_empty()
    }

    /// Ends all instances and balancers.
    pub async fn end_all(&self) {
        let services: Vec<_> = lock(&self.services).values().cloned().collect();
        for service in services {
            service.end_balancer().await;
        }
        let instances: Vec<_> = lock(&self.instances).values().cloned().collect();
        instances.iter().for_each(|instance| instance.end());
        for instance in instances {
            instance.gone().await;
        }
    }

    /// Removes what is left when there is nothing to supervise.
    pub async fn retire(&self) -> Result<()> {
        if let Some(fleet) = self.fleet.get() {
            fleet.end().await?;
        }
        cgroup::remove(&cgroup::hierarchy().join(self.place.key()))?;
        sweep::remove_empty_netns_directory();
        Ok(())
    }
}
