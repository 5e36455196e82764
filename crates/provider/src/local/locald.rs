//! Finding, starting and asking the supervisor.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use cli::process::ProcessId;
use reqwest::{Client, Method};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Local;
use super::api::{API_VERSION, Failure, Hello, Place};

/// How long locald may take until it answers: it adopts what runs first, and waits for one that is just ending.
const START: Duration = Duration::from_secs(20);
/// How long locald may take to hand over: it only has to close its socket.
const HANDOVER: Duration = Duration::from_secs(20);
/// How long any request may take. The longest, destroying a service, waits for every instance to shut down.
const REQUEST: Duration = Duration::from_secs(180);
/// A process starts in a few milliseconds.
const POLL: Duration = Duration::from_millis(10);

/// A running locald that speaks this client's version of the interface.
pub(super) struct Locald {
    client: Client,
}

impl Locald {
    /// The one that runs, if one does.
    pub(super) async fn find(place: &Place) -> Result<Option<Self>> {
        let (locald, hello) = match Self::connect(place).await? {
            Some(found) => found,
            None => return Ok(None),
        };
        Ok((hello.api == API_VERSION).then_some(locald))
    }

    /// The one that runs, or else a new one.
    pub(super) async fn find_or_start(place: &Place) -> Result<Self> {
        if let Some(locald) = Self::find(place).await? {
            return Ok(locald);
        }
        fs::create_dir_all(place.locald()).with_context(|| format!("creating {}", place.locald().display()))?;
        let starting = File::create(place.locald().join("starting")).context("starting locald")?;
        // Not `lock`, which stops the thread: another task on it may be the one that starts locald.
        while let Err(error) = starting.try_lock() {
            match error {
                TryLockError::WouldBlock => tokio::time::sleep(POLL).await,
                TryLockError::Error(error) => return Err(error).context("starting locald"),
            }
        }
        // Another command may have started it in the meantime, and an old one has to hand over first.
        match Self::connect(place).await? {
            Some((locald, hello)) if hello.api == API_VERSION => return Ok(locald),
            Some((locald, hello)) => locald.hand_over(hello.process).await?,
            None => {}
        }
        Self::start(place).await
    }

    async fn connect(place: &Place) -> Result<Option<(Self, Hello)>> {
        let socket = place.socket();
        if !socket.exists() {
            return Ok(None);
        }
        let client = Client::builder().unix_socket(socket).timeout(REQUEST).build()?;
        let locald = Self { client };
        match locald.client.get("http://locald/hello").send().await {
            Ok(answer) => Ok(Some((locald, answer.json().await.context("asking locald for its version")?))),
            // It is about to end, or was killed and left its socket.
            Err(_) => Ok(None),
        }
    }

    async fn hand_over(&self, old: ProcessId) -> Result<()> {
        let _: () = self.ask(Method::POST, "handover", &()).await?;
        let deadline = Instant::now() + HANDOVER;
        while old.is_alive() {
            if Instant::now() > deadline {
                bail!("locald (pid {}) is of another version and does not hand over: end it with `kill {0}`", old.pid);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    async fn start(place: &Place) -> Result<Self> {
        let program = install(place)?;
        let log_path = place.locald().join("log");
        let log = OpenOptions::new().create(true).append(true).open(&log_path).context("opening the log of locald")?;
        let before = log.metadata()?.len();
        let mut child = cli::Command::new(&program)
            .args(["run", "--state-dir"])
            .arg(place.state())
            .env("KILN_LOG", std::env::var("KILN_LOG").unwrap_or_else(|_| "info".to_owned()))
            .env("NO_COLOR", "1")
            .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
            .current_dir("/")
            .configure(|command| {
                command.stdout(Stdio::null()).stderr(log);
            })
            .spawn()
            .context("starting locald")?;
        let deadline = Instant::now() + START;
        loop {
            if let Some((locald, _)) = Self::connect(place).await? {
                return Ok(locald);
            }
            let ended = child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let said = fs::read(&log_path).unwrap_or_default();
                let said = String::from_utf8_lossy(said.get(before as usize..).unwrap_or_default()).into_owned();
                let how = ended.map_or("does not answer".to_owned(), |status| format!("ended ({status})"));
                bail!("locald {how}; its log {} says:\n{}", log_path.display(), said.trim_end());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends a request; the answer, or locald's own words as the error.
    pub(super) async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let answer = self.client.request(method, format!("http://locald/{path}")).json(body).send().await;
        let answer = answer.with_context(|| format!("asking locald for {path}"))?;
        let success = answer.status().is_success();
        let body = answer.bytes().await.with_context(|| format!("reading locald's answer to {path}"))?;
        if success {
            return serde_json::from_slice(&body).with_context(|| format!("reading locald's answer to {path}"));
        }
        Err(match serde_json::from_slice::<Failure>(&body) {
            Ok(failure) => anyhow!(failure.error),
            Err(_) => anyhow!("locald does not know {path}: it is of another version"),
        })
    }
}

/// Copies the program into the state directory: it outlives the checkout that built it.
fn install(place: &Place) -> Result<PathBuf> {
    let source = source()?;
    let program = place.locald().join("locald");
    let doing = || format!("copying {} to {}", source.display(), program.display());
    let copy = tempfile::Builder::new().prefix(".new-").tempfile_in(place.locald()).with_context(doing)?;
    // Closed before it is renamed: a file that is open for writing cannot be executed.
    let copy = copy.into_temp_path();
    fs::copy(&source, &copy).with_context(doing)?;
    copy.persist(&program).with_context(doing)?;
    Ok(program)
}

fn source() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("KILN_LOCALD") {
        return Ok(named.into());
    }
    let this = std::env::current_exe().context("finding the running program")?;
    let beside = this.parent().unwrap_or(Path::new("/")).join("locald");
    if !beside.is_file() {
        bail!(
            "the program locald is not beside {}: build it (`cargo build --package locald`) or name it in KILN_LOCALD",
            this.display()
        );
    }
    Ok(beside)
}

impl Local {
    pub(super) fn place(&self) -> Result<Place> {
        Place::of(&self.state)
    }

    /// The supervisor, which is started if it does not run.
    pub(super) async fn locald(&self) -> Result<Locald> {
        Locald::find_or_start(&self.place()?).await
    }
}
