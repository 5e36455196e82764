//! Directories of the volume, reached from outside as its own system would reach them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

/// The root of a mounted volume. It cannot be unmounted while this lives.
pub(crate) struct Inside(File);

/// A directory in it.
pub(crate) struct Directory(OwnedFd);

impl Inside {
    /// Opens the root, which is at `path` as this process sees it.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        Ok(Self(File::open(path).with_context(|| format!("opening {}", path.display()))?))
    }

    /// The directory `path`, symlinks resolved inside the root; `None` if there is none.
    pub(crate) fn directory(&self, path: &Path) -> Result<Option<Directory>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match openat2(&self.0, path, flags, Mode::empty(), ResolveFlags::IN_ROOT).map_err(io::Error::from) {
            Ok(directory) => Ok(Some(Directory(directory))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("directory {} of the volume", path.display())),
        }
    }
}

impl Directory {
    /// A path that leads there, as long as this lives.
    pub(crate) fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
