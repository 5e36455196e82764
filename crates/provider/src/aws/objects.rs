//! Not there yet.

#![expect(unused_variables)]
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::Aws;
use crate::ObjectDigest;

impl crate::Objects for Aws {
    async fn put(&self, file: &Path) -> Result<ObjectDigest> {
        bail!("the provider aws cannot do this yet")
    }

    async fn get(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        bail!("the provider aws cannot do this yet")
    }

    async fn has(&self, digest: &ObjectDigest) -> Result<bool> {
        bail!("the provider aws cannot do this yet")
    }
}
