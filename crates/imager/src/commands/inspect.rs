//! `imager inspect`

use anyhow::Result;
use cli::ExitCode;
use provider::Images;

/// Arguments of `imager inspect`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Id, name or alias of the image.
    image: String,
}

/// Prints everything that is known of an image, as JSON.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let image = super::find(provider, &args.image).await?;
    println!("{}", serde_json::to_string_pretty(&image)?);
    Ok(ExitCode::Done)
}
