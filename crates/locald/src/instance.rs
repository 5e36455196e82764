//! Instances: launching them, starting again what ends, and ending them.

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cli::Command;
use jiff::Timestamp;
use provider::local::api::{InstanceRecord, Owner, write_json};
use provider::{InstanceState, LaunchSpec};
use tokio::sync::watch;

use crate::daemon::{Pauses, require, said};
use crate::kept::Kept;
use crate::locald::{Locald, lock};
use crate::network::{self, Network};
use crate::sweep;

/// How long a system may take to shut down.
const SHUTDOWN: Duration = Duration::from_secs(8);

/// A supervised instance.
pub struct Instance {
    record: Mutex<InstanceRecord>,
    ending: watch::Sender<bool>,
    gone: watch::Sender<bool>,
}

impl Instance {
    fn new(record: InstanceRecord) -> Arc<Self> {
        let ending = record.instance.state == InstanceState::ShuttingDown;
        Arc::new(Self {
            record: Mutex::new(record),
            ending: watch::Sender::new(ending),
            gone: watch::Sender::new(false),
        })
    }

    /// Its record as it is now.
    pub fn record(&self) -> InstanceRecord {
        lock(&self.record).clone()
    }

    /// Tells it to end.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until it was told to end or its owner is no more. A group ends its instances itself.
    async fn to_end(&self, owner: &Owner) {
        let owner = match owner {
            Owner::Process(process) => Some(Kept::open(*process)),
            Owner::Group { .. } => None,
        };
        let owner_gone = async {
            match owner {
                Some(Some(process)) => process.ended().await,
                Some(None) => {}
                None => std::future::pending().await,
            }
        };
        let mut ending = self.ending.subscribe();
        tokio::select! {
            () = owner_gone => {}
            () = said(&mut ending) => {}
        }
    }

    /// Waits until nothing of it is left.
    pub async fn gone(&self) {
        said(&mut self.gone.subscribe()).await;
    }
}

/// A new id: `i-` and 17 hexadecimal digits, as on EC2.
pub fn new_id() -> String {
    format!("i-{}", &uuid::Uuid::new_v4().simple().to_string()[..17])
}

impl Locald {
    /// Launches an instance. It is supervised from here on.
    pub async fn launch(self: &Arc<Self>, id: &str, spec: &LaunchSpec, owner: Owner) -> Result<Arc<Instance>> {
        let image = self.place.state().join("images").join(&spec.image);
        ensure!(
            !spec.image.contains('/') && image.join("image.json").exists(),
            "there is no image {}: `imager images` lists those that there are",
            spec.image
        );
        require("systemd-nspawn")?;
        let fleet = self.fleet().await?;
        let instance = {
            let mut instances = lock(&self.instances);
            if let Some(present) = instances.get(id) {
                return Ok(present.clone());
            }
            let taken: Vec<_> = instances.values().map(|instance| lock(&instance.record).address).collect();
            let address = network::instance_addresses().find(|address| !taken.contains(address));
            let record = new_record(id, spec, owner, address.context("the fleet's network has no free address")?);
            write_json(&self.place.instance(id).join("instance.json"), &record)?;
            let instance = Instance::new(record);
            instances.insert(id.to_owned(), instance.clone());
            instance
        };
        fleet.tell_names()?;
        tokio::spawn(self.clone().supervise(instance.clone()));
        Ok(instance)
    }

    /// Supervises the instances that a former locald launched.
    pub fn take_over_instances(self: &Arc<Self>, records: Vec<InstanceRecord>) {
        for record in records {
            let instance = Instance::new(record.clone());
            lock(&self.instances).insert(record.instance.id, instance.clone());
            tokio::spawn(self.clone().supervise(instance));
        }
    }

    /// The instance with this id.
    pub fn instance(&self, id: &str) -> Option<Arc<Instance>> {
        lock(&self.instances).get(id).cloned()
    }

    /// The instance with this address.
    pub fn instance_at(&self, address: Ipv4Addr) -> Option<Arc<Instance>> {
        lock(&self.instances).values().find(|instance| lock(&instance.record).address == address).cloned()
    }

    /// Terminates an instance that belongs to a process.
    pub async fn terminate(&self, id: &str) -> Result<()> {
        let Some(instance) = self.instance(id) else { return Ok(()) };
        if let Owner::Group { group, .. } = instance.record().owner {
            bail!("instance {id} belongs to the group {group}, which would lack it: destroy the group");
        }
        instance.end();
        instance.gone().await;
        Ok(())
    }

    /// Failed units and last journal lines of an instance, or what it wrote to its console.
    pub fn diagnose(&self, id: &str) -> Result<String> {
        ensure!(self.instance(id).is_some(), "there is no instance {id}");
        let ask = |command: &str| {
            let leader = leader(&self.place.instance(id))?;
            Command::new("timeout")
                .args(["5", "nsenter", "--all", "--target", &leader.to_string(), "--", "/bin/sh", "-c", command])
                .ask()
                .map(|output| output.text())
                .ok()
                .filter(|text| !text.is_empty())
        };
        // A unit that is restarted again and again never counts as failed.
        let failed = ask("systemctl list-units --state=failed,auto-restart --no-legend --plain --no-pager");
        // What a service prints before it dies has no high priority.
        let journal = ask("journalctl --lines=25 --no-pager --output=short");
        if let Some(journal) = journal {
            let failed = failed.unwrap_or_else(|| "none".to_owned());
            return Ok(format!(
                "units that failed or keep being restarted: {failed}\nlast lines of the journal:\n{journal}"
            ));
        }
        let console = fs::read(self.place.instance(id).join("console.log")).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<_> = console.lines().collect();
        Ok(format!("last lines of the console:\n{}", lines[lines.len().saturating_sub(20)..].join("\n")))
    }

    async fn supervise(self: Arc<Self>, instance: Arc<Instance>) {
        let record = instance.record();
        let id = record.instance.id.as_str();
        let end = instance.to_end(&record.owner);
        tokio::pin!(end);
        let mut pauses = Pauses::default();
        let mut adopted = Kept::adopt(&self.place.instance(id));
        let running = loop {
            let started = Instant::now();
            let kept = match adopted.take() {
                Some(kept) => Ok(kept),
                None => self.start(&instance).await,
            };
            match kept {
                Ok(kept) => tokio::select! {
                    () = &mut end => break Some(kept),
                    () = kept.ended() => tracing::warn!(id, "ended, and is started again"),
                },
                Err(error) => tracing::error!(id, "{error:#}"),
            }
            tokio::select! {
                () = &mut end => break None,
                () = tokio::time::sleep(pauses.after(started)) => {}
            }
        };
        if let Err(error) = self.remove(&instance, running).await {
            tracing::error!(id, "{error:#}");
        }
        lock(&self.instances).remove(id);
        if let Err(error) = self.tell_names() {
            tracing::error!("{error:#}");
        }
        instance.gone.send_replace(true);
    }

    async fn start(&self, instance: &Instance) -> Result<Kept> {
        let record = self.change_instance(instance, |record| {
            record.instance.starts += 1;
            record.instance.state = InstanceState::Pending;
        })?;
        let id = record.instance.id;
        let (place, network, of) = (self.place.clone(), self.network.clone(), id.clone());
        let prepare = move || -> Result<()> {
            sweep::end_processes(&place, &of)?;
            network.add_instance(&of, record.address)
        };
        tokio::task::spawn_blocking(prepare).await.context("preparing an instance")??;
        let console = self.place.instance(&id).join("console.log");
        let console = OpenOptions::new().create(true).append(true).open(&console).context("opening a console")?;
        let error = console.try_clone().context("opening a console")?;
        let child = Command::new("/proc/self/exe")
            .args(["become-instance", "--state-dir"])
            .arg(self.place.state())
            .arg(&id)
            .current_dir("/")
            .configure(|command| {
                command.stdout(console).stderr(error);
            })
            .spawn()?;
        let kept = Kept::child(&child)?;
        self.change_instance(instance, |record| record.instance.state = InstanceState::Running)?;
        Ok(kept)
    }

    /// Shuts it down and removes all of it.
    async fn remove(&self, instance: &Instance, running: Option<Kept>) -> Result<()> {
        let record = self.change_instance(instance, |record| record.instance.state = InstanceState::ShuttingDown)?;
        let id = record.instance.id;
        if let Some(kept) = running {
            kept.end(SHUTDOWN).await;
        }
        let (place, network): (_, Network) = (self.place.clone(), self.network.clone());
        tokio::task::spawn_blocking(move || sweep::remove_instance(&place, &network, &id))
            .await
            .context("removing an instance")?
    }

    fn change_instance(&self, instance: &Instance, change: impl FnOnce(&mut InstanceRecord)) -> Result<InstanceRecord> {
        let mut record = lock(&instance.record);
        change(&mut record);
        write_json(&self.place.instance(&record.instance.id).join("instance.json"), &*record)?;
        Ok(record.clone())
    }
}

fn new_record(id: &str, spec: &LaunchSpec, owner: Owner, address: Ipv4Addr) -> InstanceRecord {
    let instance = provider::Instance {
        id: id.to_owned(),
        image: spec.image.clone(),
        purpose: spec.purpose.clone(),
        state: InstanceState::Pending,
        address: Some(IpAddr::V4(address)),
        launched: Timestamp::now(),
        starts: 0,
        tags: spec.tags.clone(),
    };
    InstanceRecord { instance, owner, address, user_data: spec.user_data.clone() }
}

/// The first process of the system inside: the child of systemd-nspawn.
fn leader(directory: &std::path::Path) -> Option<i32> {
    let nspawn = Kept::adopt(directory)?.pid();
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    children.split_ascii_whitespace().next()?.parse().ok()
}
