//! `imager snapshot`

use anyhow::{Context, Result};
use cli::args::ManifestArgs;
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use manifest::{Identity, Image, Stamp, Volume};
use provider::{Images, Registration};

/// Arguments of `imager snapshot`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// Only these builders.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
}

/// Registers the volumes of the manifest as images and prints the images' ids.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let path = &args.manifest.manifest;
    let manifest = manifest::read(path)?;
    if let Some(missing) = args.only.iter().find(|name| !manifest.volumes.contains_key(*name)) {
        let why = format!("it has no volume of the builder '{missing}'");
        return Err(BadInput::new("reading the manifest", why, "run `imager provision` first").in_file(path).into());
    }
    if manifest.volumes.is_empty() {
        let why = "it has no volume yet";
        return Err(BadInput::new("reading the manifest", why, "run `imager provision` first").in_file(path).into());
    }
    let mut changed = false;
    for (builder, volume) in &manifest.volumes {
        if !args.only.is_empty() && !args.only.contains(builder) {
            continue;
        }
        if let Some(stale) = &volume.stamp.stale {
            let why = format!("the volume of '{builder}' is stale: {stale}");
            return Err(BadInput::new("reading the manifest", why, "run `imager provision` again")
                .in_file(path)
                .into());
        }
        let known = manifest.images.get(builder).filter(|image| image.stamp.consumed == volume.identity);
        let known = known.filter(|image| image.name == volume.image_name && !args.manifest.force);
        if let Some(image) = known
            && provider.image(&image.identity.value).await?.is_some()
        {
            super::print_id(&image.identity);
            continue;
        }
        changed = true;
        let image = snapshot(provider, builder, volume).await?;
        super::print_id(&image.identity);
        manifest::update(path, None, |manifest| drop(manifest.images.insert(builder.clone(), image)))?;
    }
    if !changed {
        narrate::unchanged("every image is there already");
    }
    Ok(ExitCode::Done)
}

async fn snapshot<P: Images>(provider: &P, builder: &str, volume: &Volume) -> Result<Image> {
    let started = Timestamp::now();
    let id = &volume.identity.value;
    let record = provider.volume(id).await?.with_context(|| {
        format!("the volume {id} of builder '{builder}' is no longer there: run `imager provision` again")
    })?;
    narrate::step(&format!("{builder}: Creating the snapshot and registering the image..."));
    let registration = Registration {
        name: volume.image_name.clone(),
        tags: volume.tags.clone(),
        replace: volume.force_deregister,
        publication: manifest::Publication::default(),
    };
    let registered = provider.register(&record, &registration).await?;
    if !P::QUICK {
        narrate::detail(&format!(
            "{builder}: `imager diff {}` makes volumes of it and its source, and compares them",
            registered.id
        ));
    } else if let Err(error) = super::diff::store(provider, &registered).await {
        // The image is whole without it, and `imager diff` can make it at any time.
        narrate::note(&format!("{builder}: what changed in the image could not be stored: {error:#}"));
    }
    Ok(Image {
        stamp: Stamp::now(env!("CARGO_PKG_VERSION"), started, volume.identity.clone()),
        identity: Identity::new(P::IMAGE, registered.id),
        digest: registered.digest,
        name: registered.name,
        size: registered.size,
    })
}
