//! What an image is made from: the component's tree at the revision of the manifest, and its artifact.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;
use manifest::{Identity, Manifest};
use provider::local::Directory;
use provider::{ObjectDigest, Objects};
use tempfile::TempDir;

use crate::provisioners::ArtifactFile;

/// A component's tree, unpacked, with its artifact.
pub(crate) struct Recipe {
    pub(crate) manifest: Manifest,
    /// Path of the template.
    pub(crate) template: PathBuf,
    /// Directory at which the template's relative paths start.
    pub(crate) base: PathBuf,
    /// The artifact as a file.
    pub(crate) artifact: ArtifactFile,
    /// The artifact's identity.
    pub(crate) artifact_identity: Identity,
    _tree: TempDir,
}

impl Recipe {
    /// Fetches tree and artifact from the store. `template` replaces the component's own.
    pub(crate) async fn fetch(manifest_path: &Path, template: Option<&Path>, scratch: &Path) -> Result<Self> {
        let manifest = manifest::read(manifest_path)?;
        let (Some(source), Some(artifact)) = (&manifest.source, &manifest.artifact) else {
            let why = "it has no artifact yet";
            return Err(BadInput::new("reading the manifest", why, "run `artifact build` first")
                .in_file(manifest_path)
                .into());
        };
        let store = Directory::new(&artifact.store);
        let fetch = async |identity: &Identity| store.get(&ObjectDigest::parse(&identity.value)?).await;
        let tree = tempfile::Builder::new().prefix("tree-").tempdir_in(scratch)?;
        unpack(&fetch(&source.archive).await?, tree.path())?;
        let recipe = ArtifactFile {
            file: fetch(&artifact.identity).await?,
            name: artifact.file_name.clone(),
            package: manifest.component.package.clone(),
        };
        let (template, base) = match template {
            Some(path) => (path.to_owned(), std::env::current_dir().context("finding the working directory")?),
            None => (tree.path().join(&manifest.component.image.template), tree.path().to_owned()),
        };
        let artifact_identity = artifact.identity.clone();
        Ok(Self { template, base, artifact: recipe, artifact_identity, manifest, _tree: tree })
    }

    /// Values of the variables that a template may declare.
    pub(crate) fn known_variables(&self) -> Vec<(String, String)> {
        let version = self.manifest.source.as_ref().map(|source| source.version.clone()).unwrap_or_default();
        vec![("component".to_owned(), self.manifest.component.name.clone()), ("version".to_owned(), version)]
    }
}

/// Unpacks a `.tar.zst`.
fn unpack(archive: &Path, to: &Path) -> Result<()> {
    let doing = || format!("unpacking {}", archive.display());
    let content = zstd::Decoder::new(File::open(archive).with_context(doing)?).with_context(doing)?;
    tar::Archive::new(content).unpack(to).with_context(doing)
}
