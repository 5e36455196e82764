//! The command line, one file for each subcommand.

mod gc;
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
    /// Terminate instances that outlived their test.
    Gc,
}

/// Runs the command line.
pub(crate) fn run() -> Result<ExitCode> {
    let Tester { command, provider } = Tester::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        match command {
            Command::Run(args) => {
                let provider = provider::open(&provider).await?;
                provider::dispatch!(&provider, provider => run::run(provider, &args).await)
            }
            Command::Gc => match provider::open_to_look(&provider).await? {
                Some(provider) => provider::dispatch!(&provider, provider => gc::run(provider).await),
                None => Ok(ExitCode::Done),
            },
        }
    });
    cli::narrate::finish();
    done
}
