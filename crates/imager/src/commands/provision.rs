//! `imager provision`

use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use manifest::{Identity, Manifest, Publication, Stamp, Volume};
use provider::{Images, ManifestPlace};
use tempfile::TempDir;

use super::build;
use crate::bake::{Baked, bake_all};
use crate::layers::{MAX_AGE_DAYS, days};
use crate::on_error::{Failure, OnError};
use crate::plan::{How, Plan};
use crate::recipe::Recipe;
use crate::template::{GivenVariables, Template};

/// Arguments of `imager provision` and `imager build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The image template; without it, the one that the component names.
    pub(crate) template: Option<PathBuf>,
    /// The manifest that this stage reads and adds its section to. `build TEMPLATE` needs none.
    #[arg(long, value_name = "FILE", env = "KILN_MANIFEST")]
    pub(crate) manifest: Option<PathBuf>,
    /// Do it again even if it is done already, and take over the image's name.
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) chosen: Chosen,
    /// Use no layer of an earlier run.
    #[arg(long)]
    no_cache: bool,
    /// Tell for each provisioner that runs which of its inputs is another than at the last build.
    #[arg(long)]
    explain: bool,
    /// Use no layer that is older than this many days.
    #[arg(long, value_name = "DAYS", default_value_t = MAX_AGE_DAYS)]
    max_age: u32,
    /// Start a Python for each of Ansible's modules, as Ansible does by itself.
    #[arg(long)]
    no_accelerate: bool,
    /// How many builders run at once; 0 is all of them.
    #[arg(long, value_name = "N", default_value_t = 0)]
    parallel_builds: usize,
    /// What becomes of the volume when a provisioner fails.
    #[arg(long, value_enum, default_value_t)]
    on_error: OnError,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

/// What a template is read with, and which of its builders are meant.
#[derive(clap::Args)]
pub(crate) struct Chosen {
    /// Set a user variable of the template.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    var: Vec<(String, String)>,
    /// Set user variables from a JSON file.
    #[arg(long, value_name = "FILE")]
    var_file: Vec<PathBuf>,
    /// Only these builders.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',')]
    only: Vec<String>,
    /// All builders but these.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',')]
    except: Vec<String>,
}

impl Chosen {
    /// Reads the template and says which of its builders are meant.
    pub(crate) fn read(&self, recipe: &Recipe) -> Result<(Template, Vec<String>)> {
        let given =
            GivenVariables { known: recipe.known_variables(), files: self.var_file.clone(), given: self.var.clone() };
        let template = Template::load(&recipe.template, &recipe.base, &given)?;
        narrate::keep_secret(template.secrets());
        let builders = template.select(&self.only, &self.except)?;
        Ok((template, builders))
    }
}

/// How it is told what is going on.
#[derive(clap::Args)]
pub(crate) struct Shown {
    /// Tell everything on stdout in the format of `packer -machine-readable`.
    #[arg(long)]
    machine_readable: bool,
    /// Whether what is shown may have colours.
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    color: bool,
}

impl Shown {
    pub(crate) fn begin(&self) {
        if self.machine_readable {
            narrate::machine_readable();
        }
        if !self.color {
            narrate::without_colour();
        }
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((pair.0.to_owned(), pair.1.to_owned()))
}

/// What is to be built, read and checked before anything is created.
pub(crate) struct Order<P> {
    started: Timestamp,
    pub(crate) scratch: TempDir,
    pub(crate) template: Template,
    /// What is to be built, each with the provider that works for it.
    pub(crate) plans: Vec<(P, Plan)>,
    at_once: usize,
    _recipe: Recipe,
}

impl<P: Images + Sync> Order<P> {
    /// Reads it with the manifest at `manifest`, or from a template alone.
    pub(crate) async fn read(provider: &P, args: &Args, manifest: Option<&Path>) -> Result<Self> {
        args.on_error.check()?;
        let started = Timestamp::now();
        let scratch = tempfile::Builder::new().prefix("provision-").tempdir_in(provider.scratch()?)?;
        let recipe = match (manifest, &args.template) {
            (None, Some(template)) => Recipe::alone(template, provider.cache())?,
            (manifest, template) => {
                let manifest = manifest.unwrap_or(Path::new(MANIFEST));
                Recipe::fetch(manifest, template.as_deref(), scratch.path(), provider.cache()).await?
            }
        };
        let (template, builders) = args.chosen.read(&recipe)?;
        if let Some(manifest) = &recipe.manifest {
            check_deployed_builder(&template, manifest, args.template.is_some())?;
        }
        if builders.len() > 1 {
            narrate::voices(builders.iter().cloned());
        }
        let mut plans = Vec::new();
        let how = How {
            use_cache: !args.no_cache && !args.force,
            max_age: days(args.max_age),
            accelerate: !args.no_accelerate,
            explain: args.explain,
        };
        for builder in builders {
            let (provider, mut plan) = Plan::make(provider, &template, &builder, &recipe, scratch.path(), how).await?;
            plan.failure = Failure::new(args.on_error);
            plan.options.force_deregister |= args.force;
            plans.push((provider, plan));
        }
        let at_once = if args.parallel_builds == 0 { usize::MAX } else { args.parallel_builds };
        Ok(Self { started, scratch, template, plans, at_once, _recipe: recipe })
    }

    /// Provisions the volumes, in the order of the plans.
    pub(crate) fn bake(&self) -> Vec<Result<Baked>> {
        let baked = bake_all(&self.plans, self.scratch.path(), self.at_once);
        for ((provider, plan), _) in self.plans.iter().zip(&baked).filter(|(_, baked)| baked.is_ok()) {
            // It only tells why something runs; nothing rests on it.
            if let Err(error) = plan.remember(provider) {
                narrate::note(&format!("{error:#}"));
            }
        }
        baked
    }
}

/// The manifest of the working directory.
pub(crate) const MANIFEST: &str = "manifest.json";

/// Provisions a volume for every builder and prints the volumes' ids.
pub(crate) async fn run<P: Images + Sync>(provider: &P, args: &Args) -> Result<ExitCode> {
    args.shown.begin();
    let path = args.manifest.as_deref().unwrap_or(Path::new(MANIFEST));
    let order = Order::read(provider, args, Some(path)).await?;
    let mut changed = false;
    let mut failed = Vec::new();
    for ((provider, plan), baked) in order.plans.iter().zip(order.bake()) {
        match baked {
            Ok(baked) => {
                changed |= !baked.reused;
                store(provider, &order, plan, baked, path).await?;
            }
            Err(error) => failed.push((plan.builder.clone(), error)),
        }
    }
    build::fail(failed)?;
    if !changed {
        narrate::unchanged("every volume is there already");
    }
    Ok(ExitCode::Done)
}

/// Writes a volume into the manifest and prints its id.
pub(crate) async fn store<P: Images>(
    provider: &P,
    order: &Order<P>,
    plan: &Plan,
    baked: Baked,
    path: &Path,
) -> Result<()> {
    let artifact = plan.artifact.clone().expect("a manifest was read, and it has an artifact");
    let volume = entry::<P>(plan, artifact, baked, order.started);
    super::print_id(&volume.identity);
    let mut replaced = None;
    let change = |manifest: &mut Manifest| replaced = put(manifest, plan, volume.clone());
    ManifestPlace::of(path).await?.update(None, change).await?;
    // Nothing rests on a volume that another has replaced: its image has the content by itself.
    if let Some(replaced) = replaced {
        provider.delete_volume(&replaced.value).await?;
    }
    Ok(())
}

fn entry<P: Images>(plan: &Plan, artifact: Identity, baked: Baked, started: Timestamp) -> Volume {
    let amazon = &plan.options.amazon;
    Volume {
        stamp: Stamp::now(env!("CARGO_PKG_VERSION"), started, Identity::sha256(plan.key())),
        identity: Identity::new(P::VOLUME, baked.volume.id),
        artifact,
        source_image: plan.source.as_ref().map(|source| Identity::new(P::IMAGE, &source.id)),
        image_name: plan.options.image_name.clone(),
        virtualization_type: plan.virtualization_type.clone(),
        tags: plan.options.tags.clone(),
        force_deregister: plan.options.force_deregister,
        medium: amazon.medium.clone(),
        publication: Some(amazon.publication.clone()).filter(|it| *it != Publication::default()).map(Box::new),
        account: plan.account.clone(),
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
            && old.medium == volume.medium
            && old.publication == volume.publication
            && old.account == volume.account
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
    let Some(image) = manifest.component.image.as_ref().filter(|_| !replaced) else { return Ok(()) };
    let deployed = &image.builder;
    if template.builder_names().any(|name| name == deployed) {
        return Ok(());
    }
    let names = template.builder_names().collect::<Vec<_>>().join(", ");
    let why = format!("component.toml deploys the builder '{deployed}', which {} lacks", image.template);
    Err(BadInput::new("reading the component", why, format!("set image.builder to one of {names}")).into())
}
