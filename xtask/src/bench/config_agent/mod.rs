//! `cargo xtask bench config-agent`

mod agent;
mod etcd;
mod latency;
mod lost;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use cli::host::{self, Tool};
use cli::{ExitCode, narrate};

use crate::setup;
use crate::workspace::Workspace;
use agent::Agent;
use etcd::Etcd;
use report::{Report, Rest};

/// The store.
const ETCD: Tool = Tool { program: "etcd", package: "etcd-server", used_for: "being the store" };

/// How many keys the store has while times are measured.
const KEYS: usize = 10_000;

/// Measure config-agent with a real etcd: times to the new file, lost updates, CPU at rest, memory and size.
///
/// docs/bench.md says what is measured.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print one JSON document on stdout. The table on stderr is there either way.
    #[arg(long)]
    json: bool,

    /// How many changes are timed, one after the other.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changes: u32,

    /// How many random changes are made while the store is killed.
    #[arg(long, default_value_t = 100_000)]
    random_changes: u32,

    /// How often the store is killed meanwhile.
    #[arg(long, default_value_t = 20)]
    kills: u32,

    /// For how many seconds the agent is left alone.
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// Builds the agent as it ships, measures it, and reports.
pub fn run(args: &Args) -> Result<ExitCode> {
    let needed = [ETCD].into_iter().chain(setup::PROTOCOL_COMPILER);
    let missing: Vec<_> = needed.filter(|tool| !host::has(tool.program)).collect();
    setup::install(&missing, narrate::detail, |command| {
        command.narrated().run()?;
        Ok(())
    })?;
    let workspace = Workspace::find()?;
    narrate::step("Building config-agent as it ships...");
    workspace.builds_config_agent().run().context("building config-agent")?;
    let program = workspace.config_agent();
    let place = workspace.target.join("bench-state/config-agent");
    let mut report = Report {
        size_bytes: fs::metadata(&program).with_context(|| format!("looking at {}", program.display()))?.len(),
        ..Report::default()
    };

    narrate::step(&format!("One template that reads all of {KEYS} keys"));
    let (etcd, agent) = begin(&place, &program, 1)?;
    report.one_template = latency::measure(&etcd, &agent, args.changes, 1)?;
    report.rss_one_template_kib = agent.resident_kib()?;
    drop((agent, etcd));

    narrate::step(&format!("1000 templates that read {} keys each", KEYS / 1000));
    let (etcd, agent) = begin(&place, &program, 1000)?;
    report.thousand_templates = latency::measure(&etcd, &agent, args.changes, 1000)?;
    report.rss_thousand_templates_kib = agent.resident_kib()?;
    narrate::step(&format!("{} s without a change", args.rest));
    report.rest = Rest::measure(&agent, Duration::from_secs(args.rest))?;
    drop((agent, etcd));

    narrate::step(&format!("{} random changes, the store killed {} times", args.random_changes, args.kills));
    report.lost = lost::measure(&place, &program, args.random_changes, args.kills)?;
    narrate::finish();
    report.show(args.json)?;
    Ok(if report.lost.equal { ExitCode::Done } else { ExitCode::Verdict })
}

/// A store with all keys, and an agent that has made all files.
fn begin(place: &Path, program: &Path, templates: usize) -> Result<(Etcd, Agent)> {
    clean(place)?;
    let etcd = Etcd::start(&place.join("etcd"))?;
    let pairs: Vec<_> = (0..KEYS).map(|key| (agent::key(key, templates), "0".to_owned())).collect();
    for some in pairs.chunks(100) {
        etcd.put_all(some)?;
    }
    let agent = Agent::start(place, program, &etcd.address(), templates)?;
    Ok((etcd, agent))
}

fn clean(place: &Path) -> Result<()> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("removing {}", place.display()));
        }
        _ => (),
    }
    fs::create_dir_all(place).with_context(|| format!("creating {}", place.display()))
}

/// A file of the place.
fn write(path: &PathBuf, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
