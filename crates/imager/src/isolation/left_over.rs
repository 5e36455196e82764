//! Processes that a provisioner left behind.

use std::fs;

use anyhow::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a left-over process may take to end after SIGTERM, before SIGKILL.
const GRACE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// A process that should not be there any more.
pub(crate) struct LeftOver {
    pid: i32,
    pub(crate) name: String,
    pub(crate) command_line: String,
}

/// The process `pid`, as the host counts; `None` if it has ended.
pub(crate) fn look_at(pid: i32) -> Option<LeftOver> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A zombie has no command line; its parent is about to reap it.
    if command_line.is_empty() {
        return None;
    }
    let command_line = String::from_utf8_lossy(&command_line).trim_end_matches('\0').replace('\0', " ");
    Some(LeftOver { pid, name: name.trim_end().to_owned(), command_line })
}

/// Ends everything that `look` finds: politely first, and for certain then. Returns what that was.
pub(crate) fn end(look: impl Fn() -> Result<Vec<LeftOver>>) -> Result<Vec<LeftOver>> {
    let left_over = look()?;
    let handles: Vec<_> = left_over
        .iter()
        .filter_map(|process| Pid::from_raw(process.pid))
        .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok().map(|handle| (pid, handle)))
        .collect();
    for signal in [Signal::TERM, Signal::KILL] {
        for (pid, handle) in &handles {
            let ended = |wait: &Timespec| {
                let mut ended = [PollFd::new(handle, PollFlags::IN)];
                poll(&mut ended, Some(wait)).is_ok_and(|count| count > 0)
            };
            if !ended(&Timespec { tv_sec: 0, tv_nsec: 0 }) {
                let _ = kill_process(*pid, signal);
                ended(&GRACE);
            }
        }
    }
    // What they started in the meantime, and what ignores everything but SIGKILL, is found by looking again.
    if !left_over.is_empty() {
        for process in look()? {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
    Ok(left_over)
}
