//! `cargo xtask test`

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cli::args::ProviderName;
use cli::host::{self, Tool};
use cli::interrupt::EndedByInterrupt;
use cli::{Command, ExitCode, narrate};

use crate::workspace::{Providers, Workspace};
use crate::{moto, setup};

/// What only the tests need.
const TEST_TOOLS: [Tool; 6] = [
    Tool { program: "wrk", package: "wrk", used_for: "loading a service while it is deployed" },
    Tool { program: "curl", package: "curl", used_for: "asking a service" },
    Tool { program: "etcd", package: "etcd-server", used_for: "being a store for config-agent" },
    Tool { program: "etcdctl", package: "etcd-client", used_for: "changing a value in that store" },
    Tool { program: "python3", package: "python3-venv", used_for: "running moto, another store" },
    Tool { program: "packer", package: "packer", used_for: "building what imager's result is compared with" },
];

/// Do all set-up and run every test. Needs root: the end-to-end tests boot instances.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arguments for `cargo nextest run` or, where nextest is not installed, for `cargo test`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    arguments: Vec<String>,
}

/// Prepares the machine, the programs and the base image, and runs the tests.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !rustix::process::geteuid().is_root() {
        bail!("the tests mount disks and boot instances, which needs root: run `cargo xtask test` as root");
    }
    let workspace = Workspace::find()?;
    sweep(&workspace.target)?;
    let mut missing = host::missing_tools(ProviderName::Local);
    missing.extend(TEST_TOOLS.into_iter().chain(setup::PROTOCOL_COMPILER).filter(|tool| !host::has(tool.program)));
    setup::install(&missing, narrate::detail, |command| run_to_success(command).context("installing packages"))?;
    for build in workspace.builds(Providers::All) {
        run_to_success(build).context("building")?;
    }
    let state = workspace.target.join("test-state");
    let base = Command::new(workspace.program("imager")).arg("base").arg("--state-dir").arg(&state);
    run_to_success(base).context("making the base image of the tests")?;
    let moto = workspace.target.join("test-moto");
    moto::install(&moto)?;
    let with_nextest = host::has("cargo-nextest");
    let tests = workspace.cargo().args(if with_nextest { &["nextest", "run"][..] } else { &["test"] });
    let tests = tests.arg("--workspace").args(Providers::All.features()).args(&args.arguments);
    let passed = attached(
        tests.env("KILN_PROBE", workspace.probe()).env("KILN_TEST_BASE", &state).env("KILN_MOTO", moto::server(&moto)),
    )?;
    Ok(if passed { ExitCode::Done } else { ExitCode::Verdict })
}

/// Removes what tests that were killed have left in the build directory: each of them has disks there.
fn sweep(target: &Path) -> Result<()> {
    let doing = || format!("removing what killed tests left in {}", target.display());
    for entry in fs::read_dir(target).with_context(doing)? {
        let path = entry.with_context(doing)?.path();
        let is_a_rig = path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("rig-"));
        if is_a_rig && File::open(&path).with_context(doing)?.try_lock().is_ok() {
            // A disk of such a test may still be mounted.
            Command::new("rm").args(["--recursive", "--one-file-system"]).arg(&path).run().with_context(doing)?;
        }
    }
    Ok(())
}

fn run_to_success(command: Command) -> Result<()> {
    let line = command.to_string();
    if attached(command)? {
        return Ok(());
    }
    bail!("`{line}` failed");
}

/// Runs a command that writes straight to our stderr or terminal; whether it succeeded.
fn attached(command: Command) -> Result<bool> {
    let mut child = command.spawn()?;
    let _ended_by_interrupt = EndedByInterrupt::new(child.id());
    let status = child.wait()?;
    cli::interrupt::check()?;
    Ok(status.success())
}
