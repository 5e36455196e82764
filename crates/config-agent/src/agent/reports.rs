//! What the agent says of itself.

use std::fs;
use std::path::Path;

use jiff::Timestamp;

use super::Agent;
use super::apply::{Fate, Outcome};
use super::batch::Batch;
use crate::exit::say;
use crate::status::{Counters, FileReport, FileState, Report, StoreReport};

/// How a file stands.
#[derive(Debug, Default)]
pub struct Standing {
    revision: Option<String>,
    since: Option<Timestamp>,
    problem: Option<String>,
}

impl Standing {
    /// It cannot be made from what the store has.
    pub fn is_not_made(&mut self, name: &str, why: &str) {
        self.has_problem(name, why.to_owned());
    }

    /// It could be made, but its group cannot.
    pub fn is_held_back(&mut self, of: &str) {
        self.problem = Some(format!("it waits for '{of}' of its group"));
    }

    /// It was applied, or not.
    pub fn is_applied(&mut self, name: &str, destination: &Path, fate: &Fate) {
        let (revision, told) = match fate {
            Fate::Replaced(revision) => (revision, Some("is new")),
            Fate::Repaired(revision) => (revision, Some("has its mode and owner again")),
            Fate::Unchanged(revision) => (revision, None),
            Fate::Failed(why) | Fate::Held(why) => return self.has_problem(name, why.clone()),
        };
        if let Some(told) = told {
            say(&format!("{name}: {} {told}, from revision {revision}", destination.display()));
        }
        self.revision = Some(revision.clone());
        let modified = fs::metadata(destination).and_then(|metadata| metadata.modified()).ok();
        self.since = modified.and_then(|time| Timestamp::try_from(time).ok());
        self.problem = None;
    }

    /// Said once, and kept until it is over.
    fn has_problem(&mut self, name: &str, why: String) {
        if self.problem.as_ref() != Some(&why) {
            say(&format!("{name}: {why}"));
        }
        self.problem = Some(why);
    }
}

impl Agent {
    /// What is not as it should be.
    pub(super) fn problems(&self) -> Vec<String> {
        let files = self.files.iter().zip(&self.standings);
        let of_files = files.filter_map(|(file, its)| its.problem.as_ref().map(|why| format!("{}: {why}", file.name)));
        let pending = self.batches.iter().filter(|batch| batch.reload_pending);
        of_files.chain(pending.map(|batch| format!("{}: the reload is still to be done", batch.id))).collect()
    }

    /// Everything, for `config-agent status`.
    pub(super) fn report(&self) -> Report {
        let mut files = Vec::new();
        for batch in &self.batches {
            files.extend(batch.files.iter().map(|&file| self.file_report(batch, file)));
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            store: StoreReport {
                kind: self.settings.store.kind().to_owned(),
                address: self.store().address(),
                connected: self.connection.connected,
                since: self.connection.since.unwrap_or(self.started),
                problem: self.connection.problem.clone(),
                revision: self.values.as_ref().map(|values| values.revision().to_owned()),
            },
            files,
            counters: self.counters.clone(),
        }
    }

    fn file_report(&self, batch: &Batch, file: usize) -> FileReport {
        let (its, standing) = (&self.files[file], &self.standings[file]);
        let state = if standing.problem.is_some() {
            FileState::Failed
        } else if batch.is_waiting_for(file) {
            FileState::Waiting
        } else if standing.revision.is_some() {
            FileState::Current
        } else {
            FileState::Unknown
        };
        FileReport {
            name: its.name.clone(),
            destination: its.destination.clone(),
            state,
            revision: standing.revision.clone(),
            since: standing.since,
            problem: standing.problem.clone(),
            reload_pending: batch.reload_pending,
        }
    }
}

impl Counters {
    /// Adds what became of a batch.
    pub(super) fn count(&mut self, outcome: &Outcome) {
        let replaced = outcome.files.iter().filter(|(_, fate)| matches!(fate, Fate::Replaced(_))).count();
        self.replacements += replaced as u64;
        self.failures += outcome.failed_files().count() as u64;
        self.reloads += u64::from(outcome.reloaded);
        self.reload_failures += u64::from(outcome.reload_failed.is_some());
        self.put_back += u64::from(outcome.put_back);
    }
}
