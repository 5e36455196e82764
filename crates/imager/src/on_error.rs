//! What becomes of a volume whose provisioner has failed: Packer's `-on-error`.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use cli::BadInput;

/// What the user wants done after a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum OnError {
    /// Delete the volume.
    #[default]
    Cleanup,
    /// Keep the volume until the next run.
    Abort,
    /// Ask at the terminal: clean up, abort, or run the provisioner again.
    Ask,
}

impl OnError {
    /// An error if there is nobody to ask.
    pub(crate) fn check(self) -> Result<()> {
        if self == Self::Ask && !std::io::stdin().is_terminal() {
            let remedy = "run at a terminal, or use cleanup or abort";
            return Err(BadInput::new("reading the command line", "-on-error=ask needs a terminal", remedy).into());
        }
        Ok(())
    }
}

/// What was decided for one builder.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    on_error: OnError,
    keep: AtomicBool,
}

impl Failure {
    pub(crate) fn new(on_error: OnError) -> Self {
        Self { on_error, keep: AtomicBool::new(on_error == OnError::Abort) }
    }

    /// Whether the volume stays.
    pub(crate) fn keeps_volume(&self) -> bool {
        self.keep.load(Ordering::SeqCst)
    }

    /// Whether the failed provisioner is to be run again, which `ask` finds out at the terminal.
    pub(crate) fn runs_again(&self, ask: impl Fn(&str) -> Result<String>) -> Result<bool> {
        if self.on_error != OnError::Ask {
            return Ok(false);
        }
        loop {
            match ask("[c] Clean up and exit, [a] abort without cleanup, or [r] retry the provisioner? ")?.as_str() {
                "c" => return Ok(false),
                "a" => {
                    self.keep.store(true, Ordering::SeqCst);
                    return Ok(false);
                }
                "r" => return Ok(true),
                _ => {}
            }
        }
    }
}
