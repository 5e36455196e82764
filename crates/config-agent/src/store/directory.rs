//! A tree of files: a key is a path below its root, a value is a file's content without one newline at its end.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc::Sender;

use crate::settings::DirectorySettings;
use crate::values::{Map, Selector, Update, Values};

/// How deep directories may lie in one another; a link to a directory above would have no end.
const DEEPEST: usize = 32;

/// All that is selected.
pub fn read(settings: &DirectorySettings, selectors: &[Selector]) -> Result<Values> {
    let mut tree = Tree::default();
    tree.walk(&settings.path, "", 0, &mut |_| Ok(()))?;
    let revision = tree.revision();
    Ok(Values::new(tree.selected(selectors)?, revision))
}

/// Lists, and lists again when something in the tree has changed.
pub async fn follow(
    settings: &DirectorySettings,
    selectors: &[Selector],
    updates: &Sender<Update>,
) -> Result<Infallible> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    // SAFETY: the descriptor is owned by what watches it, and stays open and the same for as long.
    let events = unsafe { AsyncFd::register(events)? };
    let mut watched = BTreeMap::new();
    loop {
        // Each directory is watched before it is read, so nothing is missed between the two. To watch it again changes
        // nothing, and makes sure of directories that are new.
        let mut tree = Tree::default();
        tree.walk(&settings.path, "", 0, &mut |directory| {
            watched.insert(watch(events.get_ref(), directory)?, directory.to_owned());
            Ok(())
        })?;
        let revision = tree.revision();
        updates.send(Update::Listing { values: tree.selected(selectors)?, revision }).await?;
        wait_for_change(&events, &watched).await?;
        if !settings.path.is_dir() {
            bail!("{} is gone", settings.path.display());
        }
    }
}

/// The files of a tree.
#[derive(Debug, Default)]
struct Tree {
    files: Vec<(String, PathBuf)>,
    latest: Option<SystemTime>,
}

impl Tree {
    /// Finds the files of a directory and all below, after `enter` was called for each directory. What begins with a
    /// dot is nobody's value: temporary files, and the directories that Kubernetes puts links into.
    fn walk(
        &mut self,
        directory: &Path,
        key: &str,
        depth: usize,
        enter: &mut impl FnMut(&Path) -> Result<()>,
    ) -> Result<()> {
        let doing = || format!("reading the directory {}", directory.display());
        enter(directory)?;
        if depth > DEEPEST {
            bail!("{}: directories lie deeper than {DEEPEST} in one another", directory.display());
        }
        for entry in fs::read_dir(directory).with_context(doing)? {
            let path = entry.with_context(doing)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.starts_with('.'))
            else {
                continue;
            };
            let key = format!("{key}/{name}");
            let metadata = match fs::metadata(&path) {
                // It went away since it was listed, and there will be an event for that.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("looking at {}", path.display()))?,
            };
            if metadata.is_dir() {
                self.walk(&path, &key, depth + 1, enter)?;
            } else if !metadata.file_type().is_fifo() && !metadata.file_type().is_socket() {
                self.latest = self.latest.max(metadata.modified().ok());
                self.files.push((key, path));
            }
        }
        Ok(())
    }

    fn selected(self, selectors: &[Selector]) -> Result<Map> {
        let mut values = Map::new();
        for (key, path) in self.files {
            if !selectors.iter().any(|selector| selector.has(&key)) {
                continue;
            }
            let mut value = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.with_context(|| format!("reading {}", path.display()))?,
            };
            if value.last() == Some(&b'\n') {
                value.pop();
            }
            values.insert(key.into(), value.into());
        }
        Ok(values)
    }

    /// The time of the file that was written last.
    fn revision(&self) -> String {
        self.latest.and_then(|latest| Timestamp::try_from(latest).ok()).map_or("empty".to_owned(), |it| it.to_string())
    }
}

fn watch(events: &OwnedFd, directory: &Path) -> Result<i32> {
    let what = WatchFlags::CLOSE_WRITE
        | WatchFlags::CREATE
        | WatchFlags::DELETE
        | WatchFlags::MOVED_FROM
        | WatchFlags::MOVED_TO
        | WatchFlags::DELETE_SELF
        | WatchFlags::MOVE_SELF
        | WatchFlags::ONLYDIR;
    inotify::add_watch(events, directory, what).with_context(|| format!("watching {}", directory.display()))
}

/// Waits for an event that is more than the beginning of a file, and takes all that have come.
async fn wait_for_change(events: &AsyncFd<OwnedFd>, watched: &BTreeMap<i32, PathBuf>) -> Result<()> {
    let mut changed = false;
    while !changed {
        let mut ready = events.readable().await?;
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(events.get_ref(), &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events() == ReadFlags::CREATE => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    let path = watched.get(&event.wd()).zip(name).map(|(directory, name)| directory.join(name));
                    changed |= path.is_none_or(|path| is_complete(&path));
                }
                Ok(_) => changed = true,
                Err(rustix::io::Errno::AGAIN) => break,
                Err(error) => return Err(error).context("waiting for changes of the tree"),
            }
        }
        ready.clear_ready();
    }
    Ok(())
}

/// A file that was just made is written yet, and there is another event when that is done. A link is complete at once.
fn is_complete(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
}
