//! The directory that a component is built in: the same path in every build, and gone after it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cli::lock::{IfHeld, Lock};
use cli::narrate;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use walkdir::WalkDir;

use crate::revision::Revision;

/// Compilers write paths into what they make, so the path is part of the inputs and never changes.
const PARENT: &str = "/var/tmp/kiln-build";

/// How long processes of a killed build may go on writing after their SIGKILL.
const LAST_WRITES: Duration = Duration::from_secs(5);

/// The build directory of one component, for one build at a time.
#[derive(Debug)]
pub struct BuildDir {
    root: PathBuf,
    _lock: Lock,
}

impl BuildDir {
    /// Takes the build directory of the component `name`, without what a killed run left there.
    pub fn take(name: &str, if_held: IfHeld) -> Result<Self> {
        let parent = Path::new(PARENT);
        DirBuilder::new().recursive(true).mode(0o755).create(parent).with_context(|| format!("creating {PARENT}"))?;
        // Anybody can make a directory or a link in /var/tmp and wait for root to build there.
        let found = fs::symlink_metadata(parent).with_context(|| format!("looking at {PARENT}"))?;
        let ours = found.is_dir() && found.uid() == rustix::process::geteuid().as_raw();
        ensure!(ours, "{PARENT} is not a directory of this user: remove it, or build as the user that owns it");
        let lock = Lock::take(&parent.join(format!("{name}.lock")), &format!("the build of {name}"), if_held)?;
        let this = Self { root: parent.join(name), _lock: lock };
        remove(&this.root)
            .with_context(|| format!("removing what an earlier build left in {}", this.root.display()))?;
        Ok(this)
    }

    /// Fills the source directory with the component's files, as old as its last commit.
    pub fn export(&self, revision: &Revision) -> Result<()> {
        for directory in [self.source(), self.home(), self.temporary()] {
            fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        }
        revision.export(&self.source(), &self.file("index"))?;
        set_times(&self.source(), revision.epoch)
    }

    /// The component's files, and what the build makes of them.
    pub fn source(&self) -> PathBuf {
        self.root.join("source")
    }

    /// HOME of the build commands.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// TMPDIR of the build commands.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// A file of ours beside those of the build.
    pub fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

impl Drop for BuildDir {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.root) {
            narrate::note(&format!("{} could not be removed ({error}): the next build does it", self.root.display()));
        }
    }
}

/// Removes a directory into which dying processes may still write.
fn remove(directory: &Path) -> io::Result<()> {
    let deadline = Instant::now() + LAST_WRITES;
    loop {
        match fs::remove_dir_all(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            other => return other,
        }
    }
}

/// Makes everything in `directory` last changed at `epoch`; a directory after what is in it.
fn set_times(directory: &Path, epoch: i64) -> Result<()> {
    let time = Timespec { tv_sec: epoch, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    for entry in WalkDir::new(directory).contents_first(true) {
        let entry = entry?;
        utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW)
            .with_context(|| format!("setting the time of {}", entry.path().display()))?;
    }
    Ok(())
}
