//! A directory of objects by digest.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};
use tempfile::NamedTempFile;

use super::Local;
use crate::{ObjectDigest, Objects};

/// A store of objects in a directory: `sha256/ab/ab12…`.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    /// The store below `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory that it is in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the object is, if it is there.
    pub fn path(&self, digest: &ObjectDigest) -> PathBuf {
        self.root.join("sha256").join(&digest.as_str()[..2]).join(digest.as_str())
    }

    /// The object as a file, after its content has been checked.
    pub fn fetch(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        let path = self.path(digest);
        let doing = || format!("fetching {digest} from {}", self.root.display());
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                bail!("the store {} has no object {digest}: run `artifact build` again", self.root.display())
            }
            Err(error) => return Err(error).with_context(doing),
        };
        let found = copy_and_digest(&mut file, &mut io::sink()).with_context(doing)?;
        ensure!(
            found == *digest,
            "{} is damaged (its SHA-256 is {found}): remove it and run `artifact build --force`",
            path.display()
        );
        Ok(path)
    }

    /// A file for content that is on its way: on the store's file system, and gone unless it is kept.
    pub(crate) fn begin(&self) -> io::Result<NamedTempFile> {
        fs::create_dir_all(&self.root)?;
        NamedTempFile::new_in(&self.root)
    }

    /// Makes a file that has arrived the object `digest`. Its content is on the disk before its name is.
    pub(crate) fn keep(&self, content: NamedTempFile, digest: &ObjectDigest) -> io::Result<PathBuf> {
        let path = self.path(digest);
        content.as_file().sync_all()?;
        content.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o444))?;
        fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
        content.persist(&path)?;
        Ok(path)
    }
}

impl Objects for Directory {
    async fn put(&self, file: &Path) -> Result<ObjectDigest> {
        let doing = || format!("storing {} in {}", file.display(), self.root.display());
        let mut copy = self.begin().with_context(doing)?;
        let digest = copy_and_digest(&mut File::open(file).with_context(doing)?, &mut copy).with_context(doing)?;
        if !self.path(&digest).exists() {
            self.keep(copy, &digest).with_context(doing)?;
        }
        Ok(digest)
    }

    async fn get(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        self.fetch(digest)
    }

    async fn has(&self, digest: &ObjectDigest) -> Result<bool> {
        Ok(self.path(digest).exists())
    }
}

impl Local {
    /// The provider's own store.
    pub fn objects(&self) -> Directory {
        Directory::new(self.state.join("objects"))
    }
}

fn copy_and_digest(from: &mut impl io::Read, to: &mut impl Write) -> Result<ObjectDigest> {
    let mut sha = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            return ObjectDigest::parse(&hex::encode(sha.finalize()));
        }
        sha.update(&buffer[..count]);
        to.write_all(&buffer[..count])?;
    }
}
