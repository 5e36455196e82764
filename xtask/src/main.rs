//! What is done with this repository as a whole: `cargo xtask --help`.
//!
//! It runs the stages' programs with manifest files and links none of them, so
//! it compiles in seconds and exercises the contract on every run.

mod bench;
mod moto;
mod pipeline;
mod schemas;
mod setup;
mod test;
mod workspace;

use clap::{Parser, Subcommand};

/// Set-up, pipeline, tests and schemas of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Setup(setup::Args),
    Pipeline(pipeline::Args),
    Test(test::Args),
    Bench(bench::Args),
    Schemas(schemas::Args),
}

fn main() {
    let Arguments { command } = Arguments::parse();
    cli::run(|| match command {
        Command::Setup(args) => setup::run(&args),
        Command::Pipeline(args) => pipeline::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Schemas(args) => schemas::run(&args),
    })
}
