//! The local provider's one long-running process.
//!
//! One per state directory. It owns what outlives a command: the fleet's network, instances, the
//! metadata service, the name servers and the balancers. Everything that it starts goes on without
//! it, and the next one adopts it: killing locald interrupts no request.

mod api;
mod balancer;
mod become_instance;
mod become_kept;
mod daemon;
mod fleet;
mod instance;
mod kept;
mod locald;
mod metadata;
mod names;
mod network;
mod run;
mod service;
mod sweep;
mod tokens;

use clap::{Parser, Subcommand};

/// Supervises the instances, balancers and name servers of one state directory. Started by the
/// commands that need it, and ends when it owns nothing any more.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Supervises, until there is nothing to supervise.
    Run(run::Args),
    /// Becomes an instance (for locald's own use).
    #[command(hide = true)]
    BecomeInstance(become_instance::Args),
    /// Becomes another program, whose process is recorded (for locald's own use).
    #[command(hide = true)]
    BecomeKept(become_kept::Args),
}

fn main() {
    let arguments = Arguments::parse();
    cli::run(|| match &arguments.verb {
        Verb::Run(args) => run::run(args),
        Verb::BecomeInstance(args) => become_instance::run(args),
        Verb::BecomeKept(args) => become_kept::run(args),
    })
}
