//! What is measured, and how long it took.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cli::Command;
use cli::interrupt::{self, EndedByInterrupt};

use super::Bench;
use crate::workspace::Workspace;

/// What has happened since the build before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// There was none.
    Cold,
    /// The last provisioner has changed.
    LastChanged,
    /// Nothing.
    NothingChanged,
    /// There was none, and two builders are at it.
    TwoBuilders,
}

impl Scenario {
    /// All, in the order in which they follow from one another.
    pub const ALL: [Self; 4] = [Self::Cold, Self::LastChanged, Self::NothingChanged, Self::TwoBuilders];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::LastChanged => "last_changed",
            Self::NothingChanged => "nothing_changed",
            Self::TwoBuilders => "two_builders",
        }
    }

    /// What the template is told. The first provisioner writes `round`, the last one `release`.
    pub fn arguments(self, round: u32) -> Vec<String> {
        let (times, release) = match self {
            Self::Cold => ("first", 1),
            Self::LastChanged | Self::NothingChanged => ("first", 2),
            Self::TwoBuilders => ("second", 1),
        };
        let mut arguments =
            vec!["-var".into(), format!("round={round}-{times}"), "-var".into(), format!("release={release}")];
        if self != Self::TwoBuilders {
            arguments.push("-only=one".into());
        }
        arguments
    }
}

/// A run that has ended.
#[derive(Debug)]
pub struct Timed {
    /// Who ran.
    pub name: &'static str,
    /// From its start to its end.
    pub seconds: f64,
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub log: PathBuf,
}

impl Timed {
    /// Runs `command` to its end. What it prints goes into a file, as Packer hands its own output on to provisioned
    /// processes, which may hold a pipe open for longer than it lives.
    pub fn run(bench: &Bench, name: &'static str, command: Command) -> Result<Self> {
        let log = bench.logs.join(format!("{name}.log"));
        let doing = || format!("writing {}", log.display());
        let out = File::create(&log).with_context(doing)?;
        let err = out.try_clone().with_context(doing)?;
        let command = command.current_dir(&bench.files).configure(|it| {
            it.stdout(out).stderr(err);
        });
        let begin = Instant::now();
        let mut child = command.spawn()?;
        let _ended_by_interrupt = EndedByInterrupt::new(child.id());
        let status = child.wait()?;
        let seconds = begin.elapsed().as_secs_f64();
        interrupt::check()?;
        Ok(Self { name, seconds, status, log })
    }

    /// A run that failed has no time.
    pub fn succeeded(&self) -> Result<()> {
        if !self.status.success() {
            bail!("{} failed ({}); its log is {}", self.name, self.status, Workspace::shown(&self.log));
        }
        Ok(())
    }
}
