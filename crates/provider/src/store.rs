//! Where artifacts are: a directory, or a bucket.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;

#[cfg(feature = "aws")]
use crate::aws::Bucket;
use crate::local::Directory;
use crate::{ObjectDigest, Objects};

/// A store of artifacts, by the name that it has on command lines and in [`manifest::Artifact::store`].
#[derive(Debug, Clone)]
pub enum Store {
    /// A directory of this machine.
    Directory(Directory),
    /// A bucket, which every machine reaches.
    #[cfg(feature = "aws")]
    Bucket(Bucket),
}

impl Store {
    /// The store `name`: the path of a directory, or `s3://BUCKET/PREFIX`. What is fetched from a bucket is kept below
    /// `cache`.
    pub async fn open(name: &str, cache: &Path) -> Result<Self> {
        const DOING: &str = "opening the artifact store";
        match name.split_once("://") {
            None => {
                let absolute = std::path::absolute(name).with_context(|| format!("store '{name}'"))?;
                Ok(Self::Directory(Directory::new(absolute)))
            }
            #[cfg(feature = "aws")]
            Some(("s3", _)) => Ok(Self::Bucket(Bucket::open(DOING, name, &cache.join("objects")).await?)),
            #[cfg(not(feature = "aws"))]
            Some(("s3", _)) => {
                let _ = cache;
                Err(crate::built_without_aws(&format!("{DOING} {name}")).into())
            }
            Some(_) => {
                let why = format!("'{name}' is neither a directory nor in S3");
                Err(BadInput::new(DOING, why, "name a directory or s3://BUCKET/PREFIX").into())
            }
        }
    }

    /// Its name: who opens it by that finds the same objects, on any machine if it is a bucket.
    pub fn name(&self) -> String {
        match self {
            Self::Directory(directory) => directory.root().display().to_string(),
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => bucket.url().to_string(),
        }
    }
}

impl Objects for Store {
    async fn put(&self, file: &Path) -> Result<ObjectDigest> {
        match self {
            Self::Directory(directory) => directory.put(file).await,
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => bucket.put(file).await,
        }
    }

    async fn get(&self, digest: &ObjectDigest) -> Result<PathBuf> {
        match self {
            Self::Directory(directory) => directory.get(digest).await,
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => bucket.get(digest).await,
        }
    }

    async fn has(&self, digest: &ObjectDigest) -> Result<bool> {
        match self {
            Self::Directory(directory) => directory.has(digest).await,
            #[cfg(feature = "aws")]
            Self::Bucket(bucket) => bucket.has(digest).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_is_a_directory_and_anything_else_is_refused_by_name() {
        let cache = Path::new("/nonexistent");
        assert_eq!(Store::open("/srv/store", cache).await.unwrap().name(), "/srv/store");
        let refused = Store::open("gs://bucket", cache).await.unwrap_err();
        assert!(refused.is::<BadInput>() && refused.to_string().contains("'gs://bucket' is neither"), "{refused}");
    }

    #[cfg(not(feature = "aws"))]
    #[tokio::test]
    async fn without_aws_a_bucket_is_refused_with_the_way_to_build() {
        let refused = Store::open("s3://bucket/prefix", Path::new("/nonexistent")).await.unwrap_err();
        assert!(refused.is::<BadInput>() && refused.to_string().contains("--features aws"), "{refused}");
    }
}
