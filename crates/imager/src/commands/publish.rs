//! `imager publish`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::args::{ProviderArgs, ProviderName};
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use manifest::{Earned, Identity, Manifest, Medium, PublishedImage, Stamp};
use provider::local::Local;
use provider::{Images, ManifestPlace, Provider, PublishSpec, RegisteredImage, Registration, origin};

/// Arguments of `imager publish`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Id, name or alias of an image; without one, the images of the manifest.
    image: Option<String>,
    /// The provider that it is published to.
    #[arg(long, value_enum, value_name = "PROVIDER")]
    to: ProviderName,
    /// Only the images of these builders.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',', conflicts_with = "image")]
    only: Vec<String>,
    /// The name that it is to have there, if that is not its name here.
    #[arg(long)]
    name: Option<String>,
    /// Take the name over from an image that has it.
    #[arg(long)]
    force: bool,
    /// Encrypt it, with the account's default key.
    #[arg(long)]
    encrypt: bool,
    /// Encrypt it, with this key.
    #[arg(long, value_name = "ARN")]
    kms_key: Option<String>,
    /// The manifest that has the images, and in which it is recorded that they were published.
    #[arg(long, value_name = "FILE", default_value = "manifest.json", env = "KILN_MANIFEST")]
    manifest: PathBuf,
}

/// An image of this machine that is to be published, and which builder's in the manifest it is.
struct Chosen {
    image: RegisteredImage,
    builder: Option<String>,
}

/// Publishes images of this machine at another provider and prints their ids there.
pub(crate) async fn run(provider: &Provider, opened: &ProviderArgs, args: &Args) -> Result<ExitCode> {
    let Some(from) = provider.local() else {
        let why = "images of this machine are published, and --provider names another";
        return Err(BadInput::new("publishing", why, "use --provider local, and --to for where they go").into());
    };
    let manifest = match args.image {
        Some(_) => None,
        None => Some(ManifestPlace::of(&args.manifest).await?.read().await?),
    };
    let chosen = choose(from, args, manifest.as_ref()).await?;
    if let (Some(name), true) = (&args.name, chosen.len() > 1) {
        let why = format!("{} images cannot all have the name '{name}'", chosen.len());
        return Err(BadInput::new("publishing", why, "choose one with --only").into());
    }
    let to = provider::open(&ProviderArgs { provider: args.to, ..opened.clone() }).await?;
    let mut unchanged = true;
    for Chosen { image, builder } in chosen {
        let started = Timestamp::now();
        let mut tags = image.tags.clone();
        tags.extend(origin::tags("imager", manifest.as_ref()));
        let volume = manifest.as_ref().zip(builder.as_ref()).and_then(|(manifest, name)| manifest.volumes.get(name));
        let medium = volume.map(|volume| volume.medium.clone()).unwrap_or_default();
        let registration = Registration {
            name: args.name.clone().unwrap_or_else(|| image.name.clone()),
            tags,
            replace: args.force || volume.is_some_and(|volume| volume.force_deregister),
            publication: volume.and_then(|volume| volume.publication.as_deref().cloned()).unwrap_or_default(),
        };
        let spec = PublishSpec {
            registration,
            medium: Medium {
                encrypted: medium.encrypted || args.encrypt,
                key: args.kms_key.clone().or(medium.key),
                ..medium
            },
            account: volume.map(|volume| volume.account.clone()).unwrap_or_default(),
        };
        let published = to.publish(from, &image, &spec).await?;
        println!("{}", published.identity);
        unchanged &= published.unchanged;
        if let Some(builder) = builder {
            let consumed = Identity::new(Local::IMAGE, &image.id);
            let stamp = Stamp::now(env!("CARGO_PKG_VERSION"), started, consumed);
            let earned =
                image.verdict.map(|verdict| Earned { passed: verdict.passed, at: from.place(), ended: verdict.ended });
            let there = published.places.into_iter().map(|(place, identity)| {
                let (stamp, name, earned) = (stamp.clone(), spec.registration.name.clone(), earned.clone());
                (place, PublishedImage { stamp, identity, name, earned })
            });
            record(&args.manifest, &builder, &stamp.consumed, there.collect()).await?;
        }
    }
    narrate::finish();
    if unchanged {
        narrate::unchanged("every image is there already");
    }
    Ok(ExitCode::Done)
}

/// The image that the command line names, or those of the manifest.
async fn choose(from: &Local, args: &Args, manifest: Option<&Manifest>) -> Result<Vec<Chosen>> {
    let Some(manifest) = manifest else {
        let name = args.image.as_deref().unwrap_or_default();
        return Ok(vec![Chosen { image: super::find(from, name).await?, builder: None }]);
    };
    let refuse = |why: String, remedy: &str| BadInput::new("reading the manifest", why, remedy).in_file(&args.manifest);
    if let Some(missing) = args.only.iter().find(|name| !manifest.images.contains_key(*name)) {
        let why = format!("it has no image of the builder '{missing}'");
        return Err(refuse(why, "run `imager snapshot` first").into());
    }
    if manifest.images.is_empty() {
        return Err(refuse("it has no image yet".to_owned(), "run `imager snapshot` first").into());
    }
    let mut chosen = Vec::new();
    for (builder, image) in &manifest.images {
        if !args.only.is_empty() && !args.only.contains(builder) {
            continue;
        }
        if let Some(stale) = &image.stamp.stale {
            let why = format!("the image of '{builder}' is stale: {stale}");
            return Err(refuse(why, "run `imager build` again").into());
        }
        let id = &image.identity.value;
        let Some(image) = from.image(id).await? else {
            let why = format!("the image {id} of '{builder}' is not on this machine");
            return Err(refuse(why, "run `imager snapshot` again").into());
        };
        chosen.push(Chosen { image, builder: Some(builder.clone()) });
    }
    Ok(chosen)
}

/// Records in the manifest that the builder's image was published, unless it says so, or has another image by now.
async fn record(
    path: &Path,
    builder: &str,
    image: &Identity,
    published: BTreeMap<String, PublishedImage>,
) -> Result<()> {
    let manifest = ManifestPlace::of(path).await?;
    let known = manifest.read().await?.images.remove(builder).map(|image| image.published).unwrap_or_default();
    let is_known = |(place, there): (&String, &PublishedImage)| {
        let known = known.get(place);
        known.is_some_and(|known| known.identity == there.identity && known.earned == there.earned)
    };
    if published.iter().all(is_known) {
        return Ok(());
    }
    let insert = |manifest: &mut Manifest| {
        if let Some(known) = manifest.images.get_mut(builder).filter(|known| known.identity == *image) {
            known.published.extend(published.clone());
        }
    };
    manifest.update(None, insert).await?;
    Ok(())
}
