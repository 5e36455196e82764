//! What the agent keeps on the disk: the last values of each file, and which reloads are pending.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use crate::exit::say;
use crate::owner::Ids;
use crate::replace::{self, Access};
use crate::values::{Content, Map, Values};

/// For root alone: values may be secrets.
const ACCESS: Access = Access { mode: 0o600, owner: None };

/// A state directory that is this agent's.
#[derive(Debug, Clone)]
pub struct StateDir {
    values: PathBuf,
    pending: PathBuf,
    /// Held for as long as any clone lives.
    _lock: Arc<File>,
}

/// A file was replaced, or is about to be, and its service is to be told. Written before the first file is replaced and
/// removed after the reload: whenever the agent is killed in between, the next one knows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Pending {
    /// Whether the service worked before, so that it is the change's fault if it does not afterwards.
    pub was_healthy: bool,
    /// What stood there before.
    pub previous: Vec<Previous>,
}

/// A file as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Previous {
    /// Where it was.
    pub destination: PathBuf,
    /// What it was; `None` if there was none.
    pub file: Option<PreviousFile>,
}

/// Content, mode and owner of a file as it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PreviousFile {
    content_hex: String,
    mode: u32,
    user: u32,
    group: u32,
}

#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    revision: String,
    values: BTreeMap<String, String>,
}

impl StateDir {
    /// Makes the directory, for root alone, and takes it.
    pub fn open(path: &Path) -> Result<Self> {
        let doing = || format!("preparing the state directory {}", path.display());
        let (values, pending) = (path.join("values"), path.join("pending"));
        for directory in [&values, &pending] {
            DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(doing)?;
        }
        let lock = File::create(path.join("lock")).with_context(doing)?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)
            .context("another config-agent is at work there: ask it with `config-agent status`, or end it")
            .with_context(doing)?;
        Ok(Self { values, pending, _lock: Arc::new(lock) })
    }

    /// Keeps what a file was made from.
    pub fn remember(&self, file: &str, keys: &Map, revision: &str) -> io::Result<()> {
        let text = |content: &Content| match content {
            Content::Text(text) => Some(text.to_string()),
            Content::Binary => None,
        };
        let values = keys.iter().filter_map(|(key, content)| Some((key.to_string(), text(content)?))).collect();
        let document = serde_json::to_vec(&Remembered { revision: revision.to_owned(), values })?;
        replace::write(&self.values.join(format!("{file}.json")), &document, ACCESS)
    }

    /// What a file was made from when it was made last.
    pub fn remembered(&self, file: &str) -> Option<Values> {
        let path = self.values.join(format!("{file}.json"));
        let Remembered { revision, values } = read(&path)?;
        let values = values.into_iter().map(|(key, value)| (key.into(), value.as_str().into())).collect();
        Some(Values::new(values, revision))
    }

    /// What is pending for a batch.
    pub fn pending(&self, batch: &str) -> Option<Pending> {
        let path = self.pending_file(batch);
        // One that cannot be read still says that there is something to be done.
        path.exists().then(|| read(&path).unwrap_or_default())
    }

    /// Notes that a reload is to be done.
    pub fn note_pending(&self, batch: &str, pending: &Pending) -> io::Result<()> {
        replace::write(&self.pending_file(batch), &serde_json::to_vec(pending)?, ACCESS)
    }

    /// Notes that nothing is to be done any more.
    pub fn clear_pending(&self, batch: &str) -> io::Result<()> {
        replace::remove(&self.pending_file(batch))
    }

    fn pending_file(&self, batch: &str) -> PathBuf {
        self.pending.join(format!("{}.json", batch.replace(' ', "-")))
    }
}

impl Previous {
    /// What is there now.
    pub fn of(destination: &Path) -> io::Result<Self> {
        let file = match fs::read(destination) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => {
                let (content, access) = (other?, replace::current_access(destination)?);
                let owner = access.owner.unwrap_or(Ids { user: 0, group: 0 });
                let (user, group) = (owner.user, owner.group);
                Some(PreviousFile { content_hex: hex::encode(content), mode: access.mode, user, group })
            }
        };
        Ok(Self { destination: destination.to_owned(), file })
    }

    /// Makes it so again.
    pub fn put_back(&self) -> io::Result<()> {
        match &self.file {
            Some(PreviousFile { content_hex, mode, user, group }) => {
                let content = hex::decode(content_hex).map_err(io::Error::other)?;
                let owner = Some(Ids { user: *user, group: *group });
                replace::write(&self.destination, &content, Access { mode: *mode, owner })
            }
            None => replace::remove(&self.destination),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    let text = fs::read(path).ok()?;
    match serde_json::from_slice(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            say(&format!("{} is left out: {error}", path.display()));
            None
        }
    }
}
