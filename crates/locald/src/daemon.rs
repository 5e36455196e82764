//! Programs that locald keeps running.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cli::Command;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::kept::Kept;

/// How long a program may take until it does its work.
const READY: Duration = Duration::from_secs(10);
/// How long a program may take to end.
const END: Duration = Duration::from_secs(5);
/// A program is ready a few milliseconds after its start.
const POLL: Duration = Duration::from_millis(5);
/// How long the first wait before another start is; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// What ran this long and ended is started again as if it had never failed.
const RAN_WELL: Duration = Duration::from_secs(30);

/// Waits between starts of what keeps ending.
#[derive(Default)]
pub struct Pauses {
    next: Option<Duration>,
}

impl Pauses {
    /// How long to wait before starting again what ran since `started`.
    pub fn after(&mut self, started: Instant) -> Duration {
        if started.elapsed() > RAN_WELL {
            self.next = None;
        }
        let pause = self.next.unwrap_or(FIRST_PAUSE);
        self.next = Some((pause * 2).min(LONGEST_PAUSE));
        pause
    }
}

/// Waits until it is said.
pub async fn said(what: &mut watch::Receiver<bool>) {
    let _ = what.wait_for(|said| *said).await;
}

type Make = Box<dyn Fn() -> Result<Command> + Send + Sync>;
type Ready = Box<dyn Fn(&Kept) -> bool + Send + Sync>;

/// A program that is to run until it is told to end.
pub struct Daemon {
    directory: PathBuf,
    make: Make,
    ready: Ready,
    current: Mutex<Option<Arc<Kept>>>,
    ending: watch::Sender<bool>,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// An error unless `program` is installed: what becomes it could say so only in a log.
pub fn require(program: &str) -> Result<()> {
    let package = cli::host::package_of(program);
    match cli::host::has(program) {
        true => Ok(()),
        false => Err(cli::CommandError::Missing { program: program.to_owned(), package }.into()),
    }
}

/// A [`Command`] that becomes a program whose process is recorded in `directory`, where also its output goes.
pub fn kept_command(directory: &Path, netns: Option<&Path>, program: &str) -> Result<Command> {
    require(program)?;
    let log = directory.join("log");
    let log = OpenOptions::new().create(true).append(true).open(&log).context("opening a log")?;
    let error_log = log.try_clone().context("opening a log")?;
    let command = Command::new("/proc/self/exe").args(["become-kept", "--directory"]).arg(directory);
    let command = match netns {
        Some(netns) => command.arg("--netns").arg(netns),
        None => command,
    };
    Ok(command.arg("--").arg(program).current_dir("/").configure(|command| {
        command.stdout(log).stderr(error_log);
    }))
}

impl Daemon {
    /// Adopts the program that is recorded in `directory`, or starts it, and keeps it running.
    ///
    /// `make` says what to start, every time anew; `ready` whether it does its work.
    pub async fn start(directory: &Path, make: Make, ready: Ready) -> Result<Arc<Self>> {
        let daemon = Arc::new(Self {
            directory: directory.to_owned(),
            make,
            ready,
            current: Mutex::default(),
            ending: watch::Sender::new(false),
            task: Mutex::default(),
        });
        let kept = match Kept::adopt(directory) {
            Some(kept) => Arc::new(kept),
            None => daemon.launch().await?,
        };
        let task = tokio::spawn(daemon.clone().keep(kept));
        *daemon.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
        Ok(daemon)
    }

    /// Tells it to read its files again.
    pub fn reload(&self) {
        if let Some(kept) = self.current() {
            kept.signal(Signal::HUP);
        }
    }

    /// Ends it, and returns when it is gone.
    pub async fn end(&self) {
        self.ending.send_replace(true);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            let _ = task.await;
        }
    }

    fn current(&self) -> Option<Arc<Kept>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn keep(self: Arc<Self>, mut kept: Arc<Kept>) {
        let mut ending = self.ending.subscribe();
        let mut pauses = Pauses::default();
        loop {
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept.clone());
            let started = Instant::now();
            tokio::select! {
                () = kept.ended() => tracing::warn!(directory = %self.directory.display(), "ended, and is started again"),
                () = said(&mut ending) => break kept.end(END).await,
            }
            kept = loop {
                match self.launch().await {
                    Ok(kept) => break kept,
                    Err(error) => tracing::error!("{error:#}"),
                }
                tokio::select! {
                    () = tokio::time::sleep(pauses.after(started)) => {}
                    () = said(&mut ending) => return,
                }
            };
        }
    }

    async fn launch(&self) -> Result<Arc<Kept>> {
        fs::create_dir_all(&self.directory).with_context(|| format!("creating {}", self.directory.display()))?;
        let log = self.directory.join("log");
        let before = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let kept = Arc::new(Kept::child(&(self.make)()?.spawn()?)?);
        let deadline = Instant::now() + READY;
        while !(self.ready)(&kept) {
            let ended = tokio::time::timeout(POLL, kept.ended()).await.is_ok();
            if ended || Instant::now() > deadline {
                kept.end(END).await;
                let said = fs::read(&log).unwrap_or_default();
                let said = String::from_utf8_lossy(said.get(before as usize..).unwrap_or_default()).into_owned();
                let how = if ended { "ended at once" } else { "did not become ready" };
                bail!("the program of {} {how}:\n{}", self.directory.display(), said.trim_end());
            }
        }
        Ok(kept)
    }
}
