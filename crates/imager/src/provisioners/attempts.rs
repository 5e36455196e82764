//! What a provisioner of any type can say about its runs: `pause_before`, `max_retries` and `timeout`.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cli::{interrupt, narrate};

use super::breakpoint::{ask, say_how_to_look};
use crate::chroot::Chroot;
use crate::on_error::Failure;
use crate::template::Options;

/// How often a pause looks whether it is interrupted.
const TICK: Duration = Duration::from_millis(50);

/// When, how often and for how long a provisioner is run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attempts {
    pause_before: Duration,
    /// How often it is run again after a failure.
    max_retries: u32,
    /// How long each run may take.
    timeout: Option<Duration>,
}

impl Attempts {
    /// Takes these options out of a provisioner's: they do not bear on what it makes, and so not on its layer.
    pub(crate) fn read(options: &mut Options) -> Result<Self> {
        Ok(Self {
            pause_before: options.duration("pause_before")?.unwrap_or_default(),
            max_retries: options.number("max_retries")?.unwrap_or(0),
            timeout: options.duration("timeout")?.filter(|timeout| !timeout.is_zero()),
        })
    }

    /// Runs a provisioner until it succeeds, was run often enough, or nobody wants it run again.
    pub(crate) fn run(&self, chroot: &Chroot, failure: &Failure, provisioner: impl Fn() -> Result<()>) -> Result<()> {
        let label = chroot.label();
        if !self.pause_before.is_zero() {
            narrate::detail(&format!("{label}: Pausing {:?} before the next provisioner...", self.pause_before));
            pause(self.pause_before)?;
        }
        let mut retries = 0;
        while let Err(error) = self.once(chroot, &provisioner) {
            if interrupt::requested() {
                return Err(error);
            }
            // What the failed run left must not be in the way of the next.
            chroot.end_left_over()?;
            if retries < self.max_retries {
                retries += 1;
                narrate::note(&format!("{label}: {error:#}"));
                narrate::detail(&format!("{label}: Trying again: retry {retries} of {}", self.max_retries));
                continue;
            }
            let runs_again = failure.runs_again(|question| {
                narrate::note(&format!("{label}: {error:#}"));
                say_how_to_look(chroot);
                ask(question)
            })?;
            if !runs_again {
                return Err(error);
            }
        }
        Ok(())
    }

    fn once(&self, chroot: &Chroot, provisioner: &impl Fn() -> Result<()>) -> Result<()> {
        let Some(timeout) = self.timeout else { return provisioner() };
        let deadline = Instant::now() + timeout;
        chroot.set_deadline(Some(deadline));
        let ran = provisioner();
        chroot.set_deadline(None);
        let late = ran.is_err() && deadline <= Instant::now();
        if late { ran.with_context(|| format!("it took longer than its timeout of {timeout:?}")) } else { ran }
    }
}

/// Lets time pass, as a template asks for it, until an interrupt.
pub(super) fn pause(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        interrupt::check()?;
        thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
    }
    Ok(())
}
