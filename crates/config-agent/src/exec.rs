//! Commands that the configuration names: check, reload, health.
//!
//! The one place where this crate starts child processes. It does not use the runner of crate `cli`: the program must
//! stay small, and it has no terminal to narrate to.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

/// How much of a failed command's output is shown: its end, where the reason is.
const SHOWN: u64 = 2048;

/// Runs a shell command with some variables, at most for `timeout`; then it is killed with all that it started. The
/// error says how it failed, with the end of what it printed.
pub async fn shell(command: &str, variables: &[(&str, &str)], timeout: Duration) -> Result<(), String> {
    run(&["/bin/sh", "-c", command], variables, timeout).await.map_err(|why| format!("`{command}` {why}"))
}

/// Runs a program as [`shell`] does.
pub async fn program(line: &[&str], timeout: Duration) -> Result<(), String> {
    run(line, &[], timeout).await.map_err(|why| format!("`{}` {why}", line.join(" ")))
}

async fn run(line: &[&str], variables: &[(&str, &str)], timeout: Duration) -> Result<(), String> {
    // A file and no pipe: what the command leaves in the background may keep it open for as long as it likes.
    let mut output = tempfile::tempfile().map_err(|error| format!("cannot be started: no temporary file ({error})"))?;
    let mut child = spawn(line, variables, &output).map_err(|error| format!("cannot be started: {error}"))?;
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let Ok(ended) = tokio::time::timeout(timeout, child.wait()).await else {
        if let Some(group) = group {
            // It fails if nothing is left of the group, which is as good.
            let _ = kill_process_group(group, Signal::KILL);
        }
        return Err(format!("was killed: it ran for {timeout:?}{}", end_of(&mut output)));
    };
    let status = ended.map_err(|error| format!("cannot be waited for: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{}{}", failed(status), end_of(&mut output))) }
}

#[expect(clippy::disallowed_methods, reason = "this crate's own runner, see above")]
fn spawn(line: &[&str], variables: &[(&str, &str)], output: &File) -> io::Result<tokio::process::Child> {
    let (program, arguments) = line.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    Command::new(program)
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn failed(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("failed with status {code}"),
        (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
    }
}

fn end_of(output: &mut File) -> String {
    let read = |output: &mut File| -> io::Result<Vec<u8>> {
        let length = output.seek(SeekFrom::End(0))?;
        output.seek(SeekFrom::Start(length.saturating_sub(SHOWN)))?;
        let mut bytes = Vec::new();
        output.take(SHOWN).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read(output).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    if text.trim().is_empty() { String::new() } else { format!(": {}", text.trim()) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_failure_is_told_with_what_was_printed() {
        assert_eq!(shell("test \"$A\" = b", &[("A", "b")], LONG).await, Ok(()));
        let error = shell("echo why; echo else >&2; exit 3", &[], LONG).await.unwrap_err();
        assert_eq!(error, "`echo why; echo else >&2; exit 3` failed with status 3: why\nelse");
        let error = program(&["no-such-program"], LONG).await.unwrap_err();
        assert!(error.starts_with("`no-such-program` cannot be started: "), "{error}");
    }

    #[tokio::test]
    async fn what_stays_in_the_background_holds_up_nothing() {
        let started = Instant::now();
        let pid = tempfile::NamedTempFile::new().unwrap();
        let command = format!("sleep 60 & echo $! > {}", pid.path().display());
        assert_eq!(shell(&command, &[], LONG).await, Ok(()));
        assert!(started.elapsed() < Duration::from_secs(10));
        let pid: i32 = std::fs::read_to_string(pid.path()).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn a_deadline_ends_the_command() {
        let started = Instant::now();
        let error = shell("echo begun; sleep 60 & wait", &[], Duration::from_millis(300)).await.unwrap_err();
        assert!(error.ends_with("was killed: it ran for 300ms: begun"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}
