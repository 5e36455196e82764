//! The part of a manifest that is about a service.

use std::path::PathBuf;

use anyhow::Result;
use manifest::Manifest;
use provider::ManifestPlace;

/// Where a manifest speaks of a service.
#[derive(Debug)]
pub struct Section {
    /// The manifest, as it was named.
    pub manifest: PathBuf,
    /// The environment that the service is in, by whose name the manifest has its deployment and its journal.
    pub environment: String,
    place: ManifestPlace,
}

impl Section {
    /// The section for an environment.
    pub async fn of(manifest: PathBuf, environment: String) -> Result<Self> {
        Ok(Self { place: ManifestPlace::of(&manifest).await?, manifest, environment })
    }

    /// What the manifest says.
    pub async fn read(&self) -> Result<Manifest> {
        self.place.read().await
    }

    /// Changes what it says of this environment.
    pub async fn update(&self, change: impl FnMut(&mut Manifest)) -> Result<()> {
        self.place.update(None, change).await.map(drop)
    }
}
