//! The program that checks an instance from inside.

mod commands;

use std::process::ExitCode;

use clap::Parser;

/// Checks this machine against a gossfile.
///
/// Exit status: 0 all checks passed, 1 some failed, 2 wrong usage or no output
/// possible, 78 the gossfile cannot be loaded.
#[derive(Debug, Parser)]
#[command(version)]
enum Arguments {
    Run(commands::run::Arguments),
    Validate(commands::validate::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse() {
        Arguments::Run(arguments) => commands::run::run(&arguments),
        Arguments::Validate(arguments) => commands::validate::run(&arguments),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("probe: {error:#}");
        commands::exit_code(&error)
    })
}
