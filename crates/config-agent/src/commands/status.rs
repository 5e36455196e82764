//! `config-agent status`.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::exit::{EXIT_CODES, ExitCode};
use crate::settings::{PATH, Settings};
use crate::status::{metrics, socket, text};

/// Ask the running agent what is rendered from which revision and since when.
///
/// Exit status 1 if the store is lost, a file is not what the store says, or a reload is still to be done.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// The settings, which name the socket.
    #[arg(long, value_name = "FILE", default_value = PATH)]
    settings: PathBuf,

    /// The agent's socket, instead of that in the settings.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Print one JSON document.
    #[arg(long, conflicts_with = "metrics")]
    json: bool,

    /// Print Prometheus' text format.
    #[arg(long)]
    metrics: bool,
}

/// Asks and prints.
pub fn run(args: &Args) -> Result<ExitCode> {
    let path = match &args.socket {
        Some(path) => path.clone(),
        None => Settings::read(&args.settings)?.socket,
    };
    let report = socket::ask(&path)?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).context("writing the report")?);
    } else if args.metrics {
        print!("{}", metrics(&report));
    } else {
        print!("{}", text(&report));
    }
    Ok(if report.is_good() { ExitCode::Done } else { ExitCode::Verdict })
}
