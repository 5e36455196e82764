//! The one runner of child processes.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{self, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, thread};

use command_fds::{CommandFdExt, FdMapping};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::{host, interrupt, narrate};

/// How many lines of a failed command's stderr go into its error.
const TAIL_LINES: usize = 15;

/// How long a child may take to end after SIGTERM when its time is up, before SIGKILL.
const GRACE: Duration = Duration::from_secs(2);

/// A child process to be: what runs, with which environment, and what of it is secret.
///
/// Every run is logged with its command line quoted for a shell and secrets
/// replaced by `<sensitive>`.
pub struct Command {
    program: OsString,
    arguments: Vec<OsString>,
    inner: process::Command,
    secrets: Vec<String>,
    input: Option<Vec<u8>>,
    narrated: bool,
    label: String,
    until: Option<Instant>,
    in_group: bool,
}

/// What a command that succeeded left.
#[derive(Debug)]
pub struct Output {
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// How it ended.
    pub status: ExitStatus,
}

impl Output {
    /// Its stdout as text, without the newline at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

/// A child process that goes on while we do something else.
pub type Child = process::Child;

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The program is not on this machine.
    #[error("{program} is not installed{}", match package {
        Some(package) => format!(": it is in the Debian package {package} (`apt-get install {package}`)"),
        None => String::new(),
    })]
    Missing {
        /// The program.
        program: String,
        /// The Debian package that has it, where known.
        package: Option<&'static str>,
    },
    /// It could not be started, or its output could not be read.
    #[error("could not run `{command}`: {source}")]
    Io {
        /// The command line, quoted and without secrets.
        command: String,
        /// The system's reason.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{command}` failed ({status}){}", if tail.is_empty() { String::new() } else { format!(":\n{tail}") })]
    Failed {
        /// The command line, quoted and without secrets.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The last lines that it wrote.
        tail: String,
    },
    /// This process was asked to end, and ended the command.
    #[error("interrupted while running `{command}`")]
    Interrupted {
        /// The command line, quoted and without secrets.
        command: String,
    },
    /// It ran for longer than it might, and was ended.
    #[error("`{command}` was ended: its time was up")]
    TimedOut {
        /// The command line, quoted and without secrets.
        command: String,
    },
}

impl Command {
    /// A run of `program`, found by PATH.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref().to_owned();
        #[expect(clippy::disallowed_methods, reason = "this is the runner that the rule points to")]
        let mut inner = process::Command::new(&program);
        inner.stdin(Stdio::null());
        Self {
            program,
            arguments: Vec::new(),
            inner,
            secrets: Vec::new(),
            input: None,
            narrated: false,
            label: String::new(),
            until: None,
            in_group: false,
        }
    }

    /// Adds an argument.
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self.inner.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        arguments.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable in its environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.inner.env(name, value);
        self
    }

    /// Starts from an empty environment.
    pub fn env_clear(mut self) -> Self {
        self.inner.env_clear();
        self
    }

    /// Runs it in this directory.
    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.inner.current_dir(directory);
        self
    }

    /// What it reads from stdin; without this, nothing.
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.inner.stdin(Stdio::piped());
        self.input = Some(input.into());
        self
    }

    /// Has `ours` as its descriptor `number`. For one descriptor.
    pub fn descriptor(mut self, ours: OwnedFd, number: i32) -> Self {
        let mapping = FdMapping { parent_fd: ours, child_fd: number };
        self.inner.fd_mappings(vec![mapping]).expect("one mapping collides with none");
        self
    }

    /// Never shows `secret`, neither in the log nor in errors nor in what it prints.
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        let secret = secret.into();
        if !secret.is_empty() {
            self.secrets.push(secret);
        }
        self
    }

    /// Shows what it prints, line by line, as it comes.
    pub fn narrated(mut self) -> Self {
        self.narrated = true;
        self
    }

    /// Puts a name before each line that is shown: of things that go on side by side, which one this is.
    pub fn labelled(mut self, label: &str) -> Self {
        self.label = format!("{label}: ");
        self
    }

    /// Ends it at this moment, if it still runs then.
    pub fn until(mut self, deadline: Option<Instant>) -> Self {
        self.until = deadline;
        self
    }

    /// Runs it in a process group of its own, so that what it started ends with it when it is interrupted or
    /// its time is up.
    pub fn as_group(mut self) -> Self {
        self.inner.process_group(0);
        self.in_group = true;
        self
    }

    /// Anything else that the standard library can set, such as inherited files.
    pub fn configure(mut self, configure: impl FnOnce(&mut process::Command)) -> Self {
        configure(&mut self.inner);
        self
    }

    /// Runs it to its end. An error if it fails.
    pub fn run(self) -> Result<Output, CommandError> {
        self.run_for(&[0])
    }

    /// Runs it to its end. An error unless its exit code is one of `codes`.
    pub fn run_for(self, codes: &[i32]) -> Result<Output, CommandError> {
        let command = self.to_string();
        let until = self.until;
        let (output, tail) = self.execute(&command)?;
        match output.status.code() {
            Some(code) if codes.contains(&code) => Ok(output),
            _ if interrupt::requested() => Err(CommandError::Interrupted { command }),
            _ if until.is_some_and(|until| until <= Instant::now()) => Err(CommandError::TimedOut { command }),
            _ => Err(CommandError::Failed { command, status: output.status, tail }),
        }
    }

    /// Runs it to its end, whatever its exit code: for programs whose exit code is an answer.
    pub fn ask(self) -> Result<Output, CommandError> {
        let command = self.to_string();
        self.execute(&command).map(|(output, _)| output)
    }

    /// Starts it with stdin, stdout and stderr as [`Command::configure`] has set them, and goes on.
    pub fn spawn(mut self) -> Result<Child, CommandError> {
        let command = self.to_string();
        tracing::debug!(%command, "spawn");
        self.start(&command)
    }

    /// Becomes it: this process goes on as that program. Returns only if it cannot.
    pub fn exec(mut self) -> CommandError {
        let command = self.to_string();
        tracing::debug!(%command, "exec");
        let source = self.inner.exec();
        self.not_started(&command, source)
    }

    fn start(&mut self, command: &str) -> Result<Child, CommandError> {
        self.inner.spawn().map_err(|source| self.not_started(command, source))
    }

    fn not_started(&self, command: &str, source: io::Error) -> CommandError {
        let program = self.program.to_string_lossy().into_owned();
        match source.kind() {
            io::ErrorKind::NotFound if !program.contains('/') => {
                CommandError::Missing { package: host::package_of(&program), program }
            }
            _ => CommandError::Io { command: command.to_owned(), source },
        }
    }

    fn execute(mut self, command: &str) -> Result<(Output, String), CommandError> {
        tracing::debug!(%command, "run");
        let io = |source| CommandError::Io { command: command.to_owned(), source };
        self.inner.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.start(command)?;
        let target =
            if self.in_group { interrupt::Target::Group(child.id()) } else { interrupt::Target::Process(child.id()) };
        let _ended_by_interrupt = interrupt::EndedByInterrupt::of(target);
        let (input, stdin) = (self.input.take(), child.stdin.take());
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let watch = Watch { secrets: &self.secrets, label: self.narrated.then_some(self.label.as_str()) };
        let (exited, exit) = io::pipe().map_err(io)?;
        let exited = &exited;
        let (stdout, tail, status) = thread::scope(|scope| {
            if let (Some(input), Some(mut stdin)) = (input, stdin) {
                // A program may end without having read everything: its exit code says whether that is bad.
                scope.spawn(move || stdin.write_all(&input));
            }
            let out = stdout.map(|pipe| scope.spawn(move || watch.collect(UntilExit::new(pipe, exited))));
            let err = stderr.map(|pipe| scope.spawn(move || watch.tail(UntilExit::new(pipe, exited))));
            if let Some(until) = self.until {
                scope.spawn(move || {
                    for (moment, signal) in [(until, Signal::TERM), (until + GRACE, Signal::KILL)] {
                        if !ended_before(exited, moment) {
                            target.signal(signal);
                        }
                    }
                });
            }
            let status = child.wait();
            drop(exit);
            let out = out.and_then(|reader| reader.join().ok()).unwrap_or_default();
            let err = err.and_then(|reader| reader.join().ok()).unwrap_or_default();
            (out, err, status)
        });
        let status = status.map_err(io)?;
        let tail = if tail.is_empty() { watch.last_lines(&stdout) } else { tail };
        tracing::debug!(%command, %status, "ended");
        Ok((Output { stdout, status }, tail))
    }
}

/// Waits for the other end of the pipe to be closed, which is when the child has ended, at most until `moment`.
fn ended_before(exited: &io::PipeReader, moment: Instant) -> bool {
    let mut waiting = [PollFd::new(exited, PollFlags::IN)];
    rustix::io::retry_on_intr(|| {
        let left = moment.saturating_duration_since(Instant::now());
        poll(&mut waiting, Timespec::try_from(left).ok().as_ref())
    })
    .is_ok_and(|count| count > 0)
}

/// The command line, quoted for a shell, without secrets.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        let line = shell_words::join(words.map(|word| word.to_string_lossy()));
        f.write_str(&redact(line, &self.secrets))
    }
}

/// Replaces every secret in `text` by `<sensitive>`.
pub fn redact(text: String, secrets: &[String]) -> String {
    secrets.iter().fold(text, |text, secret| text.replace(secret.as_str(), "<sensitive>"))
}

/// What is done with a child's output while it runs.
#[derive(Clone, Copy)]
struct Watch<'a> {
    secrets: &'a [String],
    /// What is put before each line that is shown; `None`: nothing is shown.
    label: Option<&'a str>,
}

impl Watch<'_> {
    fn collect(self, mut pipe: UntilExit) -> Vec<u8> {
        let mut collected = Vec::new();
        if self.label.is_some() {
            self.each_line(pipe, |line| {
                collected.extend_from_slice(line.as_bytes());
                collected.push(b'\n');
            });
        } else {
            let _ = pipe.read_to_end(&mut collected);
        }
        collected
    }

    fn tail(self, pipe: UntilExit) -> String {
        let mut tail = VecDeque::new();
        self.each_line(pipe, |line| {
            tail.push_back(line);
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        });
        Vec::from(tail).join("\n")
    }

    fn each_line(self, pipe: UntilExit, mut take: impl FnMut(String)) {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            // A progress display draws over itself after a carriage return: what counts is how it ended.
            let shown = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
            let line = redact(shown.to_owned(), self.secrets);
            if let Some(label) = self.label {
                narrate::detail(&format!("{label}{line}"));
            }
            take(line);
        }
    }

    fn last_lines(self, output: &[u8]) -> String {
        let text = redact(String::from_utf8_lossy(output).into_owned(), self.secrets);
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

/// A child's output, which ends when the child does.
///
/// What the child started in the background may hold the pipe open for hours;
/// waiting for the end of the file would wait for that.
struct UntilExit<'a> {
    pipe: std::fs::File,
    exited: &'a io::PipeReader,
}

impl<'a> UntilExit<'a> {
    fn new(pipe: impl Into<OwnedFd>, exited: &'a io::PipeReader) -> Self {
        Self { pipe: pipe.into().into(), exited }
    }
}

impl Read for UntilExit<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut waiting = [PollFd::new(&self.pipe, PollFlags::IN), PollFd::new(self.exited, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut waiting, None))?;
        // What is still in the pipe comes first: only an empty one has ended.
        if waiting[0].revents().is_empty() { Ok(0) } else { self.pipe.read(buffer) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_whose_time_is_up_is_ended_with_what_it_started() {
        let started = Instant::now();
        let until = Some(started + Duration::from_millis(100));
        let error = Command::new("sh").args(["-c", "sleep 300 & wait"]).as_group().until(until).run().unwrap_err();
        assert!(matches!(error, CommandError::TimedOut { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(30));
        assert!(Command::new("true").until(Some(Instant::now() + Duration::from_secs(60))).run().is_ok());
    }
}
