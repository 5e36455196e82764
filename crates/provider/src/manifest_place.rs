//! Where a manifest is: a file, or an object in S3 that several machines write.

use std::path::{Path, PathBuf};

use anyhow::Result;
use manifest::{Component, Manifest};

#[cfg(feature = "aws")]
use crate::aws::ManifestObject;

/// The place of a manifest, as `--manifest` names it.
#[derive(Debug)]
pub enum ManifestPlace {
    /// A file of this machine.
    File(PathBuf),
    /// `s3://BUCKET/KEY`
    #[cfg(feature = "aws")]
    Object(ManifestObject),
}

impl ManifestPlace {
    /// The place that `path` names: a URL of S3, or else a file.
    pub async fn of(path: &Path) -> Result<Self> {
        const DOING: &str = "opening the manifest";
        match path.to_str().filter(|text| text.starts_with("s3://")) {
            None => Ok(Self::File(path.to_owned())),
            #[cfg(feature = "aws")]
            Some(url) => Ok(Self::Object(ManifestObject::open(DOING, url).await?)),
            #[cfg(not(feature = "aws"))]
            Some(url) => Err(crate::built_without_aws(&format!("{DOING} {url}")).into()),
        }
    }

    /// The manifest. The error is a [`manifest::ReadError`] where it is missing or malformed.
    pub async fn read(&self) -> Result<Manifest> {
        match self {
            Self::File(path) => Ok(manifest::read(path)?),
            #[cfg(feature = "aws")]
            Self::Object(object) => object.read().await,
        }
    }

    /// Changes the manifest, starting with `initial` where there is none.
    ///
    /// `change` replaces its caller's own keys and nothing else. Where no lock keeps others out, it is done again if they
    /// have changed other keys meanwhile; if they have changed the same ones, that is an error.
    pub async fn update(&self, initial: Option<&Component>, change: impl FnMut(&mut Manifest)) -> Result<Manifest> {
        match self {
            Self::File(path) => Ok(manifest::update(path, initial, change)?),
            #[cfg(feature = "aws")]
            Self::Object(object) => object.update(initial, change).await,
        }
    }
}
