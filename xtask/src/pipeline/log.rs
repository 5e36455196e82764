//! Running a stage's program: all of its output goes into a log, the last line of it onto the screen.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cli::interrupt::{self, EndedByInterrupt};
use cli::{Command, ExitCode, narrate};
use indicatif::{ProgressBar, ProgressStyle};

use crate::workspace::Workspace;

/// How soon the end of a program is noticed that left its output open elsewhere.
const NOTICE: Duration = Duration::from_millis(100);

/// How many of the last lines are shown of a stage that failed.
const TAIL_LINES: usize = 15;

/// The log of a stage.
pub struct Log {
    stage: &'static str,
    path: PathBuf,
    file: File,
    bar: Option<ProgressBar>,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// Whether it said that there was nothing to do.
    pub unchanged: bool,
    status: ExitStatus,
    stdout: Vec<String>,
    stderr: Vec<String>,
}

enum Line {
    Out(String),
    Err(String),
}

impl Log {
    /// Starts the log of `stage` in `directory`.
    pub fn new(directory: &Path, stage: &'static str) -> Result<Self> {
        let path = directory.join(format!("{stage}.log"));
        let file = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let bar = std::io::stderr().is_terminal().then(|| spinner(stage));
        Ok(Self { stage, path, file, bar })
    }

    /// Runs the program to its end, whatever that is.
    pub fn run(&mut self, command: Command) -> Result<Ended> {
        writeln!(self.file, "$ {command}").with_context(|| format!("writing {}", self.path.display()))?;
        let mut child = command
            .configure(|it| {
                it.stdout(Stdio::piped()).stderr(Stdio::piped());
            })
            .spawn()?;
        let _ended_by_interrupt = EndedByInterrupt::new(child.id());
        let (sender, lines) = mpsc::channel();
        send_lines(child.stdout.take(), sender.clone(), Line::Out);
        send_lines(child.stderr.take(), sender, Line::Err);
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = loop {
            match lines.recv_timeout(NOTICE) {
                Ok(Line::Out(line)) => {
                    self.take(&line)?;
                    stdout.push(line);
                }
                Ok(Line::Err(line)) => {
                    self.take(&line)?;
                    stderr.push(line);
                }
                Err(RecvTimeoutError::Disconnected) => break child.wait()?,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(status) = child.try_wait()? {
                        break status;
                    }
                }
            }
        };
        let unchanged = stderr.last().is_some_and(|line| line.starts_with("unchanged:"));
        let ended = Ended { unchanged: status.success() && unchanged, status, stdout, stderr };
        if !status.success() {
            self.show_failure(&ended);
        }
        Ok(ended)
    }

    fn take(&mut self, line: &str) -> Result<()> {
        writeln!(self.file, "{line}").with_context(|| format!("writing {}", self.path.display()))?;
        match &self.bar {
            Some(bar) => bar.set_message(line.trim_start_matches(['=', '>', ' ']).to_owned()),
            None => say(&format!("{}: {line}", self.stage)),
        }
        Ok(())
    }

    /// Without a terminal the lines have been seen already.
    fn show_failure(&self, ended: &Ended) {
        let lines = if ended.stderr.is_empty() { &ended.stdout } else { &ended.stderr };
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            lines[lines.len().saturating_sub(TAIL_LINES)..].iter().for_each(|line| say(line));
        }
        narrate::note(&format!(
            "{} failed ({}); its log is {}",
            self.stage,
            ended.status,
            Workspace::shown(&self.path)
        ));
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

impl Ended {
    /// Whether it did what it was asked.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// An error unless it did what it was asked; the reason has been shown.
    pub fn success(&self) -> Result<()> {
        if self.is_success() { Ok(()) } else { bail!("a command failed; its log says why") }
    }

    /// Its exit code, where it is one of ours.
    pub fn exit_code(&self) -> ExitCode {
        match self.status.code() {
            _ if interrupt::requested() => ExitCode::Interrupted,
            Some(0) => ExitCode::Done,
            Some(1) => ExitCode::Verdict,
            Some(2) => ExitCode::Usage,
            Some(130) => ExitCode::Interrupted,
            _ => ExitCode::CouldNotRun,
        }
    }

    /// Whether a line that it told begins so.
    pub fn has_line(&self, begin: &str) -> bool {
        self.stderr.iter().any(|line| line.trim_start().starts_with(begin))
    }

    /// The last line that it gave as data.
    pub fn data(&self) -> Option<&str> {
        self.stdout.last().map(String::as_str)
    }
}

fn spinner(stage: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_prefix(stage);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:9} {elapsed:>4} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

fn send_lines(pipe: Option<impl Read + Send + 'static>, lines: Sender<Line>, kind: fn(String) -> Line) {
    let Some(pipe) = pipe else { return };
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
            if lines.send(kind(line)).is_err() {
                return;
            }
        }
    });
}

/// Nobody may be reading any more; that is no reason to stop working.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str) -> (Ended, String) {
        let directory =
            std::env::temp_dir().join(format!("xtask-log-{}-{:?}", std::process::id(), thread::current().id()));
        std::fs::create_dir_all(&directory).unwrap();
        let ended = Log::new(&directory, "stage").unwrap().run(Command::new("sh").args(["-c", script])).unwrap();
        let log = std::fs::read_to_string(directory.join("stage.log")).unwrap();
        std::fs::remove_dir_all(directory).unwrap();
        (ended, log)
    }

    #[test]
    fn the_log_has_the_command_and_all_of_its_output() {
        let (ended, log) = run("echo data; echo '==> narration' >&2");
        assert!(log.starts_with("$ sh -c"), "{log}");
        assert!(log.contains("\ndata\n") && log.contains("\n==> narration\n"), "{log}");
        assert_eq!((ended.data(), ended.exit_code(), ended.unchanged), (Some("data"), ExitCode::Done, false));
    }

    #[test]
    fn unchanged_is_what_the_last_line_of_the_narration_says() {
        assert!(run("echo '==> looking' >&2; echo 'unchanged: it is there' >&2; echo data").0.unchanged);
        assert!(!run("echo 'unchanged: the first half' >&2; echo '==> the second half' >&2").0.unchanged);
        assert!(!run("echo 'unchanged: but' >&2; exit 3").0.unchanged);
    }

    #[test]
    fn exit_codes_are_passed_on() {
        assert_eq!(run("exit 1").0.exit_code(), ExitCode::Verdict);
        assert_eq!(run("exit 2").0.exit_code(), ExitCode::Usage);
        assert_eq!(run("kill -9 $$").0.exit_code(), ExitCode::CouldNotRun);
    }

    #[test]
    fn what_a_program_leaves_running_is_not_waited_for() {
        let begin = std::time::Instant::now();
        let (ended, _) = run("sleep 30 & echo $!");
        assert!(begin.elapsed() < Duration::from_secs(10));
        Command::new("kill").arg(ended.data().unwrap()).run().unwrap();
    }
}
