//! The local provider: disks, systems and a balancer on this machine.
//!
//! State directory:
//!
//! ```text
//! objects/sha256/ab/ab12…      artifacts and other content, by digest
//! images/ID/{image.json, disk.raw, blocks.sha256}
//! aliases/NAME                  a file that holds an image id
//! volumes/ID/{volume.json, disk.raw}   complete volumes, never written again
//! layers/KEY/{layer.json, changes.json, changed.raw}   the state of a volume after a provisioner, as what
//!                               differs from the image; or with disk.raw, where files can share content
//! cache/                        what makes later runs quicker: downloaded packages
//! tmp/PID-STARTED/              what a process has not completed: removed once it has ended
//! locks/                        one file for each name that can be locked
//! locald/                       the supervisor: its copy and log (its socket is in /run)
//! instances/ID/                 instances, written by locald only
//! services/NAME/                services and their groups, written by locald only; the deployer's journal
//! ```

pub mod api;
mod changes;
pub(crate) mod contents;
mod digests;
mod disk;
mod filter;
mod fleets;
mod images;
mod instances;
mod left_over;
mod locald;
mod loop_device;
mod objects;
pub(crate) mod private_mount;
mod records;
mod volumes;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use cli::args::ProviderArgs;
use cli::lock::{IfHeld, Lock};
use cli::process::ProcessId;

pub use digests::{BLOCK, BlockDigests};
#[cfg(all(test, feature = "aws"))]
pub(crate) use disk::tests::sparse as sparse_disk;
pub use disk::{HVM, PARAVIRTUAL, root_range};
pub use objects::Directory;

use contents::Contents;
use loop_device::LoopDevice;

/// The local provider, with its state directory.
#[derive(Debug, Clone)]
pub struct Local {
    state: PathBuf,
    if_held: IfHeld,
    /// Loop devices of volumes that have been made and not been attached yet.
    devices: Arc<Mutex<BTreeMap<String, LoopDevice>>>,
    /// What this process has looked at of images and of its volumes.
    contents: Contents,
}

impl Local {
    /// Opens the state directory and creates it where there is none.
    pub fn open(args: &ProviderArgs) -> Result<Self> {
        let state = std::path::absolute(&args.state_dir)
            .with_context(|| format!("state directory {}", args.state_dir.display()))?;
        fs::create_dir_all(&state).with_context(|| {
            format!("creating the state directory {}: name another with --state-dir, or run as root", state.display())
        })?;
        Ok(Self { state, if_held: args.if_held(), devices: Arc::default(), contents: Contents::default() })
    }

    /// The state directory, absolute.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Takes the lock `name`, for `what` in messages.
    pub fn lock(&self, name: &str, what: &str) -> Result<Lock> {
        Lock::take(&self.state.join("locks").join(name), what, self.if_held)
    }

    /// What to do when somebody else holds a lock.
    #[cfg(feature = "aws")]
    pub(crate) fn if_held(&self) -> IfHeld {
        self.if_held
    }

    fn devices(&self) -> MutexGuard<'_, BTreeMap<String, LoopDevice>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A directory for what this process has not completed yet.
    ///
    /// What a process leaves there, however it ended, is removed by the next one that asks.
    pub fn temporary(&self) -> Result<PathBuf> {
        let this = ProcessId::current();
        let all = self.state.join("tmp");
        let own = all.join(format!("{}-{}", this.pid, this.started));
        if !own.exists() {
            for name in self.abandoned()? {
                records::remove_dir(&all.join(name))?;
            }
            fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
        }
        Ok(own)
    }

    /// Names of the directories in `tmp/` whose process has ended.
    fn abandoned(&self) -> Result<Vec<String>> {
        let mut names = records::names_in(&self.state.join("tmp"))?;
        names.retain(|name| !owner_of(name).is_some_and(ProcessId::is_alive));
        Ok(names)
    }

    /// The instances that run the image `id`, and the groups that launch it.
    fn users_of(&self, id: &str) -> Result<Vec<String>> {
        let place = self.place()?;
        let instances = place.instance_records()?.into_iter().map(|record| record.instance);
        let instances = instances.filter(|instance| instance.image == id).map(|instance| instance.id);
        let groups = place.service_records()?.into_iter().flat_map(|service| service.groups.into_values());
        let groups = groups.map(|record| record.group.spec).filter(|spec| spec.image == id).map(|spec| spec.name);
        Ok(instances.chain(groups).collect())
    }
}

/// The process that a directory in `tmp/` is named after.
fn owner_of(name: &str) -> Option<ProcessId> {
    let (pid, started) = name.split_once('-')?;
    Some(ProcessId { pid: pid.parse().ok()?, started: started.parse().ok()? })
}
