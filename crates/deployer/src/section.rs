//! The part of a manifest that is about a service.

use std::path::PathBuf;

use anyhow::Result;
use manifest::Manifest;
use provider::ManifestPlace;

/// Where a manifest speaks of a service.
#[derive(Debug, Clone)]
pub struct Section {
    /// The manifest.
    pub manifest: PathBuf,
    /// The environment that the service is in, by whose name the manifest has its deployment and its journal.
    pub environment: String,
}

impl Section {
    /// What the manifest says.
    pub async fn read(&self) -> Result<Manifest> {
        ManifestPlace::of(&self.manifest).await?.read().await
    }

    /// Changes what it says of this environment.
    pub async fn update(&self, change: impl FnMut(&mut Manifest)) -> Result<()> {
        ManifestPlace::of(&self.manifest).await?.update(None, change).await.map(drop)
    }
}
