//! What is to be done for one builder, decided and checked before anything is created.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cli::narrate;
use manifest::{Account, Identity, Isolation};
use provider::{Images, RegisteredImage, SourceImage, origin};

use crate::explain::{self, Inputs, StepInputs};
use crate::isolation;
use crate::layers;
use crate::on_error::Failure;
use crate::post_processors::{self, PostProcessor};
use crate::provisioners::{Attempts, Provisioner, Reading};
use crate::recipe::Recipe;
use crate::template::{Builder, Options, Source, Template, Values};

/// A builder's image to be.
pub(crate) struct Plan {
    pub(crate) builder: String,
    /// In whose name it is built, and where.
    pub(crate) account: Account,
    pub(crate) options: Builder,
    /// Image at the bottom, unless it is made from scratch.
    pub(crate) source: Option<RegisteredImage>,
    pub(crate) virtualization_type: String,
    pub(crate) isolation: Isolation,
    pub(crate) artifact: Option<Identity>,
    pub(crate) steps: Vec<Step>,
    root_key: String,
    /// Tags of all that is made for it.
    pub(crate) origin: BTreeMap<String, String>,
    /// How old layers may be.
    pub(crate) max_age: Duration,
    /// By what name its inputs are kept, and what they are.
    build: String,
    inputs: Inputs,
    pub(crate) secrets: Vec<String>,
    /// What is done with the image.
    pub(crate) post_processors: Vec<PostProcessor>,
    /// The builder's `region`, by which Packer's users know an image.
    pub(crate) region: String,
    /// What becomes of the volume if a provisioner fails.
    pub(crate) failure: Failure,
}

/// A provisioner, staged, with the key of the layer that it leads to.
pub(crate) struct Step {
    pub(crate) kind: String,
    pub(crate) provisioner: Provisioner,
    pub(crate) attempts: Attempts,
    pub(crate) stage: PathBuf,
    pub(crate) key: String,
    /// Whether its result may be used again.
    pub(crate) cache: bool,
    /// Whether the template says so itself.
    marked: bool,
    /// Whether its result is kept as a layer; the last step's is a volume.
    pub(crate) layer: bool,
    /// Why it runs, if it does, where that is to be told.
    pub(crate) why: Option<String>,
}

/// How a plan is carried out, which does not bear on what it makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Whether layers of earlier runs are used.
    pub(crate) use_cache: bool,
    /// How old they may be.
    pub(crate) max_age: Duration,
    /// Whether Ansible's modules run in a process that stays.
    pub(crate) accelerate: bool,
    /// Whether it is told why something runs.
    pub(crate) explain: bool,
}

impl Plan {
    /// Reads the builder and its provisioners, and stages what they use below `scratch`.
    /// Returns the provider that works for this builder, too.
    pub(crate) async fn make<P: Images>(
        provider: &P,
        template: &Template,
        builder: &str,
        recipe: &Recipe,
        scratch: &Path,
        how: How,
    ) -> Result<(P, Self)> {
        let read = read_builder(provider, template, builder).await?;
        let ReadBuilder { provider, account, options, source, values, for_key } = read;
        let sources = || source.as_ref().map(|source| source.virtualization_type.clone());
        let virtualization_type =
            options.virtualization_type.clone().or_else(sources).expect("what is made from scratch says its type");

        let (isolation, reason) = isolation::decide(&provider, options.isolation, source.as_ref()).await?;
        if let Some(reason) = reason {
            narrate::note(&format!("{builder}: services will not start while it is provisioned: {reason}"));
        }
        let digest = source.as_ref().map(|source| &source.digest);
        let content = content_options::<P>(&for_key, &virtualization_type);
        let root_key = layers::root_key(digest, isolation, &content);
        let mut inputs = Inputs {
            source: digest.map(|digest| digest.value.clone()),
            isolation,
            builder: explain::digests(&content),
            steps: Vec::new(),
        };
        let mut steps = Vec::new();
        let mut parent = root_key.clone();
        let mut how = how;
        for (number, written) in template.provisioners(builder)?.into_iter().enumerate() {
            let stage = scratch.join(format!("{builder}-{number}"));
            let (step, step_inputs) = step(template, written, &values, recipe, &stage, &parent, how).await?;
            inputs.steps.push(step_inputs);
            parent.clone_from(&step.key);
            // What follows a step that is always run follows from a content that nobody knows beforehand.
            how.use_cache = step.cache;
            steps.push(step);
        }
        for number in 1..steps.len() {
            // An artifact is another one in every build, and what comes before it is not.
            let marked = steps[number - 1].marked || steps[number].provisioner.installs_artifact();
            steps[number - 1].layer = steps[number - 1].cache && (P::QUICK || marked);
        }
        let build = format!("{}: {builder}", recipe.name());
        if how.explain {
            let past = explain::recall(&provider.cache(), &build);
            for (step, why) in steps.iter_mut().zip(explain::reasons(past.as_ref(), &inputs)) {
                step.why = Some(match why {
                    Some(why) => why,
                    None if !step.cache => "its result is never taken from a layer".to_owned(),
                    None => "its result was not kept, or is too old".to_owned(),
                });
            }
        }
        let plan = Self {
            builder: builder.to_owned(),
            account,
            origin: origin::tags("imager", recipe.manifest.as_ref()),
            max_age: how.max_age,
            build,
            inputs,
            options,
            source,
            virtualization_type,
            isolation,
            artifact: recipe.artifact_identity.clone(),
            steps,
            root_key,
            secrets: template.secrets(),
            post_processors: post_processors::read(template, builder, &values, recipe)?,
            region: values.fields.get("BuildRegion").cloned().unwrap_or_default(),
            failure: Failure::default(),
        };
        Ok((provider, plan))
    }

    /// Reads the builder, its provisioners and its post-processors, and makes nothing of them.
    pub(crate) async fn check(
        provider: &impl Images,
        template: &Template,
        builder: &str,
        recipe: &Recipe,
    ) -> Result<()> {
        let ReadBuilder { values, .. } = read_builder(provider, template, builder).await?;
        for mut written in template.provisioners(builder)? {
            written.bool("cache")?;
            Attempts::read(&mut written)?;
            let artifact = recipe.artifact.as_ref();
            let reading = Reading {
                values: &values,
                base: &recipe.base,
                cache: &recipe.cache,
                artifact,
                only_checking: true,
                accelerate: false,
            };
            Provisioner::read(written, &reading).await?;
        }
        post_processors::read(template, builder, &values, recipe)?;
        Ok(())
    }

    /// Keeps what its volume follows from, now that it has been made.
    pub(crate) fn remember(&self, provider: &impl Images) -> Result<()> {
        explain::remember(&provider.cache(), &self.build, &self.inputs)
    }

    /// The key of the volume that this leads to.
    pub(crate) fn key(&self) -> &str {
        self.steps.last().map_or(&self.root_key, |step| &step.key)
    }

    /// The partition that has the root; 0 is the whole disk.
    pub(crate) fn root_partition(&self) -> u32 {
        provider::root_partition(&self.virtualization_type, self.root_partition_given())
    }

    /// The same, where it is not the one that the virtualization type implies.
    pub(crate) fn root_partition_given(&self) -> Option<u32> {
        let sources = self.source.as_ref().filter(|source| source.virtualization_type == self.virtualization_type);
        self.options.root_partition.or(sources.and_then(|source| source.root_partition))
    }

    /// Whether every step may be taken from a layer.
    pub(crate) fn is_cacheable(&self) -> bool {
        self.steps.iter().all(|step| step.cache)
    }
}

/// A builder that has been read, and what the texts of its provisioners may ask for.
struct ReadBuilder<P> {
    /// Works in the builder's name.
    provider: P,
    account: Account,
    options: Builder,
    source: Option<RegisteredImage>,
    values: Values,
    /// Its options as they go into layer keys.
    for_key: serde_json::Value,
}

async fn read_builder<P: Images>(provider: &P, template: &Template, builder: &str) -> Result<ReadBuilder<P>> {
    let mut values = template.values(builder);
    let mut options = template.builder(builder).expect("the builder was chosen among the template's");
    let for_key = options.digestible(&template.without_secrets(&values));
    let access = Builder::access(&mut options, &values)?;
    narrate::keep_secret(
        access.keys.iter().flat_map(|keys| [Some(&keys.secret), keys.token.as_ref()]).flatten().cloned(),
    );
    let provider = provider.on_behalf_of(&access).await?;
    let region = access.account.region.clone().unwrap_or_else(|| provider.region().to_owned());
    values.fields.insert("BuildRegion", region);
    let (source, line) = Source::read(&mut options, &values)?;
    let source = find(&provider, source, line, &options).await?;
    if let Some(source) = &source {
        values.fields.insert("SourceAMI", source.id.clone());
        values.fields.insert("SourceAMIName", source.name.clone());
        values.source_tags = Some(source.tags.clone());
    }
    let options = Builder::read(options, &values)?;
    if !P::HAS_MEDIA {
        let amazon = &options.amazon;
        for (names, publish) in
            [(&amazon.of_build, ""), (&amazon.of_image, ", and by `imager publish` of a manifest's images")]
        {
            if !names.is_empty() {
                narrate::note(&format!("{}: only used with --provider aws{publish}", names.join(", ")));
            }
        }
    }
    Ok(ReadBuilder { provider, account: access.account, options, source, values, for_key })
}

/// The image that a builder starts from; `None` if it starts from nothing.
async fn find(
    provider: &impl Images,
    source: Source,
    line: usize,
    options: &Options,
) -> Result<Option<RegisteredImage>> {
    const LIST: &str = "`imager images` lists what there is; `imager base` makes a base image";
    match source {
        Source::Scratch => Ok(None),
        Source::Named(name) => match provider.find_source(&SourceImage { name: name.clone() }).await? {
            Some(image) => Ok(Some(image)),
            None => Err(options.fault(line, format!("there is no image '{name}'"), LIST).into()),
        },
        Source::Filtered { filter, most_recent } => {
            let found = provider.find_images(&filter).await;
            let mut found = found.map_err(|why| options.fault(line, format!("{why:#}"), "mend it"))?;
            match (found.pop(), found.len()) {
                (None, _) => Err(options.fault(line, "no image is like that", LIST).into()),
                (Some(newest), others) if others == 0 || most_recent => Ok(Some(newest)),
                (Some(newest), others) => {
                    let why = format!("{} images are like that, {} among them", others + 1, newest.id);
                    let remedy = "add \"most_recent\": true, or a filter that tells them apart";
                    Err(options.fault(line, why, remedy).into())
                }
            }
        }
    }
}

/// The builder's options that bear on what is on the disk: its name and tags do not.
fn content_options<P: Images>(options: &serde_json::Value, virtualization_type: &str) -> serde_json::Value {
    const CONTENT: &[&str] = &[
        "mount_options",
        "mount_partition",
        "chroot_mounts",
        "copy_files",
        "command_wrapper",
        "pre_mount_commands",
        "post_mount_commands",
        "root_volume_size",
    ];
    // Of which kind the volume is, its snapshots are for ever.
    const MEDIUM: &[&str] =
        &["root_volume_type", "root_volume_encrypt_boot", "root_volume_kms_key_id", "encrypt_boot", "kms_key_id"];
    let mut content = serde_json::Map::new();
    content.insert("virtualization_type".into(), virtualization_type.into());
    for name in CONTENT.iter().chain(MEDIUM.iter().filter(|_| P::HAS_MEDIA)) {
        if let Some(value) = options.get(name) {
            content.insert((*name).into(), value.clone());
        }
    }
    content.into()
}

async fn step(
    template: &Template,
    mut written: Options,
    values: &Values,
    recipe: &Recipe,
    stage: &Path,
    parent: &str,
    how: How,
) -> Result<(Step, StepInputs)> {
    let cache = written.bool("cache")?;
    let attempts = Attempts::read(&mut written)?;
    let redacted = template.without_secrets(values);
    let mut for_key = written.digestible(&redacted);
    let artifact = recipe.artifact.as_ref();
    let reading = |values| Reading {
        values,
        base: &recipe.base,
        cache: &recipe.cache,
        artifact,
        only_checking: false,
        accelerate: how.accelerate,
    };
    let (kind, provisioner) = Provisioner::read(written.clone(), &reading(values)).await?;
    let marked = cache == Some(true);
    let cache = cache.unwrap_or_else(|| !provisioner.acts_on_host()) && how.use_cache;
    fs::create_dir_all(stage)?;
    // A key must not tell a secret, not even by its digest, so it is taken from a stage without secrets.
    if !template.secrets().is_empty() {
        let (_, harmless) = Provisioner::read(written, &reading(&redacted)).await?;
        harmless.stage(stage)?;
    } else {
        provisioner.stage(stage)?;
    }
    if provisioner.is_told_of_builder() {
        for_key["build_name"] = values.build_name.clone().into();
        for_key["build_type"] = values.build_type.clone().into();
    }
    let options = explain::digests(&for_key);
    let inputs = StepInputs { kind: kind.clone(), options, files: layers::digest_tree(stage)? };
    let key = layers::next_key(parent, &inputs);
    if !template.secrets().is_empty() {
        fs::remove_dir_all(stage)?;
        fs::create_dir_all(stage)?;
        provisioner.stage(stage)?;
    }
    Ok((
        Step { kind, provisioner, attempts, stage: stage.to_owned(), key, cache, marked, layer: false, why: None },
        inputs,
    ))
}
