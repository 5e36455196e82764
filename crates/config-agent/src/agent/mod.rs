//! The agent: it hears of changes, waits until they are complete, and makes files of them.
//!
//! One loop owns everything and never ends by a failure. It hears from the store, from the clock, from applications
//! that end and from whoever asks for the status; nothing wakes it when there is nothing to do.

mod apply;
mod batch;
mod health;
mod readers;
mod reports;
mod state_dir;

use std::future::pending;
use std::pin::pin;

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::exit::{ExitCode, say};
use crate::managed_file::ManagedFile;
use crate::settings::Settings;
use crate::status::{self, Connection, Counters};
use crate::store::Store;
use crate::template::Templates;
use crate::values::{Selector, Update, Values, fewest};
use apply::{Job, Outcome, Rendering, apply};
use batch::Batch;
use readers::Readers;
use reports::Standing;
use state_dir::StateDir;

/// How many messages of the store may wait. The store's own connection holds back what is more.
const WAITING: usize = 64;

/// How many batches are applied at once: what is rendered for each is in memory until it is on the disk.
const AT_ONCE: usize = 64;

/// Everything that is kept, and what is known of it.
#[derive(Debug)]
pub struct Agent {
    settings: Settings,
    files: Vec<ManagedFile>,
    templates: Templates,
    batches: Vec<Batch>,
    readers: Readers,
    state: StateDir,
    /// `None` until the store, or the cache, has said something.
    values: Option<Values>,
    standings: Vec<Standing>,
    connection: Connection,
    counters: Counters,
    started: Timestamp,
    ready: bool,
}

impl Agent {
    /// Takes the state directory, in which only one agent may work.
    pub fn new(settings: Settings, files: Vec<ManagedFile>, templates: Templates) -> Result<Self> {
        let state = StateDir::open(&settings.state_dir)?;
        let mut batches = Batch::all(&files);
        for batch in &mut batches {
            batch.reload_pending = state.pending(&batch.id).is_some();
        }
        Ok(Self {
            readers: Readers::of_all(&batches, &files),
            standings: files.iter().map(|_| Standing::default()).collect(),
            settings,
            files,
            templates,
            batches,
            state,
            values: None,
            connection: Connection::default(),
            counters: Counters::default(),
            started: Timestamp::now(),
            ready: false,
        })
    }

    /// The store with all keys that the files are made from.
    pub fn store(&self) -> Store {
        store_of(&self.settings, &self.files)
    }

    /// Follows the store until a signal ends it.
    pub async fn run(mut self) -> Result<ExitCode> {
        let listener = status::socket::listen(&self.settings.socket)?;
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let (sender, mut updates) = mpsc::channel(WAITING);
        let store = self.store();
        let mut following = pin!(store.follow(&sender));
        let mut applying = FuturesUnordered::new();
        let code = loop {
            let due = self.next_due();
            tokio::select! {
                () = &mut following => pending().await,
                Some(update) = updates.recv() => self.hear(update),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() && applying.len() < AT_ONCE => {
                    applying.extend(self.due_job().map(apply));
                }
                Some(outcome) = applying.next() => self.finish(&outcome),
                asked = listener.accept() => self.answer(asked),
                _ = terminate.recv() => break ExitCode::Done,
                _ = interrupt.recv() => break ExitCode::Interrupted,
            }
            self.tell_when_ready();
        };
        // What has begun is completed: a file that is in place is also told to its service.
        while let Some(outcome) = applying.next().await {
            self.finish(&outcome);
        }
        status::socket::remove(&self.settings.socket);
        Ok(code)
    }

    /// Makes all files from `values` once. The problems that are left.
    pub async fn once(mut self, values: Values) -> Vec<String> {
        self.values = Some(values);
        self.touch_all();
        let mut applying = FuturesUnordered::new();
        loop {
            while applying.len() < AT_ONCE
                && let Some(job) = self.due_job()
            {
                applying.push(apply(job));
            }
            match applying.next().await {
                Some(outcome) => self.finish(&outcome),
                None => break,
            }
        }
        self.problems()
    }

    fn hear(&mut self, update: Update) {
        self.counters.updates += 1;
        match update {
            Update::Lost(why) => {
                if self.connection.lose(&why) {
                    say(&format!("the store is lost, and the files stay as they are: {why}"));
                }
                if self.values.is_none() && !self.connection.cache_was_used {
                    self.connection.cache_was_used = true;
                    self.start_from_cache();
                }
            }
            update => {
                if self.connection.regain() {
                    say(&format!("connected to the store at {}", self.store().address()));
                }
                let Some(values) = &mut self.values else {
                    let mut values = Values::default();
                    values.take(update);
                    self.values = Some(values);
                    return self.touch_all();
                };
                let now = Instant::now();
                for key in values.take(update) {
                    for (batch, file) in self.readers.of(&key) {
                        self.batches[batch].touch(file, now);
                    }
                }
            }
        }
    }

    fn touch_all(&mut self) {
        for batch in &mut self.batches {
            batch.touch_all_now();
        }
    }

    /// The store is down at the start: files that are missing are made from what it said last. Those that are there
    /// stay as they are, but a group is made as a whole. A reload that was pending is made.
    fn start_from_cache(&mut self) {
        for batch in &mut self.batches {
            let mut files = batch.files.clone();
            files.retain(|&file| !self.files[file].destination.exists());
            if batch.together && (batch.reload_pending || !files.is_empty()) {
                files.clone_from(&batch.files);
            }
            if batch.reload_pending || !files.is_empty() {
                batch.touch_now(&files);
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        self.batches.iter().filter_map(Batch::due).min()
    }

    /// What is to be done for the next batch that is due and has anything to be done.
    fn due_job(&mut self) -> Option<Job> {
        let now = Instant::now();
        loop {
            let due = self.batches.iter().position(|batch| batch.due().is_some_and(|due| due <= now))?;
            let job = self.job(due);
            if job.is_some() {
                return job;
            }
        }
    }

    /// What is to be done for a batch, if anything.
    fn job(&mut self, at: usize) -> Option<Job> {
        let touched = self.batches[at].begin();
        let mut renderings = Vec::new();
        let mut problem = None;
        for file in touched {
            match self.render(file) {
                Ok(rendering) => renderings.extend(rendering),
                Err(why) => {
                    let name = self.files[file].name.clone();
                    self.standings[file].is_not_made(&name, &why);
                    problem.get_or_insert(name);
                }
            }
        }
        let batch = &mut self.batches[at];
        if let Some(of) = problem.filter(|_| batch.together) {
            for rendering in renderings.drain(..) {
                self.standings[rendering.file].is_held_back(&of);
            }
        }
        if renderings.is_empty() && !batch.reload_pending {
            batch.rest();
            return None;
        }
        Some(Job {
            batch: at,
            id: batch.id.clone(),
            together: batch.together,
            renderings,
            reloads: batch.reloads.clone(),
            health: batch.health.clone(),
            refused: batch.refused.clone(),
            timeout: self.settings.command_timeout.into(),
            state: self.state.clone(),
        })
    }

    /// What a file is to be. `None` while the store has said nothing, and the cache neither.
    fn render(&self, file: usize) -> Result<Option<Rendering>, String> {
        let its = &self.files[file];
        let cached;
        let values = match &self.values {
            Some(values) => values,
            None => match self.state.remembered(&its.name) {
                Some(values) => {
                    cached = values;
                    &cached
                }
                None => return Ok(None),
            },
        };
        let used = its.used(values).map_err(|problem| problem.to_string())?;
        let content = self.templates.render(&its.template, used.variables)?;
        if content.trim().is_empty() {
            return Err("the template renders to nothing, and a blank file is never written".to_owned());
        }
        Ok(Some(Rendering {
            file,
            name: its.name.clone(),
            destination: its.destination.clone(),
            access: its.access,
            check: its.check.clone(),
            content: content.into_bytes(),
            keys: used.keys,
            revision: values.revision().to_owned(),
        }))
    }

    fn finish(&mut self, outcome: &Outcome) {
        let batch = &mut self.batches[outcome.batch];
        self.counters.count(outcome);
        for (file, fate) in &outcome.files {
            let name = &self.files[*file].name;
            self.standings[*file].is_applied(name, &self.files[*file].destination, fate);
        }
        if let Some(why) = &outcome.reload_failed {
            say(&format!("{}: the reload is still to be done: {why}", batch.id));
        }
        batch.finish(outcome, Instant::now());
    }

    /// Tells systemd when every file is there for the first time: services that need them may start then.
    fn tell_when_ready(&mut self) {
        let knows = self.values.is_some() || self.connection.cache_was_used;
        if self.ready || !knows || !self.batches.iter().all(Batch::is_at_rest) {
            return;
        }
        self.ready = self.files.iter().all(|file| file.destination.exists());
        if self.ready
            && let Err(error) = sd_notify::notify(&[NotifyState::Ready])
        {
            say(&format!("telling systemd that the files are there: {error}"));
        }
    }

    fn answer(&self, asked: std::io::Result<(tokio::net::UnixStream, tokio::net::unix::SocketAddr)>) {
        match asked {
            Ok((stream, _)) => status::socket::answer(stream, &self.report()),
            Err(error) => say(&format!("answering on {}: {error}", self.settings.socket.display())),
        }
    }
}

/// The store of `settings` with all keys that `files` are made from.
pub fn store_of(settings: &Settings, files: &[ManagedFile]) -> Store {
    let selectors: Vec<Selector> = files.iter().flat_map(ManagedFile::selectors).cloned().collect();
    Store::new(settings.store.clone(), fewest(selectors))
}
