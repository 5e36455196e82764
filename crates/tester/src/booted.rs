//! A throw-away instance, and what the probe in it finds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use cli::{interrupt, narrate};
use jiff::Timestamp;
use manifest::{CheckOutcome, Placement, TestedCheck};
use probe::checks::{CheckResult, Outcome};
use probe::report::{Report, unframe};
use probe::system::SystemState;
use provider::{Instance, InstanceState, Instances, LaunchSpec, Store};
use uuid::Uuid;

use crate::checklist::Checklist;
use crate::user_data::{self, Via};

/// The phase of every check that is made here.
const PHASE: &str = "booted";
/// What the checks without a time-out of their own may take together, with the way of the report.
const GRACE: Duration = Duration::from_secs(30);
/// How long an instance may be there beyond the time that the test waits for its report: it has to be terminated, too.
const LEASE: Duration = Duration::from_secs(600);
/// How soon an interrupt is noticed.
const SLICE: Duration = Duration::from_millis(100);
/// How many lines of the console go into an error.
const TAIL_LINES: usize = 20;

/// What all images of a run are tested with.
pub(crate) struct Bench {
    /// The program that goes into instances.
    pub(crate) probe: PathBuf,
    /// Where it is put for them, if the provider has no place for that.
    pub(crate) store: Option<Store>,
    /// Where instances are put.
    pub(crate) placement: Placement,
    /// How the report comes out of them.
    pub(crate) via: Via,
    /// Their tags.
    pub(crate) tags: BTreeMap<String, String>,
}

/// What was found in the instance.
pub(crate) struct Booted {
    /// From launch until the system was up.
    pub(crate) after: Duration,
    /// Every check.
    pub(crate) checks: Vec<TestedCheck>,
}

/// Boots an instance from the image, has it checked and terminates it, however that ends.
pub(crate) async fn boot_and_check<P: Instances>(
    provider: &P,
    builder: &str,
    image: &str,
    checklist: &Checklist,
    bench: &Bench,
) -> Result<Booted> {
    let nonce = Uuid::new_v4().simple().to_string();
    // The probe is started by the boot, and waits for the rest of the boot.
    let patience = 2 * checklist.boot + checklist.checks + GRACE + P::LAG;
    let store = bench.store.as_ref();
    let probe = provider.offer(&bench.probe, store, patience).await.context("offering the probe")?;
    let gossfile = provider.offer(checklist.file.path(), store, patience).await.context("offering the gossfile")?;
    let spec = LaunchSpec {
        image: image.to_owned(),
        purpose: format!("test of {builder}"),
        user_data: Some(user_data::script(&probe, &gossfile, &nonce, checklist.boot, bench.via)?),
        tags: bench.tags.clone(),
        placement: bench.placement.clone(),
        expires: Some(Timestamp::now() + patience + LEASE),
        lets_in: bench.via == Via::Ssm,
    };
    interrupt::check()?;
    narrate::step(&format!("{builder}: Booting an instance and checking it..."));
    let launched = Instant::now();
    let instance = provider.launch(&spec).await.context("launching an instance")?;
    let watch = Watch { provider, instance: &instance, nonce: &nonce, via: bench.via, launched, patience };
    let watched = watch.report().await;
    narrate::step(&format!("{builder}: Terminating the instance..."));
    let terminated = provider.terminate(&instance.id).await;
    let terminated = terminated.with_context(|| format!("terminating the instance {}", instance.id));
    match watched {
        Ok((report, arrived)) => terminated.and_then(|()| booted(report, arrived, checklist.boot)),
        Err(error) => {
            if let Err(left) = terminated {
                narrate::note(&format!("{left:#}; `tester gc` does it later"));
            }
            Err(error)
        }
    }
}

/// An instance that is to report.
struct Watch<'a, P> {
    provider: &'a P,
    instance: &'a Instance,
    nonce: &'a str,
    via: Via,
    launched: Instant,
    patience: Duration,
}

impl<P: Instances> Watch<'_, P> {
    /// Waits for the report. Also says how long after the launch it arrived.
    async fn report(&self) -> Result<(Report, Duration)> {
        let id = &self.instance.id;
        loop {
            interrupt::check()?;
            let over = self.launched.elapsed() > self.patience;
            let ended = has_ended(self.provider.describe(id).await?.as_ref());
            // Read after that: what it wrote before it ended is there.
            let written = match self.written().await {
                Err(_) if ended => String::new(),
                written => written?,
            };
            let failure = match unframe(&written, self.nonce) {
                Ok(Some(report)) => return Ok((report, self.launched.elapsed())),
                Ok(None) => anyhow!("no report came from the instance {id} within {} s", self.patience.as_secs()),
                // Another copy may follow.
                Err(garbled) => garbled.into(),
            };
            if let Some(why) = user_data::failure(&written, self.nonce) {
                bail!("the probe could not be started in the instance {id}: {why}");
            }
            let failure = if ended { anyhow!("the instance {id} ended before it had been checked") } else { failure };
            if over || ended {
                bail!("{failure}; {}", self.last_words().await);
            }
            self.pause().await?;
        }
    }

    /// What has come of the report so far.
    async fn written(&self) -> Result<String> {
        match self.via {
            Via::Console => self.provider.console(&self.instance.id).await,
            Via::Ssm => Ok(self.provider.read(&self.instance.id, self.via.path()).await?.unwrap_or_default()),
        }
    }

    /// What the console tells of an instance that has not reported.
    async fn last_words(&self) -> String {
        let console = match self.provider.console(&self.instance.id).await {
            Ok(console) => console,
            Err(error) => return format!("{error:#}"),
        };
        if !console.to_lowercase().contains("cloud-init") {
            let image = &self.instance.image;
            return format!(
                "its console has no word of cloud-init, which has to start the probe: the image {image} lacks it or writes \
                 to another console; the last lines of this one:\n{}",
                tail(&console)
            );
        }
        format!("the last lines of its console:\n{}", tail(&console))
    }

    /// Waits until it makes sense to ask again, or until the process is asked to end.
    async fn pause(&self) -> Result<()> {
        let until = Instant::now() + P::POLL;
        while Instant::now() < until {
            interrupt::check()?;
            tokio::time::sleep(P::POLL.min(SLICE)).await;
        }
        Ok(())
    }
}

/// A second start means that the first ended.
fn has_ended(instance: Option<&Instance>) -> bool {
    let ends = |state| matches!(state, InstanceState::ShuttingDown | InstanceState::Terminated);
    instance.is_none_or(|instance| ends(instance.state) || instance.starts > 1)
}

fn booted(report: Report, arrived: Duration, boot: Duration) -> Result<Booted> {
    if let Some(error) = report.error {
        bail!("the probe refuses the gossfile, it is of another version than the tester: {error}");
    }
    let checking = Duration::try_from_secs_f64(report.seconds).unwrap_or_default();
    let system = system_check(report.system_state, boot);
    let checks = std::iter::once(system).chain(report.checks.into_iter().map(tested)).collect();
    Ok(Booted { after: arrived.saturating_sub(checking), checks })
}

fn system_check(system: Option<SystemState>, boot: Duration) -> TestedCheck {
    let system = system.unwrap_or(SystemState { state: "unknown".to_owned(), failed_units: Vec::new() });
    let message = match system.state.as_str() {
        "running" => None,
        "degraded" => Some(format!("failed units: {}", system.failed_units.join(", "))),
        state => Some(format!("the system is still {state} after {} s (test.boot_seconds)", boot.as_secs())),
    };
    TestedCheck {
        phase: PHASE.to_owned(),
        name: "system: running".to_owned(),
        outcome: if message.is_none() { CheckOutcome::Passed } else { CheckOutcome::Failed },
        message,
        millis: 0,
    }
}

fn tested(check: CheckResult) -> TestedCheck {
    let outcome = match check.outcome {
        Outcome::Passed => CheckOutcome::Passed,
        Outcome::Failed => CheckOutcome::Failed,
        Outcome::Skipped => CheckOutcome::Skipped,
    };
    let message = (outcome != CheckOutcome::Passed).then(|| {
        let why = check.message.unwrap_or_else(|| format!("expected {}", check.expected));
        if check.found.is_null() { why } else { format!("{why}, found {}", check.found) }
    });
    // A command may be a script.
    let mut lines = check.resource_id.trim().lines();
    let first = lines.next().unwrap_or_default();
    let id = if lines.next().is_some() { format!("{first} …") } else { first.to_owned() };
    let name = format!("{} {id}: {}", check.resource_type, check.property);
    TestedCheck { phase: PHASE.to_owned(), name, outcome, message, millis: check.duration_ms }
}

fn tail(console: &str) -> String {
    let lines: Vec<_> = console.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn result(outcome: Outcome, found: Value, message: Option<&str>) -> CheckResult {
        CheckResult {
            resource_type: "file".to_owned(),
            resource_id: "/etc/motd".to_owned(),
            property: "mode".to_owned(),
            title: None,
            outcome,
            expected: json!("0644"),
            found,
            message: message.map(str::to_owned),
            duration_ms: 3,
        }
    }

    fn state(state: &str, failed: &[&str]) -> Option<SystemState> {
        let failed_units = failed.iter().map(|unit| (*unit).to_owned()).collect();
        Some(SystemState { state: state.to_owned(), failed_units })
    }

    #[test]
    fn a_failed_check_says_what_was_expected_and_what_was_found() {
        let check = tested(result(Outcome::Failed, json!("0600"), Some("expected to equal \"0644\"")));
        assert_eq!(check.name, "file /etc/motd: mode");
        assert_eq!(check.message.unwrap(), "expected to equal \"0644\", found \"0600\"");
        assert_eq!(tested(result(Outcome::Passed, json!("0644"), None)).message, None);
    }

    #[test]
    fn a_system_that_is_not_running_is_a_failed_check() {
        let boot = Duration::from_secs(60);
        assert_eq!(system_check(state("running", &[]), boot).outcome, CheckOutcome::Passed);
        let degraded = system_check(state("degraded", &["a.service", "b.socket"]), boot);
        assert_eq!(degraded.outcome, CheckOutcome::Failed);
        assert_eq!(degraded.message.unwrap(), "failed units: a.service, b.socket");
        let starting = system_check(state("starting", &[]), boot).message.unwrap();
        assert_eq!(starting, "the system is still starting after 60 s (test.boot_seconds)");
    }

    #[test]
    fn the_time_of_the_checks_is_not_that_of_the_boot() {
        let mut report = Report::broken(String::new());
        report.error = None;
        report.seconds = 1.5;
        let booted = booted(report, Duration::from_secs(4), Duration::from_secs(60)).unwrap();
        assert_eq!(booted.after, Duration::from_millis(2500));
    }
}
