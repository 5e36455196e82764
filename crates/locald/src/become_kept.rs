//! `locald become-kept`: becomes a program that locald keeps running.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result};
use cli::ExitCode;
use cli::process::ProcessId;
use provider::local::api::write_json;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Becomes a program that locald keeps running.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory in which the process is recorded.
    #[arg(long, value_name = "DIR")]
    directory: PathBuf,
    /// Network namespace to run in.
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Becomes the program. Returns only if it cannot.
pub fn run(args: &Args) -> Result<ExitCode> {
    record(&args.directory)?;
    if let Some(netns) = &args.netns {
        enter(netns)?;
    }
    let become_it = cli::Command::new(&args.command[0]).args(&args.command[1..]);
    Err(become_it
        .configure(|command| {
            command.stdin(Stdio::inherit());
        })
        .exec()
        .into())
}

/// Records this process, before it becomes anything: a locald that is killed right after starting
/// it is followed by one that finds it.
pub fn record(directory: &Path) -> Result<()> {
    // A session of its own, so that no terminal's signals reach it. It leads one already only if started by hand.
    let _ = rustix::process::setsid();
    write_json(&directory.join("process.json"), &ProcessId::current())
}

/// Moves this thread into a network namespace.
pub fn enter(netns: &Path) -> Result<()> {
    use std::os::fd::AsFd;
    let doing = || format!("entering the network namespace {}", netns.display());
    let file = File::open(netns).with_context(doing)?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).with_context(doing)
}
