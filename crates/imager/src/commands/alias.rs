//! `imager alias`

use anyhow::Result;
use cli::ExitCode;
use provider::Images;

/// Arguments of `imager alias`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The name, such as the AMI id that a template has as its source_ami.
    alias: String,
    /// Id, name or alias of the image that it is to stand for.
    image: String,
}

/// Lets a name stand for an image, and prints the image's id.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let image = super::find(provider, &args.image).await?;
    provider.alias(&args.alias, &image.id).await?;
    println!("{}", image.id);
    Ok(ExitCode::Done)
}
