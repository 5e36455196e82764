//! Build commands, run so that nothing of them outlives them.

use anyhow::{Context, Result};
use cli::{Command, CommandError, narrate};
use manifest::Component;

use crate::build_dir::BuildDir;
use crate::revision::Revision;

/// Where Debian's programs are; what the user added to theirs would make builds differ.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Between us and the session. `unshare` blocks SIGTERM while it waits; a shell in front of it dies of
/// SIGTERM and takes it along. It also joins stdout and stderr, so that an error shows both in order.
const OUTER_SHELL: &str = r#""$@" 2>&1; exit $?"#;

/// A build command said no: the component's fault, not ours.
#[derive(Debug, thiserror::Error)]
#[error("the build of {component}: command {number} of {count} failed ({status}): `{command}`{tail}")]
pub struct BuildFailed {
    component: String,
    number: usize,
    count: usize,
    command: String,
    status: std::process::ExitStatus,
    tail: String,
}

/// Runs the component's build commands in order in its build directory, up to the first that fails.
pub fn run_commands(component: &Component, revision: &Revision, directory: &BuildDir) -> Result<()> {
    let session = |command: &str| session(component, revision, directory, command);
    session(":").run().context("starting a session for the build commands")?;
    let commands = &component.build.commands;
    for (index, command) in commands.iter().enumerate() {
        narrate::step(&format!("{}: running `{command}`", component.name));
        match session(command).narrated().run() {
            Err(CommandError::Failed { status, tail, .. }) => {
                let tail = if tail.is_empty() { tail } else { format!("; its last lines:\n{tail}") };
                let (component, command) = (component.name.clone(), command.clone());
                return Err(
                    BuildFailed { component, number: index + 1, count: commands.len(), command, status, tail }.into()
                );
            }
            other => other?,
        };
    }
    Ok(())
}

/// The command as the first process of a PID namespace, which ends with it, with us, and with an interrupt.
fn session(component: &Component, revision: &Revision, directory: &BuildDir, command: &str) -> Command {
    let dies_with_parent = ["setpriv", "--pdeathsig", "KILL"];
    let mut namespace = vec!["unshare", "--fork", "--pid", "--kill-child", "--mount-proc"];
    if !rustix::process::geteuid().is_root() {
        namespace.push("--map-current-user");
    }
    Command::new(dies_with_parent[0])
        .args(&dies_with_parent[1..])
        .args(["/bin/sh", "-c", OUTER_SHELL, "sh"])
        .args(dies_with_parent)
        .args(namespace)
        .args(["/bin/sh", "-euc", command])
        .current_dir(directory.source())
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", directory.home())
        .env("TMPDIR", directory.temporary())
        .env("LANG", "C.UTF-8")
        .env("TZ", "UTC")
        .env("SOURCE_DATE_EPOCH", revision.epoch.to_string())
        .env("KILN_COMPONENT", &component.name)
        .env("KILN_VERSION", &revision.version)
        .env("KILN_COMMIT", &revision.component_commit)
}
