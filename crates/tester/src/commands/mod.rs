//! The command line, one file for each subcommand.

mod run;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cli::ExitCode;
use cli::args::ProviderArgs;

/// Boots images, checks them from inside and writes the verdicts.
#[derive(Parser)]
#[command(name = "tester", version, max_term_width = 100, after_help = cli::EXIT_CODES)]
struct Tester {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    provider: ProviderArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Test the images of the manifest.
    Run(run::Args),
}

/// Runs the command line.
pub(crate) fn run() -> Result<ExitCode> {
    let Tester { command: Command::Run(args), provider } = Tester::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let provider = runtime.block_on(provider::open(&provider))?;
    let done = runtime.block_on(async { provider::dispatch!(&provider, provider => run::run(provider, &args).await) });
    cli::narrate::finish();
    done
}
