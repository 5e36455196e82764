//! Services: a balancer, a name, and groups of instances.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use provider::local::api::{GroupRecord, Owner, Place, ServiceRecord, read_json, write_json};
use provider::{Group, GroupSpec, LaunchSpec, Member, MemberHealth, ServiceSpec};

use crate::balancer::{self, Runtime, Server};
use crate::daemon::Daemon;
use crate::instance::new_id;
use crate::locald::{Locald, lock};
use crate::network::balancer_addresses;

/// A supervised service.
pub struct Service {
    record: Mutex<ServiceRecord>,
    /// Held by whoever changes the service.
    changing: tokio::sync::Mutex<()>,
    haproxy: Arc<Daemon>,
    runtime: Runtime,
}

impl Service {
    /// Its record as it is now.
    pub fn record(&self) -> ServiceRecord {
        lock(&self.record).clone()
    }

    /// Ends its balancer.
    pub async fn end_balancer(&self) {
        self.haproxy.end().await;
    }
}

impl Locald {
    /// Makes the service's balancer and name.
    pub async fn create_service(self: &Arc<Self>, spec: &ServiceSpec) -> Result<provider::Service> {
        check_spec(spec)?;
        let _making = self.making_service.lock().await;
        if let Some(present) = lock(&self.services).get(&spec.name) {
            let record = present.record();
            let wanted = ServiceSpec { listen: spec.listen.or(record.spec.listen), ..spec.clone() };
            ensure!(
                wanted == record.spec,
                "service {} is there with other settings (port {}, health {}, dns {}, listen {}): destroy it first",
                spec.name,
                record.spec.port,
                record.spec.health,
                record.spec.dns,
                record.spec.listen.unwrap_or_default(),
            );
            return Ok(record.service(true));
        }
        let resolver = self.fleet().await?.resolver;
        let others: Vec<_> = lock(&self.services).values().map(|service| service.record()).collect();
        if let Some(other) = others.iter().find(|other| other.spec.dns == spec.dns) {
            bail!(
                "the DNS name {} belongs to the service {}: choose another `dns` in component.toml",
                spec.dns,
                other.spec.name
            );
        }
        if let Some(other) = others.iter().find(|other| spec.listen.is_some() && other.spec.listen == spec.listen) {
            let port = spec.listen.unwrap_or_default();
            bail!("port {port} belongs to the service {}: choose another `listen` in component.toml", other.spec.name);
        }
        let address = balancer_addresses().find(|address| others.iter().all(|other| other.address != *address));
        let listen = balancer::listen(spec.listen)?.local_addr().context("choosing a port for the balancer")?.port();
        let record = ServiceRecord {
            spec: ServiceSpec { listen: Some(listen), ..spec.clone() },
            address: address.context("the fleet's network has no free address for a balancer")?,
            resolver,
            groups: BTreeMap::new(),
        };
        write_record(&self.place, &record)?;
        if let Err(error) = self.take_over_service(record.clone()).await {
            self.remove_service_files(&record)?;
            return Err(error);
        }
        Ok(record.service(true))
    }

    /// Starts or adopts the balancer of a recorded service, and whatever else it should have.
    pub async fn take_over_service(self: &Arc<Self>, record: ServiceRecord) -> Result<()> {
        let fleet = self.fleet().await?;
        let name = record.spec.name.clone();
        self.network.add_balancer(record.address)?;
        fleet.tell_names()?;
        let socket = self.place.run().join(format!("{name}.haproxy"));
        let (place, network, service) = (self.place.clone(), self.network.clone(), name.clone());
        let (its_socket, probed) = (socket.clone(), socket.clone());
        let make = move || balancer::command(&place, &network, &service, &its_socket);
        let ready = move |_: &_| UnixStream::connect(&probed).is_ok();
        let haproxy = Daemon::start(&self.place.service(&name), Box::new(make), Box::new(ready)).await?;
        let service = Arc::new(Service {
            record: Mutex::new(record.clone()),
            changing: tokio::sync::Mutex::default(),
            haproxy,
            runtime: Runtime::new(&socket),
        });
        lock(&self.services).insert(name, service.clone());
        for group in record.groups.values() {
            self.launch_members(group).await?;
        }
        self.converge(&service).await
    }

    /// The service with this name.
    pub fn service(&self, name: &str) -> Result<Arc<Service>> {
        lock(&self.services).get(name).cloned().with_context(|| format!("there is no service {name}"))
    }

    /// Launches a group and attaches its instances at weight 0.
    pub async fn create_group(self: &Arc<Self>, spec: &GroupSpec) -> Result<Group> {
        check_name(&spec.name)?;
        let service = self.service(&spec.service)?;
        let _changing = service.changing.lock().await;
        let present = service.record().groups.get(&spec.name).cloned();
        let record = match present {
            Some(present) => {
                ensure!(present.group.spec == *spec, "group {} is there with other settings", spec.name);
                present
            }
            None => {
                let group = Group { spec: spec.clone(), resized: None, weight: 0, created: Timestamp::now() };
                let members = (0..spec.size).map(|_| new_id()).collect();
                let record = GroupRecord { group, members };
                self.change_service(&service, |service| {
                    service.groups.insert(spec.name.clone(), record.clone());
                })?;
                record
            }
        };
        if let Err(error) = self.launch_members(&record).await {
            self.remove_group(&service, &spec.name).await?;
            return Err(error);
        }
        self.converge(&service).await?;
        Ok(record.group)
    }

    /// The group's instances, from a fresh read.
    pub async fn members(&self, service: &str, group: &str) -> Result<Vec<Member>> {
        let service = self.service(service)?;
        let record = service.record();
        let record = record.groups.get(group).with_context(|| format!("there is no group {group}"))?;
        let rows = service.runtime.servers().await.unwrap_or_default();
        let instances = record.members.iter().filter_map(|id| self.instance(id)).map(|instance| instance.record());
        let members = instances.map(|record| {
            let instance = record.instance;
            let row = rows.iter().find(|row| row.server == instance.id);
            Member {
                health: row.map_or(MemberHealth::Absent, balancer::Row::health),
                open_requests: Some(row.and_then(|row| row.open_requests).unwrap_or_default()),
                weight: row.and_then(|row| row.weight).unwrap_or_default(),
                last_check: row.map(balancer::Row::last_check).unwrap_or_default(),
                instance: instance.id,
                state: instance.state,
                address: instance.address,
                starts: instance.starts,
            }
        });
        Ok(members.collect())
    }

    /// Sets shares of traffic in percent. Recorded first: a balancer that is started again has them.
    pub async fn set_weights(&self, service: &str, weights: &BTreeMap<String, u8>) -> Result<()> {
        let service = self.service(service)?;
        let _changing = service.changing.lock().await;
        let record = service.record();
        for (name, weight) in weights {
            ensure!(record.groups.contains_key(name), "service {} has no group {name}", record.spec.name);
            ensure!(*weight <= 100, "the share of group {name} is {weight} percent, and 100 is all");
        }
        self.change_service(&service, |service| {
            for (name, weight) in weights {
                if let Some(record) = service.groups.get_mut(name) {
                    record.group.weight = *weight;
                }
            }
        })?;
        self.converge(&service).await
    }

    /// Removes a group that takes no traffic, and returns how many requests it was still answering. How long to wait
    /// for them is for the client to say.
    pub async fn destroy_group(&self, service: &str, group: &str) -> Result<u64> {
        let service = self.service(service)?;
        let _changing = service.changing.lock().await;
        let Some(record) = service.record().groups.get(group).cloned() else { return Ok(0) };
        ensure!(
            record.group.weight == 0,
            "group {group} takes {} percent of the traffic: give it to another first",
            record.group.weight
        );
        let rows = service.runtime.servers().await?;
        let its = rows.iter().filter(|row| record.members.contains(&row.server));
        let open = its.filter_map(|row| row.open_requests).sum();
        self.remove_group(&service, group).await?;
        Ok(open)
    }

    /// Removes a service with all its groups, whatever traffic they take.
    pub async fn destroy_service(&self, name: &str) -> Result<()> {
        let Ok(service) = self.service(name) else {
            // It is recorded and could not be started.
            let record = read_json(&self.place.service(name).join("service.json"))?;
            return record.map_or(Ok(()), |record| self.remove_service_files(&record));
        };
        let _changing = service.changing.lock().await;
        service.end_balancer().await;
        let record = service.record();
        // The record goes first: instances of a group that no record names are removed by the next locald, too.
        self.remove_service_files(&record)?;
        self.end_members(record.groups.values().flat_map(|group| &group.members)).await;
        lock(&self.services).remove(name);
        Ok(())
    }

    /// Makes every balancer know what is recorded.
    pub async fn repair(self: &Arc<Self>) -> Result<()> {
        for record in self.place.service_records()? {
            let known = lock(&self.services).get(&record.spec.name).cloned();
            match known {
                Some(service) => {
                    let _changing = service.changing.lock().await;
                    self.converge(&service).await?;
                    service.runtime.forget(&self.servers(&service.record())).await?;
                }
                None => self.take_over_service(record).await?,
            }
        }
        Ok(())
    }

    /// Ends instances whose group is no more.
    pub fn end_orphans(&self) {
        let services: Vec<_> = self.place.service_records().unwrap_or_default();
        let is_member =
            |id: &String| services.iter().any(|s| s.groups.values().any(|group| group.members.contains(id)));
        for (id, instance) in lock(&self.instances).iter() {
            if matches!(instance.record().owner, Owner::Group { .. }) && !is_member(id) {
                instance.end();
            }
        }
    }

    async fn launch_members(self: &Arc<Self>, record: &GroupRecord) -> Result<()> {
        let spec = &record.group.spec;
        let launch = LaunchSpec {
            image: spec.image.clone(),
            purpose: format!("group {}", spec.name),
            tags: spec.tags.clone(),
            ..LaunchSpec::default()
        };
        for id in &record.members {
            let owner = Owner::Group { service: spec.service.clone(), group: spec.name.clone() };
            self.launch(id, &launch, owner).await?;
        }
        Ok(())
    }

    async fn remove_group(&self, service: &Service, group: &str) -> Result<()> {
        let Some(record) = service.record().groups.get(group).cloned() else { return Ok(()) };
        self.change_service(service, |service| {
            service.groups.remove(group);
        })?;
        self.converge(service).await?;
        self.end_members(&record.members).await;
        service.runtime.forget(&self.servers(&service.record())).await
    }

    async fn end_members(&self, members: impl IntoIterator<Item = &String>) {
        let instances: Vec<_> = members.into_iter().filter_map(|id| self.instance(id)).collect();
        instances.iter().for_each(|instance| instance.end());
        for instance in instances {
            instance.gone().await;
        }
    }

    async fn converge(&self, service: &Service) -> Result<()> {
        service.runtime.converge(&self.servers(&service.record())).await
    }

    fn servers(&self, record: &ServiceRecord) -> Vec<Server> {
        balancer::servers(record, |id| self.instance(id).map(|instance| instance.record().address))
    }

    fn change_service(&self, service: &Service, change: impl FnOnce(&mut ServiceRecord)) -> Result<()> {
        let mut record = lock(&service.record);
        let mut changed = record.clone();
        change(&mut changed);
        write_record(&self.place, &changed)?;
        *record = changed;
        Ok(())
    }

    fn remove_service_files(&self, record: &ServiceRecord) -> Result<()> {
        let files = self.place.service(&record.spec.name);
        fs::remove_file(files.join("service.json")).with_context(|| format!("removing {}", files.display()))?;
        for name in ["process.json", "haproxy.cfg", "log"] {
            let _ = fs::remove_file(files.join(name));
        }
        // The deployer's journal may be in there, and is the deployer's.
        let _ = fs::remove_dir(&files);
        let _ = fs::remove_file(self.place.run().join(format!("{}.haproxy", record.spec.name)));
        self.network.remove_balancer(record.address)?;
        self.tell_names()
    }
}

fn write_record(place: &Place, record: &ServiceRecord) -> Result<()> {
    write_json(&place.service(&record.spec.name).join("service.json"), record)
}

fn check_spec(spec: &ServiceSpec) -> Result<()> {
    check_name(&spec.name)?;
    let is_plain = |text: &str, more: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    ensure!(
        spec.health.starts_with('/') && is_plain(&spec.health, "/-._~%?&=+:@,"),
        "'{}' is no path of a health check: it starts with / and has no spaces or quotes",
        spec.health
    );
    ensure!(is_plain(&spec.dns, "-."), "'{}' is no DNS name", spec.dns);
    Ok(())
}

/// Names become file names and words in HAProxy's configuration.
fn check_name(name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = (1..=63).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-');
    ensure!(fits, "'{name}' is no name of a service or group: at most 63 lower-case letters, digits and dashes");
    Ok(())
}
