//! Mounts inside the root, made in the session by one process: each program that is started costs milliseconds.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use cli::Command;
use rustix::mount::{MountFlags, mount};

use crate::session::Session;
use crate::template::Mount;

/// The hidden subcommand: `imager session-mount ROOT (TYPE SOURCE TARGET)…`.
pub(crate) const SESSION_MOUNT: &str = "session-mount";

/// Types for which mount(8) does no more than mount(2).
const PLAIN: &[&str] = &["proc", "sysfs", "devpts", "tmpfs", "devtmpfs", "mqueue", "cgroup2", "securityfs", "debugfs"];

/// Mounts these below `root`, in their order, and makes their mount points where they are not there.
pub(crate) fn mount_below<'m>(
    session: &Session,
    root: &Path,
    mounts: impl IntoIterator<Item = &'m Mount>,
) -> Result<()> {
    let mut command = session.command(&std::env::current_exe()?.display().to_string()).arg(SESSION_MOUNT).arg(root);
    for Mount { kind, source, target } in mounts {
        command = command.args([kind.as_ref(), source.as_ref(), target.as_os_str()]);
    }
    command.run()?;
    Ok(())
}

/// Is that process.
pub(crate) fn session_mount(words: &[OsString]) -> Result<()> {
    let Some((root, mounts)) = words.split_first() else {
        bail!("usage: imager {SESSION_MOUNT} ROOT TYPE SOURCE TARGET")
    };
    for words in mounts.chunks_exact(3) {
        let [kind, source, target] = [0, 1, 2].map(|at| words[at].as_os_str());
        let target = Path::new(target);
        let target = Path::new(root).join(target.strip_prefix("/").unwrap_or(target));
        fs::create_dir_all(&target).with_context(|| format!("making the mount point {}", target.display()))?;
        let kind = kind.to_string_lossy();
        let done = match &*kind {
            "bind" => mount(source, &target, "", MountFlags::BIND, None).map_err(anyhow::Error::from),
            plain if PLAIN.contains(&plain) => {
                mount(source, &target, plain, MountFlags::empty(), None).map_err(anyhow::Error::from)
            }
            other => {
                Command::new("mount").args(["-t", other]).arg(source).arg(&target).run().map(drop).map_err(Into::into)
            }
        };
        match done {
            // Not every kernel has it, and little needs it.
            Err(_) if kind == "binfmt_misc" => {}
            done => done.with_context(|| format!("mounting {kind} {} at {}", source.display(), target.display()))?,
        }
    }
    Ok(())
}
