//! `config-agent run`.

use std::path::PathBuf;

use anyhow::Result;

use super::{block_on, load};
use crate::agent::Agent;
use crate::exit::{EXIT_CODES, ExitCode, say};
use crate::settings::PATH;

/// Follow the store: make each file anew when its values change, and reload who uses it.
///
/// Settings, conf.d and templates are read once, at the start: they belong to the image. Nothing that the store does
/// ends the agent; while the store is down, the files stay as they are.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// The settings.
    #[arg(long, value_name = "FILE", default_value = PATH)]
    settings: PathBuf,
}

/// Follows until a signal comes.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (settings, files, templates) = load(&args.settings)?;
    say(&format!("keeping {} files; templates are read now and not again", files.len()));
    block_on(async { Agent::new(settings, files, templates)?.run().await })
}
