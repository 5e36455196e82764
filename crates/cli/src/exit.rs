//! Exit codes, the same for every binary.

use std::process;

use tracing_subscriber::EnvFilter;

use crate::{BadInput, interrupt, narrate};

/// The exit codes as every `--help` shows them.
pub const EXIT_CODES: &str = "Exit codes: 0 done, or nothing to do; 1 a verdict (checks failed, or the new group was not \
healthy); 2 usage or bad input, nothing was created; 3 could not run; 130 interrupted, and cleaned up.";

/// How a Kiln binary ends.
///
/// | code | meaning |
/// |---|---|
/// | 0 | done, or nothing to do |
/// | 1 | a verdict: checks failed, or the new group was not healthy and traffic stayed where it was |
/// | 2 | usage or bad input: nothing was created |
/// | 3 | could not run: a tool, a disk, a network or another process was in the way |
/// | 130 | interrupted; what was made so far has been cleaned up |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done, or nothing to do.
    Done = 0,
    /// Expected failure: the answer is no.
    Verdict = 1,
    /// Usage or bad input.
    Usage = 2,
    /// Something was in the way.
    CouldNotRun = 3,
    /// SIGINT or SIGTERM.
    Interrupted = 130,
}

/// Runs a binary's body and ends the process with its exit code.
///
/// Logging goes to stderr and is off unless `KILN_LOG` asks for it, in the
/// syntax of `tracing_subscriber::EnvFilter`.
pub fn run(body: impl FnOnce() -> anyhow::Result<ExitCode>) -> ! {
    let filter = EnvFilter::try_from_env("KILN_LOG").unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    interrupt::catch_signals();
    let code = body().unwrap_or_else(|error| {
        narrate::error(&format!("{error:#}"));
        code_of(&error)
    });
    process::exit(code as i32)
}

fn code_of(error: &anyhow::Error) -> ExitCode {
    if interrupt::requested() {
        ExitCode::Interrupted
    } else if error.chain().any(is_bad_input) {
        ExitCode::Usage
    } else {
        ExitCode::CouldNotRun
    }
}

fn is_bad_input(cause: &(dyn std::error::Error + 'static)) -> bool {
    let manifest = cause.downcast_ref::<manifest::ReadError>();
    cause.is::<BadInput>() || manifest.is_some_and(|error| !matches!(error, manifest::ReadError::Io { .. }))
}
