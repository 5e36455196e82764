//! What an image is made from: the component's tree at the revision of the manifest, and its artifact.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;
use manifest::{Identity, Manifest};
use provider::{ManifestPlace, ObjectDigest, Objects, Store, archive};
use tempfile::TempDir;

use crate::provisioners::ArtifactFile;

/// The tree that a template's paths mean, and the artifact that it may install.
pub(crate) struct Recipe {
    /// The manifest, of a run that has one.
    pub(crate) manifest: Option<Manifest>,
    /// Path of the template.
    pub(crate) template: PathBuf,
    /// Directory at which the template's relative paths start.
    pub(crate) base: PathBuf,
    /// What is fetched from a store that is on no disk of this machine is kept below it.
    pub(crate) cache: PathBuf,
    /// The artifact as a file.
    pub(crate) artifact: Option<ArtifactFile>,
    /// The artifact's identity.
    pub(crate) artifact_identity: Option<Identity>,
    _tree: Option<TempDir>,
}

impl Recipe {
    /// A template by itself: its paths start in the working directory, and there is no artifact.
    pub(crate) fn alone(template: &Path, cache: PathBuf) -> Result<Self> {
        let base = std::env::current_dir().context("finding the working directory")?;
        let template = template.to_owned();
        Ok(Self { manifest: None, template, base, cache, artifact: None, artifact_identity: None, _tree: None })
    }

    /// Fetches tree and artifact from the store that the manifest names, by way of `cache` if it is on no disk of this
    /// machine. `template` replaces the component's own.
    pub(crate) async fn fetch(
        manifest_path: &Path,
        template: Option<&Path>,
        scratch: &Path,
        cache: PathBuf,
    ) -> Result<Self> {
        let manifest = ManifestPlace::of(manifest_path).await?.read().await?;
        let (Some(source), Some(artifact)) = (&manifest.source, &manifest.artifact) else {
            let why = "it has no artifact yet";
            return Err(BadInput::new("reading the manifest", why, "run `artifact build` first")
                .in_file(manifest_path)
                .into());
        };
        let tree = tempfile::Builder::new().prefix("tree-").tempdir_in(scratch)?;
        let store = Store::open(&artifact.store, &cache).await?;
        archive::unpack(&store, &source.archive, tree.path()).await?;
        let file = ArtifactFile {
            file: store.get(&ObjectDigest::parse(&artifact.identity.value)?).await?,
            name: artifact.file_name.clone(),
            package: manifest.component.package.clone(),
        };
        let (template, base) = match template {
            Some(path) => (path.to_owned(), std::env::current_dir().context("finding the working directory")?),
            None => {
                let service =
                    manifest.component.service().map_err(|error| BadInput::from(error).in_file(manifest_path))?;
                (tree.path().join(&service.image.template), tree.path().to_owned())
            }
        };
        let artifact_identity = Some(artifact.identity.clone());
        Ok(Self {
            template,
            base,
            cache,
            artifact: Some(file),
            artifact_identity,
            manifest: Some(manifest),
            _tree: Some(tree),
        })
    }

    /// What is built, by a name that it keeps from run to run.
    pub(crate) fn name(&self) -> String {
        match &self.manifest {
            Some(manifest) => format!("component {}", manifest.component.name),
            None => std::path::absolute(&self.template).unwrap_or_default().display().to_string(),
        }
    }

    /// Values of the variables that a template may declare.
    pub(crate) fn known_variables(&self) -> Vec<(String, String)> {
        let Some(manifest) = &self.manifest else { return Vec::new() };
        let version = manifest.source.as_ref().map(|source| source.version.clone()).unwrap_or_default();
        vec![("component".to_owned(), manifest.component.name.clone()), ("version".to_owned(), version)]
    }
}
