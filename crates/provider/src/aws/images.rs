//! Not there yet.

#![expect(unused_variables)]
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use manifest::{Identity, IdentityKind};

use super::Aws;
use crate::{
    Attachment, ImageFilter, Images, LayerRecord, RegisteredImage, Registration, SourceImage, StoredVerdict,
    VolumeRecord, VolumeSpec,
};

impl crate::Images for Aws {
    const IMAGE: IdentityKind = IdentityKind::AwsImage;
    const VOLUME: IdentityKind = IdentityKind::AwsVolume;

    async fn find_source(&self, source: &SourceImage) -> Result<Option<RegisteredImage>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn find_images(&self, filter: &ImageFilter) -> Result<Vec<RegisteredImage>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord> {
        bail!("the provider aws cannot do this yet")
    }

    async fn attach(&self, volume: &VolumeRecord) -> Result<Attachment> {
        bail!("the provider aws cannot do this yet")
    }

    async fn detach(&self, attachment: Attachment) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn cut_layer(&self, volume: &VolumeRecord, key: &str, made_by: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn has_layer(&self, key: &str, max_age: Duration) -> Result<bool> {
        bail!("the provider aws cannot do this yet")
    }

    async fn layers(&self) -> Result<Vec<LayerRecord>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn delete_layer(&self, key: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn complete_volume(&self, volume: &VolumeRecord, key: &str) -> Result<VolumeRecord> {
        bail!("the provider aws cannot do this yet")
    }

    async fn volume(&self, id: &str) -> Result<Option<VolumeRecord>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn find_volume(&self, key: &str, max_age: Duration) -> Result<Option<VolumeRecord>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn lock_layer(&self, key: &str) -> Result<cli::lock::Lock> {
        bail!("the provider aws cannot do this yet")
    }

    fn scratch(&self) -> Result<PathBuf> {
        self.machine.scratch()
    }

    fn cache(&self) -> PathBuf {
        self.machine.cache()
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn register(&self, volume: &VolumeRecord, registration: &Registration) -> Result<RegisteredImage> {
        bail!("the provider aws cannot do this yet")
    }

    async fn image(&self, id: &str) -> Result<Option<RegisteredImage>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn list(&self) -> Result<Vec<RegisteredImage>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn alias(&self, alias: &str, id: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn aliases(&self) -> Result<BTreeMap<String, String>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn remove(&self, id: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn digest(&self, id: &str) -> Result<Identity> {
        bail!("the provider aws cannot do this yet")
    }

    async fn record_verdict(&self, id: &str, verdict: &StoredVerdict) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn attach_document(&self, id: &str, name: &str, content: &[u8]) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn document(&self, id: &str, name: &str) -> Result<Option<Vec<u8>>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn with_roots<T: Send, const N: usize>(
        &self,
        ids: [&str; N],
        look: impl FnOnce([&Path; N]) -> Result<T> + Send,
    ) -> Result<T> {
        bail!("the provider aws cannot do this yet")
    }
}
