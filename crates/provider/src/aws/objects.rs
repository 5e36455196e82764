//! A bucket of objects by digest.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::Client;
use aws_sdk_s3::presigning::PresigningConfig;
use sha2::{Digest, Sha256};

use super::account;
use super::failure::{Explain, is_not_found};
use super::s3::{self, Url};
use super::s3_upload::{Content, upload};
use super::wait::unless_interrupted;
use crate::local::Directory;
use crate::{Access, ObjectDigest, Objects};

/// A store of objects in S3: `s3://BUCKET/PREFIX/sha256/ab/ab12…`.
#[derive(Debug, Clone)]
pub struct Bucket {
    s3: Client,
    url: Url,
    /// What has been fetched to this machine.
    cache: Directory,
}

impl Bucket {
    /// The store at `url`. What is fetched from it is kept in the directory `cache`. An error says what was being done.
    pub async fn open(doing: &str, url: &str, cache: &Path) -> Result<Self> {
        let url = Url::parse(doing, url)?;
        let (config, _) = account::load(&Access::default()).await?;
        Ok(Self { s3: Client::new(&config), url, cache: Directory::new(cache) })
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Where the object is or would be.
    pub(super) fn object(&self, digest: &ObjectDigest) -> Url {
        self.url.join(&format!("sha256/{}/{digest}", &digest.as_str()[..2]))
    }

    /// A link to the object by which anybody can fetch it, for so long. Those who sign with credentials that end before
    /// sign for as long as these.
    pub(super) async fn link(&self, digest: &ObjectDigest, lasting: Duration) -> Result<String> {
        let object = self.object(digest);
        let doing = || format!("signing a link to {object}");
        let lasting = PresigningConfig::expires_in(lasting).with_context(doing)?;
        let link = self.s3.get_object().bucket(&object.bucket).key(&object.key).presigned(lasting).await;
        Ok(link.doing("s3:GetObject", doing)?.uri().to_owned())
    }

    /// Fetches an object into the cache.
    async fn download(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        let object = self.object(digest);
        let doing = || format!("fetching {object} to {}", self.cache.root().display());
        let sent = self.s3.get_object().bucket(&object.bucket).key(&object.key).send().await;
        let mut body = match sent {
            Err(error) if is_not_found(&error) => {
                bail!("the store {} has no object {digest}: run `artifact build` again", self.url)
            }
            sent => sent.doing("s3:GetObject", doing)?.body,
        };
        let mut copy = self.cache.begin().with_context(doing)?;
        let mut sha = Sha256::new();
        while let Some(bytes) = body.try_next().await.with_context(doing)? {
            sha.update(&bytes);
            copy.write_all(&bytes).with_context(doing)?;
        }
        let found = hex::encode(sha.finalize());
        ensure!(
            found == digest.as_str(),
            "{object} is damaged (its SHA-256 is {found}): remove it and run `artifact build --force`"
        );
        self.cache.keep(copy, digest).with_context(doing)
    }
}

impl Objects for Bucket {
    async fn put(&self, file: &Path) -> Result<ObjectDigest> {
        let content = Content::of(file).with_context(|| format!("reading {}", file.display()))?;
        let digest = ObjectDigest::parse(&hex::encode(content.digest))?;
        let object = self.object(&digest);
        if !s3::exists(&self.s3, &object).await? {
            upload(&self.s3, &object, file, &content).await?;
        }
        Ok(digest)
    }

    async fn get(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        // A copy that was damaged since is replaced.
        match self.cache.fetch(digest) {
            Ok(copy) => Ok(copy),
            Err(_) => unless_interrupted(self.download(digest)).await,
        }
    }

    async fn has(&self, digest: &ObjectDigest) -> Result<bool> {
        s3::exists(&self.s3, &self.object(digest)).await
    }
}
