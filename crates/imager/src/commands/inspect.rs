//! `imager inspect`

use std::path::Path;

use anyhow::Result;
use cli::ExitCode;
use provider::Images;

use super::provision::{Chosen, Shown};
use crate::recipe::Recipe;

/// Arguments of `imager inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Id, name or alias of an image, or the path of a template.
    what: String,
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    shown: Shown,
}

/// Prints as JSON everything that is known of an image, or what a template says when its variables are filled in.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    args.shown.begin();
    let path = Path::new(&args.what);
    let document = if path.is_file() {
        let (template, builders) = args.chosen.read(&Recipe::alone(path, provider.cache())?)?;
        template.shown(&builders)?
    } else {
        serde_json::to_value(super::find(provider, &args.what).await?)?
    };
    let text = serde_json::to_string_pretty(&document)?;
    if cli::narrate::is_machine_readable() {
        cli::narrate::machine("", "ui", &["say", &text]);
    } else {
        println!("{text}");
    }
    Ok(ExitCode::Done)
}
