//! Waiting until the machine has booted.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::exec::{self, ExecError};

/// For the questions that systemd answers at once.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Before systemd has its bus, systemctl fails at once instead of waiting.
const RETRY: Duration = Duration::from_millis(250);

/// What systemd says of the machine as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SystemState {
    /// The word of `systemctl is-system-running`: `running`, `degraded`, still
    /// `starting` when the time was over, `offline` without systemd, `unknown` if
    /// there was no answer.
    pub state: String,
    /// The units that failed, if the machine is degraded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed_units: Vec<String>,
}

/// Waits until systemd has done all it has to do at boot, or `patience` is over.
/// What it says by then is reported, never an error: the checks tell more.
///
/// The caller must not itself be a part of the boot: a unit of `Type=oneshot` that
/// the default target waits for would wait for itself. `Type=exec` does not.
pub fn wait(patience: Duration) -> SystemState {
    let deadline = Instant::now() + patience;
    let state = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match exec::run("systemctl", &["is-system-running", "--wait"], left) {
            Ok(answer) => match answer.stdout.trim() {
                "" | "initializing" | "starting" | "unknown" if left > RETRY => std::thread::sleep(RETRY),
                "" => break "unknown".to_owned(),
                word => break word.to_owned(),
            },
            Err(ExecError::TimedOut(..)) => break word_of_now(),
            Err(_) => break "unknown".to_owned(),
        }
    };
    let failed_units = if state == "degraded" { failed_units() } else { Vec::new() };
    SystemState { state, failed_units }
}

fn word_of_now() -> String {
    let answer = exec::run("systemctl", &["is-system-running"], TIMEOUT);
    let word = answer.map(|it| it.stdout.trim().to_owned()).unwrap_or_default();
    if word.is_empty() { "unknown".to_owned() } else { word }
}

fn failed_units() -> Vec<String> {
    let arguments = ["list-units", "--state=failed", "--plain", "--no-legend", "--no-pager", "--full"];
    exec::run("systemctl", &arguments, TIMEOUT).map(|answer| unit_names(&answer.stdout)).unwrap_or_default()
}

fn unit_names(listing: &str) -> Vec<String> {
    listing.lines().filter_map(|line| line.split_ascii_whitespace().next()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_failed_units() {
        let listing = "hello.service            loaded failed failed Hello\n\
                       systemd-udevd.socket     loaded failed failed udev Control Socket\n";
        assert_eq!(unit_names(listing), ["hello.service", "systemd-udevd.socket"]);
        assert!(unit_names("").is_empty());
    }
}
