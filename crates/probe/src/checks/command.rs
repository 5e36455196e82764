//! Shell commands.

use super::{Found, unknown};
use crate::exec::{self, Completed};
use crate::gossfile::CommandLine;

/// How much of stderr is quoted when the exit status is wrong: its end, where
/// programs say what ended them.
const QUOTED_LINES: usize = 3;

pub(super) fn run(command: &CommandLine) -> Result<Completed, String> {
    exec::run("/bin/sh", &["-c", &command.exec], command.timeout).map_err(|error| match error {
        exec::ExecError::TimedOut(_, after) => format!("timed out after {} ms and was killed", after.as_millis()),
        other => other.to_string(),
    })
}

pub(super) fn property(completed: &Completed, property: &str) -> Result<Found, String> {
    Ok(match property {
        "exit-status" => match last_lines(&completed.stderr) {
            Some(lines) => Found::noted(completed.status, format!("stderr: {lines}")),
            None => completed.status.into(),
        },
        "stdout" => completed.stdout.as_str().into(),
        "stderr" => completed.stderr.as_str().into(),
        _ => return Err(unknown(property)),
    })
}

fn last_lines(text: &str) -> Option<String> {
    let lines: Vec<&str> = text.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let end = &lines[lines.len().saturating_sub(QUOTED_LINES)..];
    (!end.is_empty()).then(|| end.join(" / "))
}
