//! Processes that outlive locald.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cli::process::ProcessId;
use provider::local::api::read_json;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process that may or may not be a child of this one: a former locald may have started it.
pub struct Kept {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
}

impl Kept {
    /// The process, if it runs.
    pub fn open(process: ProcessId) -> Option<Self> {
        let pid = Pid::from_raw(process.pid)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        // Asked after opening: from here on the descriptor can only mean this process.
        let pidfd = watch(pidfd).ok()?;
        process.is_alive().then_some(Self { pid, pidfd })
    }

    /// The process that is recorded in `directory`, if it runs.
    pub fn adopt(directory: &Path) -> Option<Self> {
        Self::open(read_json(&directory.join("process.json")).ok()??)
    }

    /// A process that was just started.
    pub fn child(child: &cli::Child) -> Result<Self> {
        let pid = Pid::from_raw(child.id().cast_signed()).context("a process without a number")?;
        // It cannot be gone: a child that ended stays until it is waited for.
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).context("watching a process")?;
        Ok(Self { pid, pidfd: watch(pidfd).context("watching a process")? })
    }

    /// Waits until it has ended, and lets the system forget it if it is a child.
    pub async fn ended(&self) {
        let _ = self.pidfd.readable().await;
        let _ = waitpid(Some(self.pid), WaitOptions::NOHANG);
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }

    /// Asks it to end, and makes it after `patience`.
    pub async fn end(&self, patience: Duration) {
        self.signal(Signal::TERM);
        if tokio::time::timeout(patience, self.ended()).await.is_err() {
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }

    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }
}

fn watch(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the descriptor is owned by what is returned, which nobody takes it out of: it stays
    // open, and the same, for as long as it is registered.
    unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }.map_err(Into::into)
}
