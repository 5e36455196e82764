//! `cargo xtask bench`

mod config_agent;
mod imager;

use anyhow::Result;
use cli::ExitCode;

/// Measure a program: beside the one that people use today, or by numbers that it promises.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    stage: Stage,
}

#[derive(Debug, clap::Subcommand)]
enum Stage {
    Imager(imager::Args),
    ConfigAgent(config_agent::Args),
}

/// Runs the benchmark of a stage.
pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.stage {
        Stage::Imager(args) => imager::run(args),
        Stage::ConfigAgent(args) => config_agent::run(args),
    }
}
