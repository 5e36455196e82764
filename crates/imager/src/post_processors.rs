//! Post-processors: what is done with an image when it is registered.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::narrate;
use serde::{Deserialize, Serialize};

use crate::provisioners::{Reading, ShellLocal};
use crate::recipe::Recipe;
use crate::template::{Options, Template, Values};

/// An image that a builder has made, as Packer's users know one.
pub(crate) struct Artifact {
    pub(crate) builder: String,
    pub(crate) builder_type: String,
    /// The builder's `region`; `local` without one.
    pub(crate) region: String,
    /// The image's id at the provider.
    pub(crate) image: String,
    /// Its copies in other regions, by region.
    pub(crate) copies: BTreeMap<String, String>,
    pub(crate) run_uuid: String,
    pub(crate) secrets: Vec<String>,
}

impl Artifact {
    /// The regions in which it is, with its id in each.
    pub(crate) fn places(&self) -> impl Iterator<Item = (&str, &str)> {
        let copies = self.copies.iter().map(|(region, image)| (region.as_str(), image.as_str()));
        [(self.region.as_str(), self.image.as_str())].into_iter().chain(copies)
    }

    /// Packer's name for it: `region:image`, with commas between those of several regions.
    pub(crate) fn id(&self) -> String {
        self.places().map(|(region, image)| format!("{region}:{image}")).collect::<Vec<_>>().join(",")
    }
}

/// A post-processor, ready to be run.
pub(crate) enum PostProcessor {
    Manifest(WriteManifest),
    ShellLocal(Box<ShellLocal>),
}

/// Reads the post-processors that run for `builder`, in order: an image passes through all of them unchanged.
pub(crate) fn read(template: &Template, builder: &str, values: &Values, recipe: &Recipe) -> Result<Vec<PostProcessor>> {
    let (base, cache) = (&recipe.base, &recipe.cache);
    let reading = Reading { values, base, cache, artifact: None, only_checking: false, accelerate: false };
    let sequences = template.post_processors(builder)?;
    sequences.into_iter().flatten().map(|options| PostProcessor::read(options, &reading)).collect()
}

impl PostProcessor {
    fn read(mut options: Options, reading: &Reading) -> Result<Self> {
        let line = options.line_of("keep_input_artifact");
        if options.bool("keep_input_artifact")? == Some(false) {
            let why = "'keep_input_artifact' cannot be false: nothing takes the image's place";
            return Err(options.fault(line, why, "remove it").into());
        }
        let read = match options.kind() {
            "manifest" => Self::Manifest(WriteManifest::read(&mut options, reading)?),
            _ => Self::ShellLocal(Box::new(ShellLocal::read_alone(&mut options, reading)?)),
        };
        options.finish()?;
        Ok(read)
    }

    /// Runs it; `scratch` is for what is needed on the way.
    pub(crate) fn run(&self, artifact: &Artifact, scratch: &Path) -> Result<()> {
        let say = |kind: &str| narrate::step(&format!("{} ({kind}): Running post-processor: {kind}", artifact.builder));
        match self {
            Self::Manifest(manifest) => {
                say("manifest");
                manifest.run(artifact)
            }
            Self::ShellLocal(shell) => {
                say("shell-local");
                let stage = tempfile::Builder::new().prefix("post-processor-").tempdir_in(scratch)?;
                shell.stage(stage.path())?;
                shell.run_alone(stage.path(), |command| {
                    artifact.secrets.iter().fold(command, cli::Command::secret).labelled(&artifact.builder)
                })
            }
        }
    }
}

/// `manifest`: Packer's own list of what it has built.
pub(crate) struct WriteManifest {
    output: PathBuf,
    strip_time: bool,
    custom_data: Option<serde_json::Map<String, serde_json::Value>>,
}

/// The file, in Packer's order of members (packer/post-processor/manifest).
#[derive(Default, Serialize, Deserialize)]
struct ManifestFile {
    builds: Vec<Build>,
    last_run_uuid: String,
}

#[derive(Serialize, Deserialize)]
struct Build {
    name: String,
    builder_type: String,
    /// Seconds since 1970; left out with `strip_time`.
    #[serde(default, skip_serializing_if = "is_zero")]
    build_time: i64,
    /// An image is no file.
    files: Option<serde_json::Value>,
    artifact_id: String,
    packer_run_uuid: String,
    custom_data: Option<serde_json::Map<String, serde_json::Value>>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

impl WriteManifest {
    fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let output = reading.string(options, "output")?.unwrap_or_else(|| "packer-manifest.json".into());
        // It shortens the paths of files, of which an image has none.
        options.bool("strip_path")?;
        let mut custom_data = None;
        if options.has("custom_data") {
            let given = options.string_map("custom_data")?;
            let given =
                given.into_iter().map(|(name, value)| Ok((name, reading.text(options, "custom_data", &value)?.into())));
            custom_data = Some(given.collect::<Result<_>>()?);
        }
        Ok(Self {
            output: reading.outside()?.join(output),
            strip_time: options.bool("strip_time")?.unwrap_or(false),
            custom_data,
        })
    }

    fn run(&self, artifact: &Artifact) -> Result<()> {
        let doing = || format!("writing the manifest {}", self.output.display());
        let mut file = match fs::read_to_string(&self.output) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => ManifestFile::default(),
            text => serde_json::from_str(&text.with_context(doing)?).with_context(doing)?,
        };
        file.builds.push(Build {
            name: artifact.builder.clone(),
            builder_type: artifact.builder_type.clone(),
            build_time: if self.strip_time { 0 } else { jiff::Timestamp::now().as_second() },
            files: None,
            artifact_id: artifact.id(),
            packer_run_uuid: artifact.run_uuid.clone(),
            custom_data: self.custom_data.clone(),
        });
        file.last_run_uuid.clone_from(&artifact.run_uuid);
        if let Some(directory) = self.output.parent() {
            fs::create_dir_all(directory).with_context(doing)?;
        }
        fs::write(&self.output, serde_json::to_vec_pretty(&file)?).with_context(doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_is_packers_and_grows_with_each_build() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = WriteManifest {
            output: directory.path().join("deep/packer-manifest.json"),
            strip_time: true,
            custom_data: Some([("v".to_owned(), "1".into())].into_iter().collect()),
        };
        let artifact = |image: &str| Artifact {
            builder: "hvm".into(),
            builder_type: "amazon-chroot".into(),
            region: "eu-west-1".into(),
            image: image.into(),
            copies: BTreeMap::new(),
            run_uuid: "f00".into(),
            secrets: Vec::new(),
        };
        manifest.run(&artifact("img-1")).unwrap();
        manifest.run(&artifact("img-2")).unwrap();
        insta::assert_snapshot!(fs::read_to_string(&manifest.output).unwrap());
    }
}
