//! From rendered files to a service that uses them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::health::{becomes_healthy, is_healthy, reload, revive};
use super::state_dir::{Pending, Previous, StateDir};
use crate::exec;
use crate::managed_file::{Health, Reload};
use crate::replace::{self, Access, Candidate};
use crate::values::Map;

/// What is to be done for a batch.
#[derive(Debug)]
pub struct Job {
    /// The batch's place in the agent's list.
    pub batch: usize,
    /// Its name.
    pub id: String,
    /// All or none.
    pub together: bool,
    /// What its files are to be.
    pub renderings: Vec<Rendering>,
    /// What is reloaded when any has changed.
    pub reloads: Vec<Reload>,
    /// How it is known that the services work.
    pub health: Vec<Health>,
    /// The digest of what was put back before.
    pub refused: Option<String>,
    /// How long a command may run.
    pub timeout: Duration,
    /// Where pending reloads and values are kept.
    pub state: StateDir,
}

/// What a file is to be.
#[derive(Debug)]
pub struct Rendering {
    /// The file's place in the agent's list.
    pub file: usize,
    /// Its name.
    pub name: String,
    /// Where it goes.
    pub destination: PathBuf,
    /// Its mode and owner.
    pub access: Access,
    /// What must accept it.
    pub check: Option<String>,
    /// What it is to hold.
    pub content: Vec<u8>,
    /// What it was made from.
    pub keys: Map,
    /// The store's name for that state.
    pub revision: String,
}

/// What became of a batch.
#[derive(Debug)]
pub struct Outcome {
    /// The batch's place in the agent's list.
    pub batch: usize,
    /// What became of each file.
    pub files: Vec<(usize, Fate)>,
    /// The digest of all that was rendered.
    pub digest: Option<String>,
    /// Why the reload is still to be done.
    pub reload_failed: Option<String>,
    /// Whether the files before are back in place.
    pub put_back: bool,
    /// Whether a reload was tried.
    pub reloaded: bool,
}

/// What became of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is new, from this revision.
    Replaced(String),
    /// It was that already, and so it is from this revision too.
    Unchanged(String),
    /// It was that already, with another mode or owner.
    Repaired(String),
    /// It stayed as it was; why. It is tried again.
    Failed(String),
    /// It stayed as it was; why. It is tried when something changes.
    Held(String),
}

/// A candidate that was accepted.
struct Change {
    at: usize,
    candidate: Candidate,
}

/// The sequence: candidates, checks, the note that a reload is pending, replacement, reload, health.
pub async fn apply(job: Job) -> Outcome {
    let mut outcome = Outcome::of(&job);
    let mut changes = Vec::new();
    if outcome.digest.is_some() && outcome.digest == job.refused {
        outcome.hold_all(&job, "the service did not work with this; it is tried again when a value changes");
    } else {
        changes = candidates(&job, &mut outcome).await;
    }
    if job.together && outcome.has_failures() {
        outcome.hold_all(&job, "another file of the group cannot be replaced");
        changes.clear();
    }
    let noted = job.state.pending(&job.id);
    if changes.is_empty() && noted.is_none() {
        remember(&job, &outcome);
        return outcome;
    }
    let was_noted = noted.is_some();
    let pending = match note(&job, noted, &changes).await {
        Ok(pending) => pending,
        Err(error) => {
            let why = format!("noting that a reload is pending: {error}");
            outcome.fail_all(&job, &changes, &why);
            outcome.reload_failed = was_noted.then_some(why);
            return outcome;
        }
    };
    if !replace_all(&job, changes, &mut outcome) && job.together {
        put_back(&job, &pending, "a file of the group could not be replaced", &mut outcome).await;
        return outcome;
    }
    outcome.reloaded = !job.reloads.is_empty();
    let reloaded = reload(&job.reloads, job.timeout).await;
    if pending.was_healthy
        && let Err(why) = becomes_healthy(&job.health, job.timeout).await
    {
        put_back(&job, &pending, &format!("the service does not work: {why}"), &mut outcome).await;
        return outcome;
    }
    remember(&job, &outcome);
    match reloaded {
        Ok(()) => outcome.reload_failed = clear(&job).err(),
        Err(why) => outcome.reload_failed = Some(why),
    }
    outcome
}

/// Candidates for all files that are not yet what they are to be, each accepted by its check.
async fn candidates(job: &Job, outcome: &mut Outcome) -> Vec<Change> {
    let mut changes = Vec::new();
    for (at, rendering) in job.renderings.iter().enumerate() {
        let fate = match candidate(rendering, job.timeout).await {
            Ok(Some(candidate)) => {
                changes.push(Change { at, candidate });
                continue;
            }
            Ok(None) => match replace::repair_access(&rendering.destination, rendering.access) {
                Ok(false) => Fate::Unchanged(rendering.revision.clone()),
                Ok(true) => Fate::Repaired(rendering.revision.clone()),
                Err(error) => Fate::Failed(format!("setting mode and owner: {error}")),
            },
            Err(why) => Fate::Failed(why),
        };
        outcome.files.push((rendering.file, fate));
    }
    changes
}

/// `None` if the file has that content already.
async fn candidate(rendering: &Rendering, timeout: Duration) -> Result<Option<Candidate>, String> {
    let destination = &rendering.destination;
    if content_of(destination).is_some_and(|content| content == rendering.content) {
        return Ok(None);
    }
    let candidate = Candidate::write(destination, &rendering.content, rendering.access)
        .map_err(|error| format!("writing beside {}: {error}", destination.display()))?;
    if let Some(check) = &rendering.check {
        let path = candidate.path().display().to_string();
        let refused = |why| format!("the check refuses the new content, and the old stays: {why}");
        let variables = [("CANDIDATE", path.as_str()), ("DESTINATION", &destination.display().to_string())];
        exec::shell(check, &variables, timeout).await.map_err(refused)?;
    }
    Ok(Some(candidate))
}

/// Notes what is about to be done, where someone must be told of it.
async fn note(job: &Job, noted: Option<Pending>, changes: &[Change]) -> io::Result<Pending> {
    // What stood there before an interrupted or failed try is what worked; what stands there now may not.
    let mut pending = match noted {
        Some(pending) => pending,
        None => Pending { was_healthy: is_healthy(&job.health, job.timeout).await, previous: Vec::new() },
    };
    if pending.was_healthy || job.together {
        for change in changes {
            let destination = &job.renderings[change.at].destination;
            if !pending.previous.iter().any(|previous| previous.destination == *destination) {
                pending.previous.push(Previous::of(destination)?);
            }
        }
    }
    if !job.reloads.is_empty() || !job.health.is_empty() {
        job.state.note_pending(&job.id, &pending)?;
    }
    Ok(pending)
}

/// Whether all could be replaced.
fn replace_all(job: &Job, changes: Vec<Change>, outcome: &mut Outcome) -> bool {
    let mut all = true;
    for Change { at, candidate } in changes {
        let rendering = &job.renderings[at];
        let fate = match candidate.commit() {
            Ok(()) => Fate::Replaced(rendering.revision.clone()),
            Err(error) => {
                all = false;
                Fate::Failed(format!("replacing {}: {error}", rendering.destination.display()))
            }
        };
        outcome.files.push((rendering.file, fate));
    }
    all
}

/// Makes everything as it was, the services included.
async fn put_back(job: &Job, pending: &Pending, why: &str, outcome: &mut Outcome) {
    let mut failures = Vec::new();
    for previous in &pending.previous {
        if let Err(error) = previous.put_back() {
            failures.push(format!("putting {} back: {error}", previous.destination.display()));
        }
    }
    outcome.hold_all(job, &format!("the files before are back in place: {why}"));
    outcome.put_back = true;
    failures.extend(revive(&job.reloads, job.timeout).await.err());
    if pending.was_healthy {
        let still = |why| format!("the service does not work with what worked before: {why}");
        failures.extend(becomes_healthy(&job.health, job.timeout).await.err().map(still));
    }
    if failures.is_empty() {
        failures.extend(clear(job).err());
    }
    outcome.reload_failed = (!failures.is_empty()).then(|| failures.join("; "));
}

fn clear(job: &Job) -> Result<(), String> {
    job.state.clear_pending(&job.id).map_err(|error| format!("noting that the reload is done: {error}"))
}

/// Keeps the values of all files that are as they should be, for a start without the store.
fn remember(job: &Job, outcome: &Outcome) {
    for rendering in &job.renderings {
        let good = |fate: &Fate| !matches!(fate, Fate::Failed(_) | Fate::Held(_));
        if outcome.files.iter().any(|(file, fate)| *file == rendering.file && good(fate))
            && let Err(error) = job.state.remember(&rendering.name, &rendering.keys, &rendering.revision)
        {
            crate::exit::say(&format!("{}: keeping its values for a start without the store: {error}", rendering.name));
        }
    }
}

fn content_of(path: &Path) -> Option<Vec<u8>> {
    fs::read(path).ok()
}

impl Outcome {
    fn of(job: &Job) -> Self {
        let mut digest = Sha256::new();
        for rendering in &job.renderings {
            digest.update(Sha256::digest(&rendering.content));
        }
        Self {
            batch: job.batch,
            files: Vec::new(),
            digest: (!job.renderings.is_empty()).then(|| hex::encode(digest.finalize())),
            reload_failed: None,
            put_back: false,
            reloaded: false,
        }
    }

    /// Whether something failed that may succeed without a change in the store.
    pub fn is_to_be_tried_again(&self) -> bool {
        self.reload_failed.is_some() || self.has_failures()
    }

    /// The files that are tried again.
    pub fn failed_files(&self) -> impl Iterator<Item = usize> {
        self.files.iter().filter(|(_, fate)| matches!(fate, Fate::Failed(_))).map(|(file, _)| *file)
    }

    fn has_failures(&self) -> bool {
        self.failed_files().next().is_some()
    }

    /// No file is changed; those that failed keep their own reason.
    fn hold_all(&mut self, job: &Job, why: &str) {
        for rendering in &job.renderings {
            match self.files.iter_mut().find(|(file, _)| *file == rendering.file) {
                Some((_, Fate::Failed(_))) => (),
                Some((_, fate)) => *fate = Fate::Held(why.to_owned()),
                None => self.files.push((rendering.file, Fate::Held(why.to_owned()))),
            }
        }
    }

    fn fail_all(&mut self, job: &Job, changes: &[Change], why: &str) {
        self.files.extend(changes.iter().map(|change| (job.renderings[change.at].file, Fate::Failed(why.to_owned()))));
    }
}
