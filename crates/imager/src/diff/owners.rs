//! Which package a file is of.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::changes::FileChange;
use super::tree::Tree;

/// dpkg's directory of the lists of what each package has.
const INFO: &str = "/var/lib/dpkg/info";

/// The packages that have a path; a directory can be of many.
#[derive(Debug, Default)]
pub(super) struct Owners {
    old: HashMap<PathBuf, Vec<String>>,
    new: HashMap<PathBuf, Vec<String>>,
}

/// Finds the packages of what changed.
pub(super) fn of(changes: &[FileChange], old: &Tree, new: &Tree) -> Result<Owners> {
    let wanted = |removed: bool| -> HashSet<&Path> {
        let on_side = |change: &&FileChange| matches!(change, FileChange::Removed(_)) == removed;
        changes.iter().filter(on_side).map(|change| change.entry().path.as_path()).collect()
    };
    Ok(Owners { old: find(&wanted(true), old)?, new: find(&wanted(false), new)? })
}

impl Owners {
    /// The packages of what changed: as they are in the newer image, and of what was removed, as they were.
    pub(super) fn get(&self, change: &FileChange) -> &[String] {
        let owners = if matches!(change, FileChange::Removed(_)) { &self.old } else { &self.new };
        owners.get(&change.entry().path).map_or(&[], Vec::as_slice)
    }
}

fn find(wanted: &HashSet<&Path>, tree: &Tree) -> Result<HashMap<PathBuf, Vec<String>>> {
    let mut found: HashMap<PathBuf, Vec<String>> = HashMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    let moved = moved_directories(tree)?;
    for entry in tree.below(Path::new(INFO)).filter(|entry| entry.path.extension() == Some(OsStr::new("list"))) {
        let package = entry.path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let list = tree.read(&entry.path)?.unwrap_or_default();
        for line in list.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let path = Path::new(OsStr::from_bytes(line));
            let path = in_place(path, &moved);
            if wanted.contains(path.as_ref()) {
                found.entry(path.into_owned()).or_default().push(package.clone());
            }
        }
    }
    Ok(found)
}

/// Packages may list `/bin/ls` where `/bin` has long been a link to `usr/bin`.
fn moved_directories(tree: &Tree) -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut moved = Vec::new();
    for entry in tree.entries.iter().filter(|entry| entry.path.parent() == Some(Path::new("/"))) {
        if let Some(target) = tree.target(entry)?.filter(|target| target.starts_with("usr")) {
            moved.push((entry.path.clone(), Path::new("/").join(target)));
        }
    }
    Ok(moved)
}

fn in_place<'a>(path: &'a Path, moved: &[(PathBuf, PathBuf)]) -> std::borrow::Cow<'a, Path> {
    for (from, to) in moved {
        // The link itself is the package's as well.
        if let Ok(rest) = path.strip_prefix(from)
            && rest != Path::new("")
        {
            return to.join(rest).into();
        }
    }
    path.into()
}
