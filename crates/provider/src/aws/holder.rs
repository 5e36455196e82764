//! Which process has something at AWS: others can tell whether it still runs, if they are on the same machine.

use std::fs;

use cli::process::ProcessId;
use serde::{Deserialize, Serialize};

/// Most characters of a program's name: with it all must fit into a tag's value of 256.
const PROGRAM: usize = 60;

/// A process that has something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// The machine since its last start, and which of its process id spaces: containers have their own.
    pub machine: String,
    pub process: ProcessId,
    /// What it is, for people.
    pub program: String,
}

impl Holder {
    /// This process.
    pub fn this() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let program = std::env::args().take(2).collect::<Vec<_>>().join(" ");
        Self {
            machine: format!("{} {}", boot.trim(), space.display()),
            process: ProcessId::current(),
            program: program.rsplit('/').next().unwrap_or_default().chars().take(PROGRAM).collect(),
        }
    }

    /// Whether it is known to have ended. Of a process on another machine that is not known.
    pub fn has_ended(&self) -> bool {
        self.machine == Self::this().machine && !self.process.is_alive()
    }
}
