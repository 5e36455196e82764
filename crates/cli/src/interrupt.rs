//! SIGINT and SIGTERM: end what is running, unwind, clean up.
//!
//! The running child processes are told to end; the [`crate::Command`] that
//! waits for one then returns an error, and clean-up happens on the way out as
//! for any other error. Loops that wait for something else ask [`requested`].

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// How many times the process was asked to end, and how many of these are past.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);
static IGNORED: AtomicUsize = AtomicUsize::new(0);
static RUNNING: Mutex<BTreeSet<Target>> = Mutex::new(BTreeSet::new());

/// Whether the process was asked to end.
pub fn requested() -> bool {
    REQUESTS.load(Ordering::SeqCst) > 0
}

/// An error if the process was asked to end, after it was last told to [`go_on`].
pub fn check() -> anyhow::Result<()> {
    let asked = REQUESTS.load(Ordering::SeqCst) > IGNORED.load(Ordering::SeqCst);
    if asked { Err(anyhow::anyhow!("interrupted")) } else { Ok(()) }
}

/// From here on [`check`] passes until the process is asked to end once more: what takes back must wait as well.
pub fn go_on() {
    IGNORED.store(REQUESTS.load(Ordering::SeqCst), Ordering::SeqCst);
}

/// From here on SIGINT and SIGTERM request an orderly end.
pub(crate) fn catch_signals() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM]) else { return };
    thread::spawn(move || {
        for _ in signals.forever() {
            REQUESTS.fetch_add(1, Ordering::SeqCst);
            for target in RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).iter() {
                target.signal(Signal::TERM);
            }
        }
    });
}

/// What an interrupt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// The process with this number.
    Process(u32),
    /// The process group of this number.
    Group(u32),
}

impl Target {
    /// Sends it a signal; that it has ended already is no error.
    pub(crate) fn signal(self, signal: Signal) {
        let (Self::Process(number) | Self::Group(number)) = self;
        if let Some(pid) = Pid::from_raw(number.cast_signed()) {
            let _ = match self {
                Self::Process(_) => kill_process(pid, signal),
                Self::Group(_) => kill_process_group(pid, signal),
            };
        }
    }
}

/// While this lives, an interrupt ends a child process. Every [`crate::Command`] that is waited for has one; who
/// waits for a spawned child itself makes one.
pub struct EndedByInterrupt(Target);

impl EndedByInterrupt {
    /// Ends the process `pid` at the next interrupt, or now if there was one.
    pub fn new(pid: u32) -> Self {
        Self::of(Target::Process(pid))
    }

    /// Ends `target` at the next interrupt, or now if there was one.
    pub fn of(target: Target) -> Self {
        RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(target);
        if requested() {
            target.signal(Signal::TERM);
        }
        Self(target)
    }
}

impl Drop for EndedByInterrupt {
    fn drop(&mut self) {
        RUNNING.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&self.0);
    }
}
