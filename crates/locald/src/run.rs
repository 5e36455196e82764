//! `locald run`: supervises, until there is nothing to supervise.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cli::ExitCode;
use cli::process::ProcessId;
use provider::local::api::{Place, write_json};
use rustix::fs::Mode;
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::api::{self, Clients};
use crate::daemon::said;
use crate::locald::Locald;
use crate::sweep;

/// How long it waits, owning nothing, for a next command. A test launches one instance after the other.
const LINGER: Duration = Duration::from_secs(2);
/// How often it looks whether it still owns anything.
const LOOK: Duration = Duration::from_millis(250);

/// How long a predecessor may take that is just removing what is left.
const PREDECESSOR: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(10);

/// Supervises, until there is nothing to supervise.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
}

/// Why it ends.
enum End {
    /// It owns nothing.
    Retire,
    /// Another one takes over what it owns.
    HandOver,
    /// The state directory was removed: nobody could ever name what it owns again.
    Lost,
}

/// Supervises, until there is nothing to supervise.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::of(&args.state_dir)?;
    // It fails only for who leads a session already, which is as good.
    let _ = rustix::process::setsid();
    // Roots of instances are among what is made here: nobody but root could enter them with a private mask.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let Some(_only_one) = only_one(&place)? else { return Ok(ExitCode::Done) };
    write_json(&place.locald().join("process.json"), &ProcessId::current())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting locald")?;
    runtime.block_on(supervise(&place))?;
    Ok(ExitCode::Done)
}

async fn supervise(place: &Place) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(place.run()) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("creating {} (are you root?)", place.run().display()));
        }
        _ => {}
    }
    let locald = Locald::take_over(place).await?;
    let socket = place.socket();
    let _ = fs::remove_file(&socket);
    let listener = UnixListener::bind(&socket).with_context(|| format!("listening on {}", socket.display()))?;
    let clients = Clients::new();
    let router = api::router(locald.clone(), clients.clone());
    let serving = tokio::spawn(axum::serve(listener, router).into_future());
    tracing::info!(state = %place.state().display(), "supervising");
    let end = end(&locald, &clients, &place.locald().join("lock")).await?;
    let _ = fs::remove_file(&socket);
    serving.abort();
    match end {
        End::HandOver => {
            tracing::info!("handed over");
            return Ok(());
        }
        End::Retire => tracing::info!("nothing left to supervise"),
        End::Lost => {
            tracing::warn!("the state directory was removed");
            locald.end_all().await;
        }
    }
    locald.retire().await?;
    let _ = fs::remove_dir_all(place.run());
    let _ = fs::remove_file(place.locald().join("process.json"));
    if matches!(end, End::Lost) {
        sweep::remove_empty_directories(place.state());
    }
    Ok(())
}

async fn end(locald: &Locald, clients: &Clients, lock: &Path) -> Result<End> {
    let mut hand_over = clients.hand_over.subscribe();
    let mut terminated = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            () = said(&mut hand_over) => return Ok(End::HandOver),
            // Whoever ends locald does not mean the service: what runs goes on, and the next locald adopts it.
            _ = terminated.recv() => return Ok(End::HandOver),
            _ = look.tick() => {
                if !lock.exists() {
                    return Ok(End::Lost);
                }
                if locald.owns_nothing() && clients.quiet_for(LINGER) {
                    return Ok(End::Retire);
                }
            }
        }
    }
}

/// The lock of the one locald of the state directory; `None` if another has it and does not end.
fn only_one(place: &Place) -> Result<Option<File>> {
    let path = place.locald().join("lock");
    fs::create_dir_all(place.locald()).with_context(|| format!("creating {}", place.locald().display()))?;
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    let deadline = Instant::now() + PREDECESSOR;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => return Ok(None),
            Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
    }
}
