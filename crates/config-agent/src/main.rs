//! Runtime configuration of one image in every environment: `config-agent --help`.

mod agent;
mod bad_input;
mod commands;
mod exec;
mod exit;
mod http;
mod imds;
mod managed_file;
mod owner;
mod replace;
mod select;
mod settings;
mod status;
mod store;
mod template;
mod toml_file;
mod values;

use clap::Parser;

/// Chooses a machine's configuration at boot, and follows a key-value store while it runs.
#[derive(Debug, Parser)]
#[command(version, after_help = exit::EXIT_CODES)]
enum Arguments {
    Select(commands::select::Args),
    Run(commands::run::Args),
    Once(commands::once::Args),
    Check(commands::check::Args),
    Status(commands::status::Args),
}

fn main() -> std::process::ExitCode {
    exit::run(match Arguments::parse() {
        Arguments::Select(args) => commands::select::run(&args),
        Arguments::Run(args) => commands::run::run(&args),
        Arguments::Once(args) => commands::once::run(&args),
        Arguments::Check(args) => commands::check::run(&args),
        Arguments::Status(args) => commands::status::run(&args),
    })
}
