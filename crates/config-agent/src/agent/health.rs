//! Reloading services, and asking whether they work.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::exec;
use crate::managed_file::{Health, Probe, Reload};

/// How far apart a service is asked.
const APART: Duration = Duration::from_millis(100);

/// Makes services read their files again, all of them. The error names those that did not.
pub async fn reload(reloads: &[Reload], timeout: Duration) -> Result<(), String> {
    // A unit that does not run reads the file when it starts.
    reload_by("try-reload-or-restart", reloads, timeout).await
}

/// Makes services that worked read their files again, and starts units that have failed since.
pub async fn revive(reloads: &[Reload], timeout: Duration) -> Result<(), String> {
    reload_by("reload-or-restart", reloads, timeout).await
}

async fn reload_by(verb: &str, reloads: &[Reload], timeout: Duration) -> Result<(), String> {
    let mut failures = Vec::new();
    for reload in reloads {
        let done = match reload {
            Reload::Command(command) => exec::shell(command, &[], timeout).await,
            Reload::Unit(unit) => exec::program(&["systemctl", verb, unit], timeout).await,
        };
        failures.extend(done.err());
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// Whether all work at this moment. Without any probe there is nothing to lose: the answer is no.
pub async fn is_healthy(health: &[Health], timeout: Duration) -> bool {
    for one in health {
        if ask(&one.probe, timeout).await.is_err() {
            return false;
        }
    }
    !health.is_empty()
}

/// Waits until all work and go on to. The error says what does not.
pub async fn becomes_healthy(health: &[Health], timeout: Duration) -> Result<(), String> {
    for one in health {
        let begun = Instant::now();
        let mut healthy_since = None;
        loop {
            match ask(&one.probe, timeout.min(one.within)).await {
                Ok(()) if healthy_since.get_or_insert_with(Instant::now).elapsed() >= one.stay => break,
                Ok(()) => (),
                Err(why) if begun.elapsed() >= one.within => return Err(why),
                Err(_) => healthy_since = None,
            }
            sleep(APART).await;
        }
    }
    Ok(())
}

async fn ask(probe: &Probe, timeout: Duration) -> Result<(), String> {
    match probe {
        Probe::Command(command) => exec::shell(command, &[], timeout).await,
        Probe::Unit(unit) => exec::program(&["systemctl", "is-active", "--quiet", unit], timeout).await,
    }
}
