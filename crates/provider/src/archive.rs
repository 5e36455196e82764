//! Trees that travel as objects.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};
use manifest::Identity;

use crate::{ObjectDigest, Objects};

/// Unpacks the `.tar.zst` that is the object `archive` of `store` into the directory `to`.
///
/// An error if the store lacks it or has it damaged.
pub async fn unpack(store: &impl Objects, archive: &Identity, to: &Path) -> Result<()> {
    let file = store.get(&ObjectDigest::parse(&archive.value)?).await?;
    let doing = || format!("unpacking {}", file.display());
    let content = zstd::Decoder::new(File::open(&file).with_context(doing)?).with_context(doing)?;
    tar::Archive::new(content).unpack(to).with_context(doing)
}
