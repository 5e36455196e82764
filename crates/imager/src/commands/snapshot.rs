//! `imager snapshot`

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result};
use cli::args::ManifestArgs;
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use manifest::{Identity, Image, Manifest, Stamp, Volume};
use provider::{Access, Images, ManifestPlace, RegisteredImage, Registration, origin};

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
    let manifest = ManifestPlace::of(path).await?.read().await?;
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
        let access = Access { account: volume.account.clone(), keys: None };
        let provider = provider.on_behalf_of(&access).await?;
        let (image, new) = take(&provider, path, args.manifest.force, builder, volume).await?;
        super::print_id(&image.id);
        changed |= new;
    }
    if !changed {
        narrate::unchanged("every image is there already");
    }
    Ok(ExitCode::Done)
}

/// Registers a volume of the manifest at `path`, unless it has an image there. Returns the image, and whether it is new.
pub(crate) async fn take<P: Images>(
    provider: &P,
    path: &Path,
    force: bool,
    builder: &str,
    volume: &Volume,
) -> Result<(RegisteredImage, bool)> {
    let manifest = ManifestPlace::of(path).await?.read().await?;
    let known = manifest.images.get(builder).filter(|image| image.stamp.consumed == volume.identity);
    if let Some(known) = known.filter(|image| image.name == volume.image_name && !force)
        && let Some(image) = provider.image(&known.identity.value).await?
    {
        return Ok((image, false));
    }
    let started = Timestamp::now();
    let id = &volume.identity.value;
    let record = provider.volume(id).await?.with_context(|| {
        format!("the volume {id} of builder '{builder}' is no longer there: run `imager provision` again")
    })?;
    narrate::step(&format!("{builder}: Creating the snapshot and registering the image..."));
    let registration = Registration {
        name: volume.image_name.clone(),
        tags: origin::tags("imager", Some(&manifest)).into_iter().chain(volume.tags.clone()).collect(),
        replace: volume.force_deregister,
        publication: volume.publication.as_deref().cloned().unwrap_or_default(),
    };
    let registered = provider.register(&record, &registration).await?;
    if !P::QUICK {
        let id = &registered.id;
        narrate::detail(&format!(
            "{builder}: `imager diff {id}` makes volumes of it and its source, and compares them"
        ));
    } else if let Err(error) = super::diff::store(provider, &registered).await {
        // The image is whole without it, and `imager diff` can make it at any time.
        narrate::note(&format!("{builder}: what changed in the image could not be stored: {error:#}"));
    }
    let image = Image {
        stamp: Stamp::now(env!("CARGO_PKG_VERSION"), started, volume.identity.clone()),
        identity: Identity::new(P::IMAGE, &registered.id),
        digest: registered.digest.clone(),
        name: registered.name.clone(),
        size: registered.size,
        published: BTreeMap::new(),
    };
    let change = |manifest: &mut Manifest| drop(manifest.images.insert(builder.to_owned(), image.clone()));
    ManifestPlace::of(path).await?.update(None, change).await?;
    Ok((registered, true))
}
