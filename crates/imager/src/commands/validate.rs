//! `imager validate`

use std::path::PathBuf;

use anyhow::Result;
use cli::{ExitCode, narrate};
use provider::Images;

use super::provision::{Chosen, Shown};
use crate::plan::Plan;
use crate::recipe::Recipe;

/// Arguments of `imager validate`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image template.
    template: PathBuf,
    #[command(flatten)]
    chosen: Chosen,
    /// Read the template and its variables only, and neither builders nor provisioners.
    #[arg(long)]
    syntax_only: bool,
    #[command(flatten)]
    shown: Shown,
}

/// Reads everything that a build would read, and makes nothing.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    args.shown.begin();
    let recipe = Recipe::alone(&args.template, provider.cache())?;
    let (template, builders) = args.chosen.read(&recipe)?;
    for builder in builders.iter().filter(|_| !args.syntax_only) {
        Plan::check(provider, &template, builder, &recipe).await?;
    }
    const VALID: &str = "The configuration is valid.";
    if narrate::is_machine_readable() {
        narrate::machine("", "ui", &["say", VALID]);
    } else {
        println!("{VALID}");
    }
    Ok(ExitCode::Done)
}
