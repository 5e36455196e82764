//! `imager build`

use std::path::Path;

use anyhow::{Error, Result};
use cli::{BadInput, ExitCode, narrate};
use provider::{Images, ManifestPlace, RegisteredImage, Registration, SourceImage};

use super::provision::{self, Args, MANIFEST, Order};
use super::snapshot;
use crate::bake::Baked;
use crate::plan::Plan;
use crate::post_processors::Artifact;

/// Provisions, registers, and runs the post-processors. Prints the images' ids.
///
/// With a manifest the volumes and images are written into it. A template by itself needs none: then the
/// images are registered straight away.
pub(crate) async fn run<P: Images + Sync>(provider: &P, args: &Args) -> Result<ExitCode> {
    args.shown.begin();
    let alone = args.manifest.is_none() && args.template.is_some();
    let manifest = (!alone).then(|| args.manifest.as_deref().unwrap_or(Path::new(MANIFEST)));
    let order = Order::read(provider, args, manifest).await?;
    if alone {
        check_names(&order).await?;
    }
    let (mut built, mut failed, mut changed) = (Vec::new(), Vec::new(), false);
    for ((provider, plan), baked) in order.plans.iter().zip(order.bake()) {
        let image = match baked {
            Ok(baked) => {
                changed |= !baked.reused;
                register(provider, args, &order, plan, baked, manifest).await
            }
            Err(error) => Err(error),
        };
        match image.and_then(|image| post_process(&order, plan, image)) {
            Ok(artifact) => built.push(artifact),
            Err(error) => failed.push((plan.builder.clone(), error)),
        }
    }
    report_failed(&failed);
    report_built(&built);
    fail(failed)?;
    if !changed {
        narrate::unchanged("every image is there already");
    }
    Ok(ExitCode::Done)
}

/// Registers a volume as an image.
async fn register<P: Images>(
    provider: &P,
    args: &Args,
    order: &Order<P>,
    plan: &Plan,
    baked: Baked,
    manifest: Option<&Path>,
) -> Result<RegisteredImage> {
    let builder = &plan.builder;
    let Some(path) = manifest else {
        narrate::step(&format!("{builder}: Creating the snapshot and registering the image..."));
        let registration = Registration {
            name: plan.options.image_name.clone(),
            tags: plan.origin.clone().into_iter().chain(plan.options.tags.clone()).collect(),
            replace: plan.options.force_deregister,
            publication: plan.options.amazon.publication.clone(),
        };
        let image = provider.register(&baked.volume, &registration).await?;
        super::print_id(&image.id);
        return Ok(image);
    };
    provision::store(provider, order, plan, baked, path).await?;
    let volume = &ManifestPlace::of(path).await?.read().await?.volumes[builder];
    let (image, _) = snapshot::take(provider, path, args.force, builder, volume).await?;
    super::print_id(&image.id);
    Ok(image)
}

fn post_process<P>(order: &Order<P>, plan: &Plan, image: RegisteredImage) -> Result<Artifact> {
    let artifact = Artifact {
        builder: plan.builder.clone(),
        builder_type: order.template.builder_type(&plan.builder).to_owned(),
        region: plan.region.clone(),
        image: image.id,
        copies: image.copies,
        run_uuid: order.template.run_uuid.clone(),
        secrets: plan.secrets.clone(),
    };
    for post_processor in &plan.post_processors {
        post_processor
            .run(&artifact, order.scratch.path())
            .map_err(|error| error.context(format!("builder '{}': post-processor", plan.builder)))?;
    }
    Ok(artifact)
}

/// Packer's first step: a name that is taken is said before anything is made.
async fn check_names(order: &Order<impl Images>) -> Result<()> {
    for (provider, plan) in order.plans.iter().filter(|(_, plan)| !plan.options.force_deregister) {
        let name = &plan.options.image_name;
        let taken = provider.find_source(&SourceImage { name: name.clone() }).await?;
        // The volume that the image was made of would be found again, and with it the image.
        if let Some(taken) = taken.filter(|taken| taken.name == *name)
            && !(plan.is_cacheable() && provider.find_volume(plan.key(), plan.max_age).await?.is_some())
        {
            let why = format!("builder '{}': the image name '{name}' is taken by {}", plan.builder, taken.id);
            let remedy = "choose another name, set \"force_deregister\": true in the builder, or run with -force";
            return Err(BadInput::new("prevalidating the image name", why, remedy).into());
        }
    }
    Ok(())
}

/// What Packer tells machines of what it has made (command/build.go).
fn report_built(built: &[Artifact]) {
    for artifact in built {
        let (builder, id) = (artifact.builder.as_str(), artifact.id());
        let kind = if artifact.builder_type == "amazon-chroot" { "mitchellh.amazon.chroot" } else { "kiln.chroot" };
        let lines = artifact.places().map(|(region, image)| format!("{region}: {image}\n"));
        let text = format!("AMIs were created:\n{}", lines.collect::<String>());
        narrate::machine(builder, "artifact-count", &["1"]);
        let fields: [&[&str]; 5] =
            [&["builder-id", kind], &["id", &id], &["string", &text], &["files-count", "0"], &["end"]];
        for field in fields {
            narrate::machine(builder, "artifact", &[&["0"], field].concat());
        }
        if narrate::is_machine_readable() {
            narrate::step(&format!("{builder}: Build finished: {}", artifact.image));
        }
    }
}

fn report_failed(failed: &[(String, Error)]) {
    if !failed.is_empty() {
        narrate::machine("", "error-count", &[&failed.len().to_string()]);
    }
    for (builder, error) in failed {
        narrate::machine(builder, "error", &[&format!("{error:#}")]);
    }
}

/// Ends with the last of the errors, and tells the others.
pub(super) fn fail(mut failed: Vec<(String, Error)>) -> Result<()> {
    let last = failed.pop();
    for (_, error) in failed {
        narrate::detail(&format!("{error:#}"));
    }
    last.map_or(Ok(()), |(_, error)| Err(error))
}
