//! Objects by digest.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// SHA-256 of an object's content: its name in every store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectDigest(String);

impl ObjectDigest {
    /// Takes 64 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self> {
        let hex = text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        ensure!(hex, "'{text}' is not a SHA-256 digest (64 lower-case hexadecimal digits)");
        Ok(Self(text.to_owned()))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A store of immutable content by digest.
#[expect(async_fn_in_trait, reason = "callers are generic over the provider and never need Send")]
pub trait Objects {
    /// Stores the content of `file` and returns its digest. Content that is there already is left alone.
    async fn put(&self, file: &Path) -> Result<ObjectDigest>;

    /// Fetches an object and checks it against its digest. The returned file is read-only and may be
    /// the store's own.
    async fn get(&self, digest: &ObjectDigest) -> Result<PathBuf>;

    /// Whether the store has it.
    async fn has(&self, digest: &ObjectDigest) -> Result<bool>;
}
