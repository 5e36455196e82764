//! Writes that need not reach the disk one by one.
//!
//! During provisioning a volume is throw-away: if the machine stops, it is made again. Package managers still
//! sync every file they write. A seccomp filter answers those calls with success; what was written is synced
//! once, when the volume is complete.

use std::ffi::OsString;
use std::io;
use std::process::{self, Stdio};

use anyhow::{Context, Result};
use cli::Command;
use rustix::process::{chdir, chroot};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// The hidden subcommand that runs a command without syncing: `imager without-sync [--chroot=ROOT] PROGRAM ARGUMENT…`.
pub(crate) const WITHOUT_SYNC: &str = "without-sync";

/// System calls that only make data durable (fsync(2), sync(2), msync(2), sync_file_range(2)).
const SYNCING: &[i64] = &[
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync,
    libc::SYS_syncfs,
    libc::SYS_msync,
    libc::SYS_sync_file_range,
];

/// The words before a command that run it without syncing.
pub(crate) fn words() -> Result<[String; 2]> {
    let this = std::env::current_exe().context("finding this program")?;
    Ok([this.display().to_string(), WITHOUT_SYNC.to_owned()])
}

/// Begins the first of the words where the command is to run below another root.
pub(crate) const CHROOT: &str = "--chroot=";

/// Becomes the command, with a filter that all its children inherit.
pub(crate) fn become_without_sync(words: &[OsString]) -> Result<()> {
    let root = words.first().and_then(|word| word.to_str()?.strip_prefix(CHROOT));
    let (program, arguments) = words[usize::from(root.is_some())..].split_first().context("no command was given")?;
    apply(&filter()?).context("suppressing syncs (are you root?)")?;
    if let Some(root) = root {
        chroot(root).and_then(|()| chdir("/")).with_context(|| format!("entering {root}"))?;
    }
    let same_input = |command: &mut process::Command| _ = command.stdin(Stdio::inherit());
    Err(Command::new(program).args(arguments).configure(same_input).exec().into())
}

fn filter() -> Result<BpfProgram> {
    let architecture = std::env::consts::ARCH.try_into().context("this processor has no filter of system calls")?;
    let rules = SYNCING.iter().map(|call| (*call, Vec::new())).collect();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(0), architecture)?;
    Ok(filter.try_into()?)
}

/// Installs the filter without `no_new_privs`, under which sudo refuses to run: root may (seccomp(2)).
fn apply(filter: &BpfProgram) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len().try_into().map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `program` and the filter that it points to live through the call, which copies them; the
    // instructions of seccompiler have the layout of the kernel's `sock_filter`.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
