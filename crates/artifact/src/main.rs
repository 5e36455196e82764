//! `artifact`: a revision becomes a versioned, content-addressed artifact.

mod build;
mod build_dir;
mod component_file;
mod pack;
mod package;
mod repository;
mod revision;
mod session;

use clap::{Parser, Subcommand};

/// Turns a revision of a component into a versioned, content-addressed artifact.
#[derive(Parser)]
#[command(name = "artifact", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Build(build::Args),
}

fn main() {
    let Command::Build(args) = Cli::parse().command;
    cli::run(|| build::run(&args))
}
