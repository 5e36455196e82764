//! `artifact`: installs what the artifact stage built.

use std::fs::{self, File};
use std::io::Seek;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::CommandError;
use manifest::component::Package;
use provider::{ManifestPlace, ObjectDigest, Objects, Store};

use super::Reading;
use crate::chroot::Chroot;
use crate::template::Options;

/// The artifact of this run.
#[derive(Debug, Clone)]
pub(crate) struct ArtifactFile {
    /// Its content, as a file of the store.
    pub(crate) file: PathBuf,
    /// The name that it was built under.
    pub(crate) name: String,
    /// How it is installed.
    pub(crate) package: Package,
}

impl ArtifactFile {
    /// The artifact of another component, which its manifest tells of.
    async fn of_manifest(path: &Path, options: &Options, line: usize, cache: &Path) -> Result<Self> {
        let manifest = ManifestPlace::of(path).await?.read().await?;
        let Some(artifact) = manifest.artifact else {
            let why = format!("the manifest {} has no artifact yet", path.display());
            return Err(options.fault(line, why, "run `artifact build --manifest` with it first").into());
        };
        let digest = ObjectDigest::parse(&artifact.identity.value)?;
        let file = Store::open(&artifact.store, cache).await?.get(&digest).await?;
        Ok(Self { file, name: artifact.file_name, package: manifest.component.package })
    }
}

/// `None` only where a template is checked without an artifact.
pub(crate) struct InstallArtifact(Option<ArtifactFile>);

impl InstallArtifact {
    pub(crate) async fn read(options: &mut Options, reading: &Reading<'_>) -> Result<Self> {
        let line = options.line_of("manifest");
        if let Some(manifest) = reading.path(options, "manifest")? {
            return Ok(Self(Some(ArtifactFile::of_manifest(&manifest, options, line, reading.cache).await?)));
        }
        match reading.artifact {
            Some(artifact) => Ok(Self(Some(artifact.clone()))),
            None if reading.only_checking => Ok(Self(None)),
            None => {
                let why = "provisioner 'artifact' has no artifact to install";
                Err(options.fault(options.line(), why, "run with the --manifest that `artifact build` wrote").into())
            }
        }
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        let Some(artifact) = &self.0 else { return Ok(()) };
        fs::copy(&artifact.file, stage.join(&artifact.name))
            .with_context(|| format!("copying the artifact {}", artifact.file.display()))?;
        Ok(())
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        let Some(artifact) = &self.0 else { return Ok(()) };
        let staged = stage.join(&artifact.name);
        match &artifact.package {
            Package::Deb(_) => install_deb(chroot, &staged, &artifact.name),
            Package::Tree(tree) => chroot.unpack(decompress(&staged)?, &tree.prefix),
        }
    }
}

fn install_deb(chroot: &Chroot, deb: &Path, name: &str) -> Result<()> {
    let inside = format!("/tmp/{name}");
    chroot.upload(deb, &inside, Some(0o644))?;
    let apt = || {
        chroot.command("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args([
            "--yes",
            "--no-install-recommends",
            "--allow-downgrades",
            "--option",
            "Dpkg::Options::=--force-unsafe-io",
        ])
    };
    let lists = "ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1";
    let mut fresh = !chroot.command("/bin/sh").args(["-c", lists]).ask()?.status.success();
    let installed = loop {
        if fresh {
            apt().arg("update").narrated().run()?;
        }
        let installed = apt().args(["install", &inside]).narrated().run();
        match &installed {
            // The lists in the image may name packages that its mirror has replaced since.
            Err(CommandError::Failed { .. }) if !fresh => fresh = true,
            _ => break installed,
        }
    };
    chroot.remove(&inside)?;
    installed?;
    Ok(())
}

fn decompress(archive: &Path) -> Result<File> {
    let doing = || format!("unpacking {}", archive.display());
    let mut tar = tempfile::tempfile().with_context(doing)?;
    zstd::stream::copy_decode(File::open(archive).with_context(doing)?, &mut tar).with_context(doing)?;
    tar.rewind().with_context(doing)?;
    Ok(tar)
}
