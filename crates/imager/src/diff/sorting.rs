//! Which changes are listed one by one, and which are counted.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use super::changes::{FileChange, Lone};
use super::model::{ChangedFile, File, FileKind, Files, Group, Packages, Tally};
use super::owners::Owners;
use super::units::{PULLING_IN, SYSTEM};

/// A directory that came or went with more things in it than this is one line.
const LISTED: u64 = 20;

/// Returns what is to be listed, and counts the files of packages that came, went or moved with these.
///
/// Configuration that is not as its package has it (`altered`) is listed in any case.
pub(super) fn sort(
    changes: &[FileChange],
    owners: &Owners,
    altered: &HashSet<PathBuf>,
    packages: &mut Packages,
    all_files: bool,
) -> Files {
    let mut files = Files::default();
    let mut tallies = tallies_of(packages);
    let mut groups: BTreeMap<&'static str, Tally> = BTreeMap::new();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    for change in changes {
        let owners = owners.get(change);
        let is_altered = altered.contains(&change.entry().path);
        let explains =
            |owner: &&String| tallies.get(*owner).is_some_and(|(fate, _)| !is_altered && fate.explains(change));
        let tally = match (owners.iter().find(explains), group_of(change)) {
            (Some(owner), _) => tallies.get_mut(owner).map(|(_, tally)| tally),
            (None, Some(group)) => Some(groups.entry(group).or_default()),
            (None, None) => None,
        };
        let counted = tally.is_some();
        if let Some(tally) = tally {
            tally.count(change);
        }
        if counted && !all_files {
            continue;
        }
        let package = owners.first().map(String::as_str);
        match change {
            FileChange::Added(lone) => added.push((lone, change, package)),
            FileChange::Removed(lone) => removed.push((lone, change, package)),
            FileChange::Changed(both) => {
                files.changed.push(ChangedFile { package: package.map(str::to_owned), ..both.change.clone() });
            }
        }
    }
    files.added = fold(&added, all_files);
    files.removed = fold(&removed, all_files);
    files.grouped = groups.into_iter().map(|(name, tally)| Group { name: name.to_owned(), tally }).collect();
    let tallies: BTreeMap<String, Tally> = tallies.into_iter().map(|(name, (_, tally))| (name, tally)).collect();
    for package in packages.added.iter_mut().chain(&mut packages.removed) {
        package.files = tallies[&package.name];
    }
    for package in packages.upgraded.iter_mut().chain(&mut packages.downgraded) {
        package.files = tallies[&package.name];
    }
    files
}

/// What became of a package, and so which changes of its files need no line of their own.
#[derive(Clone, Copy)]
enum Fate {
    Added,
    Removed,
    Moved,
}

impl Fate {
    fn explains(self, change: &FileChange) -> bool {
        match self {
            Self::Added => matches!(change, FileChange::Added(_)),
            Self::Removed => matches!(change, FileChange::Removed(_)),
            Self::Moved => true,
        }
    }
}

fn tallies_of(packages: &Packages) -> BTreeMap<String, (Fate, Tally)> {
    let with = |fate: Fate| move |name: &String| (name.clone(), (fate, Tally::default()));
    let moved = packages.upgraded.iter().chain(&packages.downgraded).map(|package| &package.name);
    let added = packages.added.iter().map(|package| &package.name).map(with(Fate::Added));
    let removed = packages.removed.iter().map(|package| &package.name).map(with(Fate::Removed));
    added.chain(removed).chain(moved.map(with(Fate::Moved))).collect()
}

impl Tally {
    fn count(&mut self, change: &FileChange) {
        match change {
            FileChange::Added(_) => self.added += 1,
            FileChange::Removed(_) => self.removed += 1,
            FileChange::Changed(_) => self.changed += 1,
        }
        self.bytes += change.growth();
    }
}

/// What changes whenever packages are installed or programs run, and tells nothing by itself.
fn group_of(change: &FileChange) -> Option<&'static str> {
    let path = &change.entry().path;
    let target = match change {
        FileChange::Added(lone) | FileChange::Removed(lone) => lone.target.as_deref(),
        FileChange::Changed(_) => None,
    };
    if is_unit_link(path) {
        return Some("links of the units above");
    }
    if target.is_some_and(|target| target.starts_with("/etc/alternatives")) {
        return Some("alternatives");
    }
    if path.components().any(|part| part.as_os_str() == "__pycache__") {
        return Some("compiled Python");
    }
    const PLACES: &[(&str, &str)] = &[
        ("/var/lib/dpkg", "package database"),
        ("/var/lib/apt", "package database"),
        ("/var/lib/systemd/deb-systemd-helper-enabled", "package database"),
        ("/var/lib/systemd/deb-systemd-helper-masked", "package database"),
        ("/var/lib/systemd/deb-systemd-user-helper-enabled", "package database"),
        ("/var/cache", "caches"),
        ("/etc/ld.so.cache", "caches"),
        ("/var/log", "logs"),
        ("/etc/alternatives", "alternatives"),
        ("/etc/rc0.d", "links of System V init"),
        ("/etc/rc1.d", "links of System V init"),
        ("/etc/rc2.d", "links of System V init"),
        ("/etc/rc3.d", "links of System V init"),
        ("/etc/rc4.d", "links of System V init"),
        ("/etc/rc5.d", "links of System V init"),
        ("/etc/rc6.d", "links of System V init"),
        ("/etc/rcS.d", "links of System V init"),
        ("/etc/passwd-", "back-ups of account files"),
        ("/etc/shadow-", "back-ups of account files"),
        ("/etc/group-", "back-ups of account files"),
        ("/etc/gshadow-", "back-ups of account files"),
        ("/etc/subuid-", "back-ups of account files"),
        ("/etc/subgid-", "back-ups of account files"),
    ];
    PLACES.iter().find(|(place, _)| path.starts_with(Path::new(place))).map(|(_, group)| *group)
}

/// Whether it is one of the links by which a unit is enabled, or the directory of these.
fn is_unit_link(path: &Path) -> bool {
    let Ok(below) = path.strip_prefix(SYSTEM) else { return false };
    below.components().next().is_some_and(|first| {
        let first = first.as_os_str().to_string_lossy();
        PULLING_IN.iter().any(|kind| first.ends_with(kind))
    })
}

type Line<'a> = (&'a Lone<'a>, &'a FileChange<'a>, Option<&'a str>);

/// Makes one line of a directory with all that came or went with it, where that is much.
fn fold(lines: &[Line], all_files: bool) -> Vec<File> {
    let mut folded = Vec::new();
    let mut rest = lines;
    while let Some((&(lone, _, package), below)) = rest.split_first() {
        let mut line = lone.listed(package);
        let path = &lone.entry.path;
        // Sorted as paths are, what is in a directory follows it.
        let inside = below.iter().take_while(|(other, ..)| other.entry.path.starts_with(path)).count();
        rest = below;
        if line.file_type == FileKind::Directory && inside as u64 > LISTED && !all_files {
            let mut contents = Tally::default();
            below[..inside].iter().for_each(|(_, change, _)| contents.count(change));
            line.contents = Some(contents);
            rest = &below[inside..];
        }
        folded.push(line);
    }
    folded
}
