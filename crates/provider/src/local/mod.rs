//! The local provider: disks, systems and a balancer on this machine.
//!
//! State directory:
//!
//! ```text
//! objects/sha256/ab/ab12…      artifacts and other content, by digest
//! images/ID/{image.json, disk.raw}
//! aliases/NAME                  a file that holds an image id
//! volumes/ID/{volume.json, owner.json, disk.raw}
//! layers/KEY/disk.raw           the state of a volume after a provisioner
//! locks/                        one file for each name that can be locked
//! locald/                       the supervisor: its copy, socket and log
//! instances/ID/                 instances, written by locald only
//! services/NAME/                services and their groups, written by locald only; the deployer's journal
//! ```

mod objects;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::args::ProviderArgs;
use cli::lock::{IfHeld, Lock};

pub use objects::Directory;

/// The local provider, with its state directory.
#[derive(Debug, Clone)]
pub struct Local {
    state: PathBuf,
    if_held: IfHeld,
}

impl Local {
    /// Opens the state directory and creates it where there is none.
    pub fn open(args: &ProviderArgs) -> Result<Self> {
        let state = std::path::absolute(&args.state_dir)
            .with_context(|| format!("state directory {}", args.state_dir.display()))?;
        std::fs::create_dir_all(&state).with_context(|| {
            format!("creating the state directory {}: name another with --state-dir, or run as root", state.display())
        })?;
        Ok(Self { state, if_held: args.if_held() })
    }

    /// The state directory, absolute.
    pub fn state_dir(&self) -> &Path {
        &self.state
    }

    /// Takes the lock `name`, for `what` in messages.
    pub fn lock(&self, name: &str, what: &str) -> Result<Lock> {
        Lock::take(&self.state.join("locks").join(name), what, self.if_held)
    }
}
