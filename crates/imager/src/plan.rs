//! What is to be done for one builder, decided and checked before anything is created.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::narrate;
use manifest::{Identity, Isolation};
use provider::{Images, RegisteredImage, SourceImage};

use crate::isolation;
use crate::layers;
use crate::on_error::Failure;
use crate::post_processors::{self, PostProcessor};
use crate::provisioners::{Attempts, Provisioner, Reading};
use crate::recipe::Recipe;
use crate::template::{Builder, Options, Template, Values};

/// A builder's image to be.
pub(crate) struct Plan {
    pub(crate) builder: String,
    pub(crate) options: Builder,
    pub(crate) source: RegisteredImage,
    pub(crate) virtualization_type: String,
    pub(crate) isolation: Isolation,
    pub(crate) artifact: Option<Identity>,
    pub(crate) steps: Vec<Step>,
    root_key: String,
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
    /// Whether its layer may be used again.
    pub(crate) cache: bool,
}

/// How a plan is carried out, which does not bear on what it makes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// Whether layers of earlier runs are used.
    pub(crate) use_cache: bool,
    /// Whether Ansible's modules run in a process that stays.
    pub(crate) accelerate: bool,
}

impl Plan {
    /// Reads the builder and its provisioners, and stages what they use below `scratch`.
    pub(crate) async fn make(
        provider: &impl Images,
        template: &Template,
        builder: &str,
        recipe: &Recipe,
        scratch: &Path,
        how: How,
    ) -> Result<Self> {
        let ReadBuilder { options, source, values, for_key } = read_builder(provider, template, builder).await?;
        let virtualization_type =
            options.virtualization_type.clone().unwrap_or_else(|| source.virtualization_type.clone());

        let (isolation, reason) = isolation::decide(provider, options.isolation, &source).await?;
        if let Some(reason) = reason {
            narrate::note(&format!("{builder}: services will not start while it is provisioned: {reason}"));
        }
        let root_key =
            layers::root_key(&source.digest.value, isolation, &content_options(&for_key, &virtualization_type));
        let mut steps = Vec::new();
        let mut parent = root_key.clone();
        let mut how = how;
        for (number, written) in template.provisioners(builder)?.into_iter().enumerate() {
            let stage = scratch.join(format!("{builder}-{number}"));
            let step = step(template, written, &values, recipe, &stage, &parent, how)?;
            parent.clone_from(&step.key);
            // What follows a step that is always run follows from a content that nobody knows beforehand.
            how.use_cache = step.cache;
            steps.push(step);
        }
        Ok(Self {
            builder: builder.to_owned(),
            options,
            source,
            virtualization_type,
            isolation,
            artifact: recipe.artifact_identity.clone(),
            steps,
            root_key,
            secrets: template.secrets(),
            post_processors: post_processors::read(template, builder, &values, &recipe.base)?,
            region: values.fields.get("BuildRegion").cloned().unwrap_or_default(),
            failure: Failure::default(),
        })
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
            let reading = Reading { values: &values, base: &recipe.base, artifact, only_checking: true, accelerate: false };
            Provisioner::read(written, &reading)?;
        }
        post_processors::read(template, builder, &values, &recipe.base)?;
        Ok(())
    }

    /// The key of the volume that this leads to.
    pub(crate) fn key(&self) -> &str {
        self.steps.last().map_or(&self.root_key, |step| &step.key)
    }

    /// Whether every step may be taken from a layer.
    pub(crate) fn is_cacheable(&self) -> bool {
        self.steps.iter().all(|step| step.cache)
    }
}

/// A builder that has been read, and what the texts of its provisioners may ask for.
struct ReadBuilder {
    options: Builder,
    source: RegisteredImage,
    values: Values,
    /// Its options as they go into layer keys.
    for_key: serde_json::Value,
}

async fn read_builder(provider: &impl Images, template: &Template, builder: &str) -> Result<ReadBuilder> {
    let mut values = template.values(builder);
    let mut options = template.builder(builder).expect("the builder was chosen among the template's");
    let for_key = options.digestible(&template.without_secrets(&values));
    let region = options.string("region")?.unwrap_or_else(|| "local".to_owned());
    values.fields.insert("BuildRegion", values.interpolate(&region).unwrap_or(region));
    let (name, line) = Builder::source(&mut options, &values)?;
    let source = provider.find_source(&SourceImage { name: name.clone() }).await?;
    let source = source.ok_or_else(|| {
        let why = format!("there is no image '{name}'");
        options.fault(line, why, "`imager images` lists what there is; `imager base` makes a base image")
    })?;
    values.fields.insert("SourceAMI", source.id.clone());
    values.fields.insert("SourceAMIName", source.name.clone());
    values.source_tags = Some(source.tags.clone());
    let options = Builder::read(options, &values)?;
    Ok(ReadBuilder { options, source, values, for_key })
}

/// The builder's options that bear on what is on the disk: its name and tags do not.
fn content_options(options: &serde_json::Value, virtualization_type: &str) -> serde_json::Value {
    const CONTENT: &[&str] =
        &["mount_options", "chroot_mounts", "copy_files", "pre_mount_commands", "post_mount_commands"];
    let mut content = serde_json::Map::new();
    content.insert("virtualization_type".into(), virtualization_type.into());
    for name in CONTENT {
        if let Some(value) = options.get(name) {
            content.insert((*name).into(), value.clone());
        }
    }
    content.into()
}

fn step(
    template: &Template,
    mut written: Options,
    values: &Values,
    recipe: &Recipe,
    stage: &Path,
    parent: &str,
    how: How,
) -> Result<Step> {
    let cache = written.bool("cache")?;
    let attempts = Attempts::read(&mut written)?;
    let redacted = template.without_secrets(values);
    let for_key = written.digestible(&redacted);
    let artifact = recipe.artifact.as_ref();
    let reading = |values| Reading { values, base: &recipe.base, artifact, only_checking: false, accelerate: how.accelerate };
    let (kind, provisioner) = Provisioner::read(written.clone(), &reading(values))?;
    let cache = cache.unwrap_or_else(|| !provisioner.acts_on_host()) && how.use_cache;
    fs::create_dir_all(stage)?;
    // A key must not tell a secret, not even by its digest, so it is taken from a stage without secrets.
    if !template.secrets().is_empty() {
        let (_, harmless) = Provisioner::read(written, &reading(&redacted))?;
        harmless.stage(stage)?;
    } else {
        provisioner.stage(stage)?;
    }
    let key = layers::next_key(parent, &kind, &for_key, &layers::digest_tree(stage)?);
    if !template.secrets().is_empty() {
        fs::remove_dir_all(stage)?;
        fs::create_dir_all(stage)?;
        provisioner.stage(stage)?;
    }
    Ok(Step { kind, provisioner, attempts, stage: stage.to_owned(), key, cache })
}
