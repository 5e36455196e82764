//! Child processes: run to the end or to a deadline, with both streams read.
//!
//! The one place where this crate starts any. It does not use the runner of
//! crate `cli`: the program must stay small, and it has no terminal to narrate to.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use thiserror::Error;

/// What is kept of each stream; a report has no room for more, and a check that
/// prints without end must not fill the memory of the machine.
const KEPT: usize = 1 << 20;

/// How long a stream may stay open after the command has ended: something that
/// it left in the background holds it.
const GRACE: Duration = Duration::from_millis(200);

/// A child that has ended.
#[derive(Debug)]
pub(crate) struct Completed {
    /// The exit status, or 128 and the signal's number, as a shell has it.
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

#[derive(Debug, Error)]
pub(crate) enum ExecError {
    #[error("`{0}` is not installed")]
    Missing(String),
    #[error("`{0}` timed out after {1:?} and was killed")]
    TimedOut(String, Duration),
    #[error("cannot run `{0}`: {1}")]
    Failed(String, io::Error),
}

/// Runs a program and waits for it, at most for `timeout`; then it is killed with
/// everything in its process group. What it leaves in the background holding its
/// output is killed as well, so a check leaves nothing behind.
pub(crate) fn run(program: &str, arguments: &[&str], timeout: Duration) -> Result<Completed, ExecError> {
    let name = || [&[program], arguments].concat().join(" ");
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => ExecError::Missing(program.to_owned()),
        _ => ExecError::Failed(name(), error),
    };
    let mut child = start(program, arguments).map_err(failed)?;
    let outcome = follow(&mut child, timeout);
    match outcome {
        Ok(Some(completed)) => Ok(completed),
        Ok(None) => {
            end(&mut child);
            Err(ExecError::TimedOut(name(), timeout))
        }
        Err(error) => {
            end(&mut child);
            Err(ExecError::Failed(name(), error))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this crate's own runner, see above")]
fn start(program: &str, arguments: &[&str]) -> io::Result<Child> {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}

/// `None` if the deadline came first.
fn follow(child: &mut Child, timeout: Duration) -> io::Result<Option<Completed>> {
    let mut deadline = Instant::now() + timeout;
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let mut stdout = Stream::new(child.stdout.take().map(OwnedFd::from));
    let mut stderr = Stream::new(child.stderr.take().map(OwnedFd::from));
    let mut status: Option<ExitStatus> = None;
    loop {
        if let Some(status) = status
            && stdout.is_closed()
            && stderr.is_closed()
        {
            return Ok(Some(completed(status, stdout, stderr)));
        }
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            let Some(status) = status else { return Ok(None) };
            kill_group(child);
            return Ok(Some(completed(status, stdout, stderr)));
        };
        let sources = [stdout.source.as_ref(), stderr.source.as_ref()];
        let mut waits: Vec<PollFd> =
            sources.into_iter().flatten().map(|it| PollFd::from_borrowed_fd(it.as_fd(), PollFlags::IN)).collect();
        if status.is_none() {
            waits.push(PollFd::new(&ended, PollFlags::IN));
        }
        poll(&mut waits, Some(&Timespec::try_from(left).map_err(io::Error::other)?))?;
        let mut ready = waits.iter().map(|wait| !wait.revents().is_empty()).collect::<Vec<_>>().into_iter();
        for stream in [&mut stdout, &mut stderr] {
            if !stream.is_closed() && ready.next() == Some(true) {
                stream.read()?;
            }
        }
        if status.is_none() && ready.next() == Some(true) {
            status = Some(child.wait()?);
            deadline = deadline.min(Instant::now() + GRACE);
        }
    }
}

fn completed(status: ExitStatus, stdout: Stream, stderr: Stream) -> Completed {
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Completed { status, stdout: stdout.text(), stderr: stderr.text() }
}

fn kill_group(child: &Child) {
    // It fails if nothing is left of the group, which is as good.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

fn end(child: &mut Child) {
    kill_group(child);
    let _ = child.wait();
}

/// One of the child's streams, until its end.
struct Stream {
    source: Option<File>,
    kept: Vec<u8>,
}

impl Stream {
    fn new(source: Option<OwnedFd>) -> Self {
        Self { source: source.map(File::from), kept: Vec::new() }
    }

    fn is_closed(&self) -> bool {
        self.source.is_none()
    }

    fn read(&mut self) -> io::Result<()> {
        let Some(source) = &mut self.source else { return Ok(()) };
        let mut buffer = [0; 16 * 1024];
        let length = source.read(&mut buffer)?;
        if length == 0 {
            self.source = None;
        }
        let room = KEPT.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&buffer[..length.min(room)]);
        Ok(())
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Duration) -> Result<Completed, ExecError> {
        run("/bin/sh", &["-c", script], timeout)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn both_streams_and_the_status() {
        let completed = shell("echo out; echo err >&2; exit 3", LONG).unwrap();
        assert_eq!((completed.status, completed.stdout.as_str(), completed.stderr.as_str()), (3, "out\n", "err\n"));
        assert_eq!(shell("kill -TERM $$", LONG).unwrap().status, 143);
    }

    #[test]
    fn output_beyond_the_limit_does_not_block() {
        assert_eq!(shell("head -c 3000000 /dev/zero", LONG).unwrap().stdout.len(), KEPT);
    }

    #[test]
    fn a_deadline_ends_the_whole_group() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        let script = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
        let started = Instant::now();
        let error = shell(&script, Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, ExecError::TimedOut(..)), "{error}");
        assert!(started.elapsed() < Duration::from_secs(10));
        let pid = std::fs::read_to_string(file).unwrap();
        assert!(has_ended(pid.trim()));
    }

    #[test]
    fn a_background_process_does_not_hold_up_the_check() {
        let started = Instant::now();
        let completed = shell("sleep 60 & echo $!", LONG).unwrap();
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(has_ended(completed.stdout.trim()));
    }

    /// Gone, or dead and not yet reaped by whoever inherited it.
    fn has_ended(pid: &str) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while Instant::now() < deadline {
            match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
                Ok(stat) if !stat.contains(") Z ") => std::thread::sleep(Duration::from_millis(10)),
                _ => return true,
            }
        }
        false
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = run("no-such-program", &[], LONG).unwrap_err();
        assert_eq!(error.to_string(), "`no-such-program` is not installed");
    }
}
