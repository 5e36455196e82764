//! Named locks that say who holds them.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::narrate;

/// A lock on something named, held until dropped. The kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// What to do when somebody else holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfHeld {
    /// Say who holds it, and wait.
    Wait,
    /// Say who holds it, and fail.
    Fail,
}

impl Lock {
    /// Takes the lock file `path` for `what`, such as `service hello`.
    pub fn take(path: &Path, what: &str, if_held: IfHeld) -> Result<Self> {
        let doing = || format!("locking {what} ({})", path.display());
        let mut file = open(path).with_context(doing)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(error).with_context(doing),
            Err(TryLockError::WouldBlock) => {
                let holder = holder(&mut file).with_context(doing)?;
                if if_held == IfHeld::Fail {
                    bail!("{what} is in use by {holder}; run again when it has ended, or without --no-wait");
                }
                narrate::note(&format!("waiting for {what}, in use by {holder}"));
                file.lock().with_context(doing)?;
            }
        }
        Self::held(file).with_context(doing)
    }

    /// Takes the lock file `path` for `what`, unless somebody holds it.
    pub fn take_if_free(path: &Path, what: &str) -> Result<Option<Self>> {
        let doing = || format!("locking {what} ({})", path.display());
        let file = open(path).with_context(doing)?;
        match file.try_lock() {
            Ok(()) => Self::held(file).map(Some).with_context(doing),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(doing),
        }
    }

    /// Says in the file who holds it.
    fn held(mut file: File) -> io::Result<Self> {
        file.set_len(0)?;
        file.rewind()?;
        let program = std::env::args().take(2).collect::<Vec<_>>().join(" ");
        let program = program.rsplit('/').next().unwrap_or_default();
        write!(file, "`{program}` (pid {}, since {:.0})", std::process::id(), jiff::Timestamp::now())?;
        Ok(Self { _file: file })
    }
}

/// Who holds it: that is written right after the lock was taken, which may be this very moment.
fn holder(file: &mut File) -> io::Result<String> {
    for _ in 0..20 {
        let mut holder = String::new();
        file.rewind()?;
        file.read_to_string(&mut holder)?;
        if !holder.is_empty() {
            return Ok(holder.trim_end().to_owned());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok("another process".to_owned())
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)
}
