//! An image's file system, looked into as its own system would.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;

/// A mounted root. Its absolute symbolic links lead to places in it, never to the host's.
pub(crate) struct Root(OwnedFd);

/// An entry of a directory.
pub(crate) struct Entry {
    /// Its absolute path in the image.
    pub(crate) path: PathBuf,
    /// Its name.
    pub(crate) name: OsString,
    is_directory: bool,
}

impl Root {
    /// The root that is mounted at `path`.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(open(path, flags, Mode::empty()).with_context(|| format!("opening {}", path.display()))?))
    }

    /// Whether something is at `path`, be it a symbolic link that leads nowhere.
    pub(crate) fn has(&self, path: &Path) -> Result<bool> {
        Ok(self.get(path, OFlags::PATH | OFlags::NOFOLLOW)?.is_some())
    }

    /// Whether `path` is a symbolic link.
    pub(crate) fn is_link(&self, path: &Path) -> Result<bool> {
        let Some(file) = self.get(path, OFlags::PATH | OFlags::NOFOLLOW)? else { return Ok(false) };
        let stat = rustix::fs::fstat(&file).with_context(|| format!("looking at {}", path.display()))?;
        Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
    }

    /// The content of the file at `path`, if it is there.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        // A pipe in the image must not make us wait.
        let Some(file) = self.get(path, OFlags::RDONLY | OFlags::NONBLOCK)? else { return Ok(None) };
        let mut content = Vec::new();
        File::from(file).read_to_end(&mut content).with_context(|| format!("reading {}", path.display()))?;
        Ok(Some(content))
    }

    /// What is in the directory at `path`, sorted; nothing if it is not there.
    pub(crate) fn entries(&self, path: &Path) -> Result<Vec<Entry>> {
        let doing = || format!("listing {}", path.display());
        let Some(directory) = self.get(path, OFlags::RDONLY | OFlags::DIRECTORY)? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for entry in Dir::new(directory).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name != "." && name != ".." {
                let is_directory = entry.file_type() == FileType::Directory;
                entries.push(Entry { path: path.join(&name), name, is_directory });
            }
        }
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(entries)
    }

    /// Everything below the directory at `path`. Symbolic links below it are not followed.
    pub(crate) fn all_below(&self, path: &Path) -> Result<Vec<Entry>> {
        let mut found = self.entries(path)?;
        let mut next = 0;
        while let Some(entry) = found.get(next) {
            next += 1;
            if entry.is_directory {
                let below = self.entries(&entry.path.clone())?;
                found.extend(below);
            }
        }
        Ok(found)
    }

    fn get(&self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("opening {} of the image", path.display())),
        }
    }
}
