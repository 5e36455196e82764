//! One file for each subcommand: its arguments, then what it does.

mod deploy;
mod destroy;
mod gc;
mod list;
mod plan;
mod repair;
mod rollback;
mod status;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cli::ExitCode;
use cli::args::ProviderArgs;

/// Turns a tested image into a healthy fleet, and moves the traffic without losing a request.
///
/// Exit codes: 0 done, or nothing to do; 1 the image was refused, or the new group was not healthy and traffic stayed
/// where it was; 2 usage or bad input; 3 could not run; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "deployer", version)]
pub struct Arguments {
    #[command(flatten)]
    provider: ProviderArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Deploy(deploy::Args),
    Plan(plan::Args),
    Status(status::Args),
    Rollback(rollback::Args),
    Repair(repair::Args),
    Destroy(destroy::Args),
    List(list::Args),
    Gc(gc::Args),
}

/// Runs the subcommand.
pub async fn run(Arguments { provider, command }: Arguments) -> Result<ExitCode> {
    match command {
        Command::Deploy(args) => deploy::run(args, &provider).await,
        Command::Plan(args) => plan::run(args, &provider).await,
        Command::Status(args) => status::run(args, &provider).await,
        Command::Rollback(args) => rollback::run(args, &provider).await,
        Command::Repair(args) => repair::run(args, &provider).await,
        Command::Destroy(args) => destroy::run(args, &provider).await,
        Command::List(args) => list::run(args, &provider).await,
        Command::Gc(args) => gc::run(args, &provider).await,
    }
}
