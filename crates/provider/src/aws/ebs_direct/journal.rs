//! What a run writes down of an upload, so that one after it goes on where it was killed.
//!
//! In the cache, `uploads/REGION-DIGEST/`: `KEY.json` is what StartSnapshot is asked for the upload with this key,
//! written before it is, and `SNAPSHOT` has a line for each block that the snapshot has. To lose them costs time and
//! nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// After this, whoever asks for pending snapshots is told of one that was started (coldsnap#43).
pub(super) const KNOWN_AFTER: Duration = Duration::from_secs(120);
/// Lines after which they are made to outlive a power failure: 256 MiB of content.
const SYNC_EVERY: usize = 512;
/// The line that says that the snapshot was completed.
const COMPLETE: &str = "complete";

/// What differs between two requests to start the same upload. AWS takes a token again only with the same parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    /// The ClientToken.
    pub token: String,
    /// The snapshot's tags.
    pub tags: BTreeMap<String, String>,
    /// When it was first made.
    pub begun: Timestamp,
}

/// Where the uploads of one content to one region are written down.
pub(super) struct Journal(PathBuf);

impl Journal {
    /// That of the content with this digest, in the directory `cache`.
    pub fn of(cache: &Path, region: &str, digest: &str) -> Self {
        Self(cache.join("uploads").join(format!("{region}-{digest}")))
    }

    /// The request that a killed run may have made a moment ago, or else a new one with these tags.
    pub fn request(&self, key: &str, tags: BTreeMap<String, String>) -> Result<Request> {
        let path = self.0.join(format!("{key}.json"));
        let doing = || format!("writing {}", path.display());
        let now = Timestamp::now();
        let last: Option<Request> = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let known = SignedDuration::try_from(KNOWN_AFTER)?;
        if let Some(last) = last.filter(|last| now.duration_since(last.begun).abs() < known) {
            return Ok(last);
        }
        let token = hex::encode(Sha256::digest(format!("{key} {now}")));
        let request = Request { token, tags, begun: now };
        fs::create_dir_all(&self.0).with_context(doing)?;
        let mut temporary = tempfile::NamedTempFile::new_in(&self.0).with_context(doing)?;
        temporary.write_all(&serde_json::to_vec(&request)?).with_context(doing)?;
        temporary.as_file().sync_all().with_context(doing)?;
        temporary.persist(&path).with_context(doing)?;
        Ok(request)
    }

    /// What has been done for this snapshot.
    pub fn progress(&self, snapshot: &str) -> Result<Progress> {
        let path = self.0.join(snapshot);
        let doing = || format!("reading {}", path.display());
        fs::create_dir_all(&self.0).with_context(doing)?;
        let text = match fs::read_to_string(&path) {
            // What a power failure leaves need not be text.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData) => String::new(),
            text => text.with_context(doing)?,
        };
        // The last line may have been cut off, and then names another block.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let file = OpenOptions::new().create(true).append(true).open(&path).with_context(doing)?;
        file.set_len(whole.len() as u64).with_context(doing)?;
        Ok(Progress {
            put: whole.lines().filter_map(|line| line.parse().ok()).collect(),
            is_complete: whole.lines().any(|line| line == COMPLETE),
            file,
            unsynced: 0,
        })
    }

    /// Forgets the uploads: the image is published.
    pub fn remove(self) -> Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", self.0.display()))
            }
            _ => Ok(()),
        }
    }
}

/// What has been done for a snapshot.
pub(super) struct Progress {
    put: BTreeSet<usize>,
    /// Whether it has been completed.
    pub is_complete: bool,
    file: File,
    unsynced: usize,
}

impl Progress {
    /// Whether the snapshot has this block.
    pub fn has(&self, block: usize) -> bool {
        self.put.contains(&block)
    }

    /// The snapshot has this block now.
    pub fn add(&mut self, block: usize) -> Result<()> {
        self.put.insert(block);
        self.write(&block.to_string())
    }

    /// The snapshot takes no more blocks.
    pub fn complete(&mut self) -> Result<()> {
        self.is_complete = true;
        self.write(COMPLETE)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        self.file.write_all(format!("{line}\n").as_bytes()).context("writing down what has been uploaded")?;
        self.unsynced += 1;
        if self.unsynced == SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().context("writing down what has been uploaded")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_is_known_to_the_next_run_and_a_line_that_was_cut_off_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let journal = Journal::of(cache.path(), "us-east-1", "digest");
        let mut first = journal.progress("snap-1").unwrap();
        [3, 12].into_iter().for_each(|block| first.add(block).unwrap());
        first.file.write_all(b"34").unwrap();

        let mut second = journal.progress("snap-1").unwrap();
        second.add(34567).unwrap();
        second.complete().unwrap();
        let third = journal.progress("snap-1").unwrap();
        assert_eq!(third.put, [3, 12, 34567].into());
        assert!(third.is_complete);

        assert!(!journal.progress("snap-2").unwrap().has(3));
    }

    #[test]
    fn a_request_is_made_again_as_it_was_while_aws_may_not_know_its_snapshot_yet() {
        let cache = tempfile::tempdir().unwrap();
        let journal = Journal::of(cache.path(), "us-east-1", "digest");
        let tags = |expires: &str| BTreeMap::from([("kiln:expires".to_owned(), expires.to_owned())]);
        let first = journal.request("key", tags("1")).unwrap();
        assert!(first.token.len() <= 64, "AWS's limit");
        assert_eq!(journal.request("key", tags("2")).unwrap(), first);

        let old = Request { begun: first.begun - SignedDuration::from_secs(121), ..first.clone() };
        fs::write(journal.0.join("key.json"), serde_json::to_vec(&old).unwrap()).unwrap();
        let later = journal.request("key", tags("3")).unwrap();
        assert_ne!(later.token, first.token);
        assert_eq!(later.tags, tags("3"));
    }
}
