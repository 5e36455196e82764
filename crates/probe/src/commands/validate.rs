//! `probe validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use super::load;

/// Say whether a gossfile can be loaded, without checking anything.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The gossfile.
    #[arg(long, value_name = "PATH")]
    gossfile: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let gossfile = load(&arguments.gossfile)?;
    println!("{}: {} resources, {} checks", arguments.gossfile.display(), gossfile.resources.len(), gossfile.checks());
    Ok(ExitCode::SUCCESS)
}
