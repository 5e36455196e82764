//! `config-agent check`.

use std::path::PathBuf;

use anyhow::Result;

use super::load;
use crate::exit::{EXIT_CODES, ExitCode};
use crate::settings::PATH;

/// Validate settings, conf.d and templates without asking the store or changing anything.
///
/// Meant for the build of an image: owners must exist, templates must compile and use no variable that is not declared.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// The settings.
    #[arg(long, value_name = "FILE", default_value = PATH)]
    settings: PathBuf,
}

/// Reads everything that `run` would read.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (settings, files, _) = load(&args.settings)?;
    for file in &files {
        println!("{}: {} -> {}", file.name, file.template.display(), file.destination.display());
    }
    println!("{}: {} files, good", settings.store.kind(), files.len());
    Ok(ExitCode::Done)
}
