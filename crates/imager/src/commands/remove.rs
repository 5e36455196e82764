//! `imager remove`

use anyhow::Result;
use cli::ExitCode;
use provider::Images;

/// Arguments of `imager remove`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Ids, names or aliases of the images.
    #[arg(required = true)]
    images: Vec<String>,
}

/// Deletes images with their aliases, and prints their ids.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    for name in &args.images {
        let image = super::find(provider, name).await?;
        provider.remove(&image.id).await?;
        println!("{}", image.id);
    }
    Ok(ExitCode::Done)
}
