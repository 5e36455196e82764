//! `config-agent select`.

use std::path::PathBuf;

use anyhow::Result;

use super::block_on;
use crate::exit::{EXIT_CODES, ExitCode, say};
use crate::select::{How, NoMatch, Overrides, Settings, Source, select};
use crate::settings::Span;

/// Choose one of the image's configurations by where this machine runs.
///
/// Fills a pattern such as /etc/{country}-{environment}-conf.json, checks that the file exists and parses, and puts it
/// in place under its final name. Prints the file that was chosen.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// The settings. They may be missing if --pattern and --destination are given.
    #[arg(long, value_name = "FILE", default_value = "/etc/config-agent/select.toml")]
    settings: PathBuf,

    /// Which files there may be, with names in braces.
    #[arg(long)]
    pattern: Option<String>,

    /// The name under which the service finds its configuration.
    #[arg(long, value_name = "FILE")]
    destination: Option<PathBuf>,

    /// Copy the file instead of linking to it.
    #[arg(long)]
    copy: bool,

    /// Who is asked, in this order. A source that is named must answer [default: all, imds first].
    #[arg(long, value_name = "SOURCE,…", value_delimiter = ',')]
    from: Option<Vec<Source>>,

    /// The file of source 'file': JSON, or lines NAME=VALUE [default: /etc/config-agent/instance].
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Where the metadata service is [default: http://169.254.169.254].
    #[arg(long, value_name = "URL", env = "CONFIG_AGENT_IMDS")]
    imds: Option<String>,

    /// How long the metadata service is asked while the machine boots [default: 60s].
    #[arg(long, value_name = "TIME")]
    imds_deadline: Option<Span>,
}

/// Chooses, and tells what was chosen and why.
pub fn run(args: &Args) -> Result<ExitCode> {
    let settings = Settings::read(
        &args.settings,
        Overrides {
            pattern: args.pattern.clone(),
            destination: args.destination.clone(),
            how: args.copy.then_some(How::Copy),
            from: args.from.clone(),
            file: args.file.clone(),
            imds: args.imds.clone(),
            imds_deadline: args.imds_deadline.map(Into::into),
        },
    )?;
    match block_on(select(&settings)) {
        Ok(selection) => {
            for answer in &selection.answers {
                say(&answer.to_string());
            }
            let verb = if selection.unchanged { "is already" } else { "is now" };
            say(&format!("{} {verb} {}", settings.destination.display(), selection.chosen.display()));
            println!("{}", selection.chosen.display());
            Ok(ExitCode::Done)
        }
        Err(error) if error.is::<NoMatch>() => {
            say(&error.to_string());
            Ok(ExitCode::Verdict)
        }
        Err(error) => Err(error),
    }
}
