//! `cargo xtask bench`

mod imager;

use anyhow::Result;
use cli::ExitCode;

/// Measure a stage beside the program that people use today.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    stage: Stage,
}

#[derive(Debug, clap::Subcommand)]
enum Stage {
    Imager(imager::Args),
}

/// Runs the benchmark of a stage.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.stage {
        Stage::Imager(args) => imager::run(args),
    }
}
