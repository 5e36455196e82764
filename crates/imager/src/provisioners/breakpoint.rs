//! `breakpoint`: waits for Enter, so that a person can look into the volume.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Result, bail};
use cli::{interrupt, narrate};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Reading;
use crate::chroot::Chroot;
use crate::template::Options;

/// How often a wait for the terminal looks whether it is interrupted.
const TICK: Duration = Duration::from_millis(100);

/// One builder at a time speaks with the person at the terminal.
static TERMINAL: Mutex<()> = Mutex::new(());

pub(crate) struct Breakpoint {
    note: String,
    disable: bool,
}

impl Breakpoint {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let breakpoint = Self {
            note: reading.string(options, "note")?.unwrap_or_default(),
            disable: options.bool("disable")?.unwrap_or(false),
        };
        // Packer waits for ever where nobody can press Enter. A pipeline that has a forgotten breakpoint should
        // hear of it before anything is created.
        if !breakpoint.disable && !reading.only_checking && !io::stdin().is_terminal() {
            let why = "a breakpoint waits for Enter, and there is no terminal";
            let remedy = "remove it, set \"disable\": true, or run at a terminal";
            return Err(options.fault(options.line(), why, remedy).into());
        }
        Ok(breakpoint)
    }

    pub(crate) fn run(&self, chroot: &Chroot) -> Result<()> {
        let note = if self.note.is_empty() { String::new() } else { format!(" with note \"{}\"", self.note) };
        if self.disable {
            narrate::detail(&format!("{}: Breakpoint provisioner{note} is disabled; going on...", chroot.label()));
            return Ok(());
        }
        narrate::detail(&format!("{}: Pausing at breakpoint provisioner{note}.", chroot.label()));
        say_how_to_look(chroot);
        ask("Press enter to continue. ").map(drop)
    }
}

/// Shows the command that leads into the volume.
pub(super) fn say_how_to_look(chroot: &Chroot) {
    let words = chroot.enter_words();
    narrate::detail(&format!("{}: To look inside: {} /bin/sh", chroot.label(), shell_words::join(words)));
}

/// Asks the person at the terminal, and returns the line that is typed.
pub(super) fn ask(question: &str) -> Result<String> {
    let _one_at_a_time = TERMINAL.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    narrate::finish();
    write!(io::stderr(), "{question}")?;
    let mut typed = Vec::new();
    while !typed.ends_with(b"\n") {
        let stdin = io::stdin();
        let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
        let tick = Timespec::try_from(TICK)?;
        let ready = rustix::io::retry_on_intr(|| poll(&mut waiting, Some(&tick)))?;
        interrupt::check()?;
        if ready > 0 {
            // Without a buffer, in which the rest of the line would wait where poll does not look.
            let mut byte = [0];
            if rustix::io::retry_on_intr(|| rustix::io::read(&stdin, &mut byte))? == 0 {
                bail!("the terminal was closed");
            }
            typed.push(byte[0]);
        }
    }
    Ok(String::from_utf8_lossy(&typed).trim().to_owned())
}
