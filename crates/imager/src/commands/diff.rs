//! `imager diff`

use std::io::{self, Write};

use anyhow::{Context, Result};
use cli::{BadInput, ExitCode};
use provider::{Images, RegisteredImage};

use crate::diff::{self, Document};

/// The document that `imager snapshot` puts beside an image.
const STORED: &str = "diff.json";

/// Arguments of `imager diff`.
#[derive(clap::Args)]
#[command(override_usage = "imager diff [OPTIONS] [OLD] NEW")]
pub(crate) struct Args {
    /// Ids, names or aliases of the older and the newer image; one alone is compared with its source image.
    #[arg(value_name = "IMAGE", required = true, num_args = 1..=2)]
    images: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// List the files of added, removed and moved packages, and what changes in every build, one by one.
    #[arg(long)]
    all_files: bool,
}

/// Prints what changed. That something did is no failure.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let document = match args.images.as_slice() {
        [old, new] => {
            let (old, new) = (super::find(provider, old).await?, super::find(provider, new).await?);
            diff::between(provider, &old, &new, args.all_files).await?
        }
        [new, ..] => to_source(provider, &super::find(provider, new).await?, args.all_files).await?,
        [] => return Ok(ExitCode::Usage),
    };
    let shown = if args.json { serde_json::to_string_pretty(&document)? } else { document.to_string() };
    match writeln!(io::stdout(), "{shown}") {
        // Who has seen enough of a long diff may stop reading.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("printing the diff"),
        _ => Ok(ExitCode::Done),
    }
}

/// Puts the diff to its source image beside a new image. A source image that is gone leaves nothing to compare.
pub(super) async fn store(provider: &impl Images, image: &RegisteredImage) -> Result<()> {
    let Some(source) = source_of(provider, image).await? else { return Ok(()) };
    let document = diff::between(provider, &source, image, false).await?;
    provider.attach_document(&image.id, STORED, &serde_json::to_vec_pretty(&document)?).await
}

/// What the snapshot has stored, which is there even when the source image is not, or else a new comparison.
async fn to_source(provider: &impl Images, image: &RegisteredImage, all_files: bool) -> Result<Document> {
    if let Some(stored) = provider.document(&image.id, STORED).await?.filter(|_| !all_files) {
        return serde_json::from_slice(&stored).with_context(|| format!("reading the stored diff of {}", image.id));
    }
    let source = source_of(provider, image).await?.ok_or_else(|| {
        let why = format!("{} has no source image that is still there", image.id);
        BadInput::new("comparing images", why, "name two images")
    })?;
    diff::between(provider, &source, image, all_files).await
}

async fn source_of(provider: &impl Images, image: &RegisteredImage) -> Result<Option<RegisteredImage>> {
    match &image.source_image {
        Some(source) => provider.image(&source.value).await,
        None => Ok(None),
    }
}
