//! How the program ends.

use anyhow::Result;

use crate::bad_input::BadInput;

/// The exit codes as every `--help` shows them.
pub const EXIT_CODES: &str = "Exit codes: 0 done, or nothing to do; 1 the answer is no (no configuration fits, a file \
could not be made or would change, something is not in order); 2 usage or bad input, nothing was changed; 3 could not \
run; 130 interrupted.";

/// How the program ends; the numbers are those of every Kiln program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done, or nothing to do.
    Done = 0,
    /// Expected failure: the answer is no.
    Verdict = 1,
    /// Usage or bad input.
    Usage = 2,
    /// A store, a network or a disk was in the way.
    CouldNotRun = 3,
    /// SIGINT. SIGTERM is how a service manager ends the agent, and is no failure.
    Interrupted = 130,
}

/// Shows an error, and gives the status to exit with.
pub fn run(outcome: Result<ExitCode>) -> std::process::ExitCode {
    let code = outcome.unwrap_or_else(|error| {
        say(&format!("{error:#}"));
        if error.chain().any(<dyn std::error::Error>::is::<BadInput>) { ExitCode::Usage } else { ExitCode::CouldNotRun }
    });
    std::process::ExitCode::from(code as u8)
}

/// Tells on stderr, which is the journal for a unit; stdout is for data.
pub fn say(line: &str) {
    eprintln!("config-agent: {line}");
}
