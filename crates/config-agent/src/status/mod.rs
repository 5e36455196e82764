//! What `config-agent status` tells: the agent writes a report to whoever connects to its socket.

mod metrics;
pub mod socket;
mod text;

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use metrics::metrics;
pub use text::text;

/// The whole report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The agent's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// The store.
    pub store: StoreReport,
    /// Every file, by name.
    pub files: Vec<FileReport>,
    /// What was done since the start.
    pub counters: Counters,
}

/// The store as the agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoreReport {
    /// Which kind it is.
    pub kind: String,
    /// Where it is.
    pub address: String,
    /// Whether it is followed now.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Timestamp,
    /// Why it is not.
    pub problem: Option<String>,
    /// Its state as the agent last heard of it.
    pub revision: Option<String>,
}

/// A file as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileReport {
    /// The name of its TOML file.
    pub name: String,
    /// Where it is.
    pub destination: PathBuf,
    /// How it stands.
    pub state: FileState,
    /// The store's state that it was made from last.
    pub revision: Option<String>,
    /// When its content was written.
    pub since: Option<Timestamp>,
    /// Why it is not what the store says.
    pub problem: Option<String>,
    /// Whether a service has yet to be told of it.
    pub reload_pending: bool,
}

/// How a file stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileState {
    /// It is what the store says.
    Current,
    /// A change is on its way.
    Waiting,
    /// It could not be made or replaced, and is as it was.
    Failed,
    /// The store has said nothing yet.
    Unknown,
}

/// What was done since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Messages of the store.
    pub updates: u64,
    /// Files replaced.
    pub replacements: u64,
    /// Files that could not be replaced, each time that it was tried.
    pub failures: u64,
    /// Reloads tried.
    pub reloads: u64,
    /// Reloads that failed.
    pub reload_failures: u64,
    /// Times that the files before were put back.
    pub put_back: u64,
}

/// The connection to the store.
#[derive(Debug, Default)]
pub struct Connection {
    /// Whether it is there.
    pub connected: bool,
    /// Since when it is, or is not.
    pub since: Option<Timestamp>,
    /// Why it is not.
    pub problem: Option<String>,
    /// Whether files were made from the cache, as the store was down at the start.
    pub cache_was_used: bool,
}

impl Connection {
    /// It is lost, or still is. Whether that is news.
    pub fn lose(&mut self, why: &str) -> bool {
        let news = self.connected || self.since.is_none();
        if news {
            self.since = Some(Timestamp::now());
        }
        self.connected = false;
        self.problem = Some(why.to_owned());
        news
    }

    /// It is there. Whether that is news.
    pub fn regain(&mut self) -> bool {
        if self.connected {
            return false;
        }
        *self = Self { connected: true, since: Some(Timestamp::now()), problem: None, ..*self };
        true
    }
}

impl Report {
    /// Whether everything is as it should be.
    pub fn is_good(&self) -> bool {
        let good =
            |file: &FileReport| matches!(file.state, FileState::Current | FileState::Waiting) && !file.reload_pending;
        self.store.connected && self.files.iter().all(good)
    }
}

#[cfg(test)]
fn example() -> Report {
    let time = |text: &str| text.parse::<Timestamp>().unwrap();
    Report {
        version: "0.1.0".into(),
        pid: 7,
        started: time("2026-01-02T03:04:05Z"),
        store: StoreReport {
            kind: "etcd".into(),
            address: "http://127.0.0.1:2379".into(),
            connected: false,
            since: time("2026-01-02T03:05:00Z"),
            problem: Some("no answer within 10s".into()),
            revision: Some("42".into()),
        },
        files: vec![
            FileReport {
                name: "hello".into(),
                destination: "/etc/hello.conf".into(),
                state: FileState::Current,
                revision: Some("41".into()),
                since: Some(time("2026-01-02T03:04:06Z")),
                problem: None,
                reload_pending: false,
            },
            FileReport {
                name: "web".into(),
                destination: "/etc/web.conf".into(),
                state: FileState::Failed,
                revision: None,
                since: None,
                problem: Some("the store has no /web/port, which is required".into()),
                reload_pending: true,
            },
        ],
        counters: Counters { updates: 3, replacements: 1, ..Counters::default() },
    }
}
