//! `imager provision`

use std::path::PathBuf;

use anyhow::Result;
use cli::args::ManifestArgs;
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use manifest::{Identity, Manifest, Stamp, Volume};
use provider::Images;

use crate::bake::{Baked, bake_all};
use crate::plan::Plan;
use crate::recipe::Recipe;
use crate::template::{GivenVariables, Template};

/// Arguments of `imager provision` and `imager build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image template; without it, the one that the component names.
    template: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) manifest: ManifestArgs,
    /// Set a user variable of the template.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    var: Vec<(String, String)>,
    /// Set user variables from a JSON file.
    #[arg(long, value_name = "FILE")]
    var_file: Vec<PathBuf>,
    /// Only these builders.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',')]
    pub(crate) only: Vec<String>,
    /// All builders but these.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',')]
    except: Vec<String>,
    /// Use no layer of an earlier run.
    #[arg(long)]
    no_cache: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// Provisions a volume for every builder and prints the volumes' ids.
pub(crate) async fn run<P: Images + Sync>(provider: &P, args: &Args) -> Result<ExitCode> {
    let started = Timestamp::now();
    let scratch = tempfile::Builder::new().prefix("provision-").tempdir_in(provider.scratch()?)?;
    let path = &args.manifest.manifest;
    let recipe = Recipe::fetch(path, args.template.as_deref(), scratch.path()).await?;
    let given =
        GivenVariables { known: recipe.known_variables(), files: args.var_file.clone(), given: args.var.clone() };
    let template = Template::load(&recipe.template, &recipe.base, &given)?;
    if let Some(manifest) = &recipe.manifest {
        check_deployed_builder(&template, manifest, args.template.is_some())?;
    }

    // Everything is read and checked before anything is created.
    let mut plans = Vec::new();
    let use_cache = !args.no_cache && !args.manifest.force;
    for builder in template.select(&args.only, &args.except)? {
        plans.push(Plan::make(provider, &template, &builder, &recipe, scratch.path(), use_cache).await?);
    }
    let mut changed = false;
    let mut failed = None;
    for (plan, baked) in plans.iter().zip(bake_all(provider, &plans, scratch.path())) {
        let baked = match baked {
            Ok(baked) => baked,
            Err(error) => {
                if let Some(earlier) = failed.replace(error) {
                    narrate::detail(&format!("{earlier:#}"));
                }
                continue;
            }
        };
        changed |= !baked.reused;
        let artifact = plan.artifact.clone().expect("a manifest was read, and it has an artifact");
        let volume = entry::<P>(plan, artifact, baked, started);
        println!("{}", volume.identity);
        let mut replaced = None;
        manifest::update(path, None, |manifest| replaced = put(manifest, plan, volume))?;
        // Nothing rests on a volume that another has replaced: its image has the content by itself.
        if let Some(replaced) = replaced {
            provider.delete_volume(&replaced.value).await?;
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    if !changed {
        narrate::unchanged("every volume is there already");
    }
    Ok(ExitCode::Done)
}

fn entry<P: Images>(plan: &Plan, artifact: Identity, baked: Baked, started: Timestamp) -> Volume {
    Volume {
        stamp: Stamp::now(env!("CARGO_PKG_VERSION"), started, Identity::sha256(plan.key())),
        identity: Identity::new(P::VOLUME, baked.volume.id),
        artifact,
        source_image: Identity::new(P::IMAGE, &plan.source.id),
        image_name: plan.options.image_name.clone(),
        virtualization_type: plan.virtualization_type.clone(),
        tags: plan.options.tags.clone(),
        force_deregister: plan.options.force_deregister,
        isolation: plan.isolation,
        provisioners: baked.steps,
    }
}

/// Replaces the builder's entry; returns the volume that nobody needs any more.
///
/// An entry that says the same already is kept as it is, with the times of the run that made it.
fn put(manifest: &mut Manifest, plan: &Plan, volume: Volume) -> Option<Identity> {
    let same = |old: &Volume| {
        old.identity == volume.identity
            && old.artifact == volume.artifact
            && old.image_name == volume.image_name
            && old.tags == volume.tags
            && old.force_deregister == volume.force_deregister
    };
    if manifest.volumes.get(&plan.builder).is_some_and(same) {
        return None;
    }
    let identity = volume.identity.clone();
    let old = manifest.volumes.insert(plan.builder.clone(), volume)?.identity;
    (old != identity && !manifest.volumes.values().any(|volume| volume.identity == old)).then_some(old)
}

/// The component names the builder that it deploys: a template without it is a mistake.
fn check_deployed_builder(template: &Template, manifest: &Manifest, replaced: bool) -> Result<()> {
    let deployed = &manifest.component.image.builder;
    if replaced || template.builder_names().any(|name| name == deployed) {
        return Ok(());
    }
    let names = template.builder_names().collect::<Vec<_>>().join(", ");
    let why =
        format!("component.toml deploys the builder '{deployed}', which {} lacks", manifest.component.image.template);
    Err(BadInput::new("reading the component", why, format!("set image.builder to one of {names}")).into())
}
