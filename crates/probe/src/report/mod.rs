//! The report: every check, how it went, and how it leaves the machine.

mod frame;
mod listing;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

pub use frame::{FrameError, frame, is_nonce, unframe};
pub use listing::listing;

use crate::checks::{CheckResult, Outcome};
use crate::system::SystemState;

/// The version of [`Report`] that this crate writes, and the only one it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The outcome of a gossfile on one machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// Version of the program that made the checks.
    pub probe_version: String,
    /// Start of the checks by the clock of the machine, in seconds since 1970.
    pub started: u64,
    /// How long the checks took; waiting for the system is not counted.
    pub seconds: f64,
    /// What systemd said before the checks, if it was waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system_state: Option<SystemState>,
    /// Why nothing was checked: the gossfile could not be loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Every check, in the order of the gossfile.
    pub checks: Vec<CheckResult>,
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many were skipped.
    pub skipped: usize,
}

impl Report {
    /// A report on `checks`, which began at `started` and took `elapsed`.
    pub fn new(
        started: SystemTime,
        elapsed: Duration,
        system_state: Option<SystemState>,
        checks: Vec<CheckResult>,
    ) -> Self {
        let count = |outcome| checks.iter().filter(|check| check.outcome == outcome).count();
        Self {
            schema_version: SCHEMA_VERSION,
            probe_version: env!("CARGO_PKG_VERSION").to_owned(),
            started: started.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            seconds: elapsed.as_secs_f64(),
            system_state,
            error: None,
            passed: count(Outcome::Passed),
            failed: count(Outcome::Failed),
            skipped: count(Outcome::Skipped),
            checks,
        }
    }

    /// The report of a machine on which nothing could be checked.
    pub fn broken(error: String) -> Self {
        Self { error: Some(error), ..Self::new(SystemTime::now(), Duration::ZERO, None, Vec::new()) }
    }

    /// Whether checks were made and none failed.
    pub fn is_good(&self) -> bool {
        self.error.is_none() && self.failed == 0
    }
}
