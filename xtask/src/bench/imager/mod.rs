//! `cargo xtask bench imager`

mod kiln;
mod packer;
mod report;
mod residue;
mod timing;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use cli::{Command, ExitCode, interrupt, narrate};

use crate::workspace::Workspace;
use kiln::{Isolation, Kiln, Store};
use packer::{Gateway, Packer};
use report::Report;
use residue::Residue;
use timing::{Scenario, Timed};

/// Measure imager beside Packer 1.6.6: the same template, playbook and base image.
///
/// Packer's amazon-chroot talks to moto, with loop devices in place of EBS volumes. Both run from the source image
/// to the registered one, in turns, and the medians are shown. Needs root; docs/bench.md says what is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON document on stdout. The table on stderr is there either way.
    #[arg(long)]
    json: bool,

    /// How many times each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// Where the benchmark's own files are.
#[derive(Debug)]
struct Bench {
    /// Template and playbook.
    files: PathBuf,
    /// What is made once: moto and the base image.
    state: PathBuf,
    /// What lives for one round. Every disk is below it.
    round: PathBuf,
    /// What the measured programs print.
    logs: PathBuf,
    /// The release build of imager.
    imager: PathBuf,
}

/// Prepares both, measures them in turns, and reports.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("the benchmark mounts disks, which needs root: run `cargo xtask bench imager` as root");
    }
    let bench = Bench::prepare(&Workspace::find()?)?;
    let _cleaned_up = CleanUp(&bench);
    bench.clean()?;
    let packer = Packer::install(&bench)?;
    let store = Store::prepare(&bench)?;
    let mut report = Report::default();
    for round in 1..=args.rounds {
        report::note_load();
        narrate::step(&format!("Round {round} of {}", args.rounds));
        measure(&bench, &packer, &store, round, &mut report)?;
        bench.clean()?;
    }
    narrate::step("A provisioner that leaves a process");
    leave_a_process(&bench, &packer, &store, &mut report)?;
    narrate::finish();
    report.show(args.json)?;
    Ok(ExitCode::Done)
}

/// Every scenario once with each. Which goes first alternates, so that neither always finds the caches warm.
fn measure(bench: &Bench, packer: &Packer, store: &Store, round: u32, report: &mut Report) -> Result<()> {
    let gateway = Gateway::start(bench, packer, &store.base_disk()?)?;
    let kilns = [Isolation::Chroot, Isolation::Boot].map(|isolation| Kiln::begin(bench, store, isolation));
    let [chroot, boot] = kilns;
    let (chroot, boot) = (chroot?, boot?);
    for scenario in Scenario::ALL {
        let runs: [&dyn Fn() -> Result<Timed>; 3] =
            [&|| chroot.build(scenario, round), &|| packer.build(&gateway, scenario, round), &|| {
                boot.build(scenario, round)
            }];
        let mut order = [0, 1, 2];
        if round.is_multiple_of(2) {
            order.reverse();
        }
        for contestant in order {
            settle()?;
            let timed = runs[contestant]()?;
            timed.succeeded()?;
            narrate::detail(&format!("{} {}: {:.2} s", timed.name, scenario.name(), timed.seconds));
            report.add(contestant, scenario, timed.seconds);
        }
    }
    gateway.stop()
}

/// What is left of a build whose provisioner starts a daemon.
fn leave_a_process(bench: &Bench, packer: &Packer, store: &Store, report: &mut Report) -> Result<()> {
    // No other process sleeps for this long: it is how ours is known.
    let sleep = format!("7200.{:06}", std::process::id());
    let gateway = Gateway::start(bench, packer, &store.base_disk()?)?;
    let kiln = Kiln::begin(bench, store, Isolation::Chroot)?;
    kiln.leave_a_process(&sleep)?.succeeded()?;
    report.left_behind.kiln = Residue::that_stays(bench, &sleep)?.names();
    let ended = packer.leave_a_process(&gateway, &sleep)?;
    let residue = Residue::that_stays(bench, &sleep)?;
    report.left_behind.packer = residue.names();
    if !ended.status.success() {
        narrate::detail(&format!("packer failed ({}); its log is {}", ended.status, Workspace::shown(&ended.log)));
    }
    residue.remove()?;
    gateway.stop()
}

/// Nobody pays for what another has yet to write.
fn settle() -> Result<()> {
    interrupt::check()?;
    Command::new("sync").run()?;
    Ok(())
}

impl Bench {
    fn prepare(workspace: &Workspace) -> Result<Self> {
        narrate::step("Building imager as it is released...");
        workspace.cargo().args(["build", "--release", "--package", "imager"]).run().context("building imager")?;
        let state = workspace.target.join("bench-state");
        let bench = Self {
            files: workspace.root.join("bench/imager"),
            round: state.join("round"),
            logs: state.join("logs"),
            state,
            imager: workspace.target.join("release/imager"),
        };
        fs::create_dir_all(&bench.logs).with_context(|| format!("creating {}", bench.logs.display()))?;
        Ok(bench)
    }

    /// Ends and removes what a round has left, also one that was killed.
    fn clean(&self) -> Result<()> {
        let residue = Residue::find(self, "")?;
        if !residue.is_empty() {
            residue.remove()?;
            let left = Residue::that_stays(self, "")?;
            ensure!(left.is_empty(), "this cannot be removed: {}", left.names().join(", "));
        }
        match fs::remove_dir_all(&self.round) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.round.display()))
            }
            _ => Ok(()),
        }
    }
}

/// Cleans up however the benchmark ends.
struct CleanUp<'a>(&'a Bench);

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.clean() {
            narrate::note(&format!("cleaning up: {error:#}"));
        }
    }
}
