//! Which files differ between two trees, and in what.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use rustix::fs::FileType;

use super::model::{Change, ChangedFile, File, FileKind, PrivilegedChange, Rights};
use super::tree::{Entry, Tree};

/// A path at which the trees differ.
pub(super) enum FileChange<'a> {
    Added(Lone<'a>),
    Removed(Lone<'a>),
    Changed(Box<Both<'a>>),
}

/// What is in one tree only.
pub(super) struct Lone<'a> {
    pub(super) entry: &'a Entry,
    pub(super) target: Option<PathBuf>,
    pub(super) rights: Option<Rights>,
}

/// What is in both, and not the same.
pub(super) struct Both<'a> {
    pub(super) old: &'a Entry,
    pub(super) new: &'a Entry,
    pub(super) change: ChangedFile,
    old_rights: Option<Rights>,
    new_rights: Option<Rights>,
}

/// All differences, sorted by path.
pub(super) fn between<'a>(old: &'a Tree, new: &'a Tree) -> Result<Vec<FileChange<'a>>> {
    let pairs = suspects(old, new);
    let next = AtomicUsize::new(0);
    let look = || {
        let mut found = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(pair) = pairs.get(at) else { return Ok(found) };
            found.extend(examine(old, new, *pair)?.map(|change| (at, change)));
        }
    };
    // Most of the time goes into reading, of which each processor can do some.
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let found: Result<Vec<Vec<_>>> = thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(look)).collect();
        let results = running.into_iter().map(thread::ScopedJoinHandle::join);
        results.map(|found| found.unwrap_or_else(|_| Err(anyhow!("a comparing thread ended early")))).collect()
    });
    let mut found: Vec<_> = found?.into_iter().flatten().collect();
    found.sort_by_key(|(at, _)| *at);
    Ok(found.into_iter().map(|(_, change)| change).collect())
}

type Pair<'a> = (Option<&'a Entry>, Option<&'a Entry>);

/// Everything but what cannot have changed, sorted by path.
fn suspects<'a>(old: &'a Tree, new: &'a Tree) -> Vec<Pair<'a>> {
    let mut found = Vec::new();
    let (mut olds, mut news) = (old.entries.iter().peekable(), new.entries.iter().peekable());
    loop {
        let pair = match (olds.peek(), news.peek()) {
            (None, None) => return found,
            (Some(_), None) => (olds.next(), None),
            (None, Some(_)) => (None, news.next()),
            (Some(one), Some(other)) => match one.path.cmp(&other.path) {
                std::cmp::Ordering::Less => (olds.next(), None),
                std::cmp::Ordering::Greater => (None, news.next()),
                std::cmp::Ordering::Equal => (olds.next(), news.next()),
            },
        };
        if !matches!(pair, (Some(one), Some(other)) if new.is_untouched(old, one, other)) {
            found.push(pair);
        }
    }
}

fn examine<'a>(old: &Tree, new: &Tree, pair: Pair<'a>) -> Result<Option<FileChange<'a>>> {
    let lone = |tree: &Tree, entry: &'a Entry| -> Result<Lone<'a>> {
        Ok(Lone { entry, target: tree.target(entry)?, rights: rights(entry, capabilities(tree, entry)?) })
    };
    Ok(match pair {
        (Some(entry), None) => Some(FileChange::Removed(lone(old, entry)?)),
        (None, Some(entry)) => Some(FileChange::Added(lone(new, entry)?)),
        (Some(one), Some(other)) => both(old, new, one, other)?.map(|both| FileChange::Changed(Box::new(both))),
        (None, None) => None,
    })
}

fn both<'a>(old_tree: &Tree, new_tree: &Tree, old: &'a Entry, new: &'a Entry) -> Result<Option<Both<'a>>> {
    let are = |file_type: FileType| old.file_type == file_type && new.file_type == file_type;
    let files = are(FileType::RegularFile);
    let shown = |target: Option<PathBuf>| target.map(|target| target.to_string_lossy().into_owned());
    let target = if are(FileType::Symlink) {
        let pair = shown(old_tree.target(old)?).zip(shown(new_tree.target(new)?));
        pair.and_then(|(old, new)| Change::between(old, new))
    } else {
        None
    };
    let (had, has) = (capabilities(old_tree, old)?, capabilities(new_tree, new)?);
    let change = ChangedFile {
        path: new.path.to_string_lossy().into_owned(),
        package: None,
        file_type: Change::between(kind(old.file_type), kind(new.file_type)),
        // A link has no mode of its own.
        mode: if are(FileType::Symlink) { None } else { Change::between(mode(old), mode(new)) },
        owner: Change::between(owner(old), owner(new)),
        size: if files { Change::between(old.size, new.size) } else { None },
        content: files && (old.size != new.size || !new_tree.same_content(old_tree, old, new)?),
        target,
        capabilities: Change::between(had.clone(), has.clone()),
        device: Change::between(old.device(), new.device()),
    };
    let same = ChangedFile { path: change.path.clone(), ..ChangedFile::default() };
    let (old_rights, new_rights) = (rights(old, had), rights(new, has));
    Ok((change != same).then_some(Both { old, new, change, old_rights, new_rights }))
}

/// Only what can be run has capabilities that mean something.
fn capabilities(tree: &Tree, entry: &Entry) -> Result<Option<String>> {
    if entry.mode & 0o111 == 0 { Ok(None) } else { tree.capabilities(entry) }
}

/// What running a file gives; `None` if nothing.
fn rights(entry: &Entry, capabilities: Option<String>) -> Option<Rights> {
    let set_id = entry.file_type == FileType::RegularFile && entry.mode & 0o6000 != 0;
    (set_id || capabilities.is_some()).then(|| Rights { mode: mode(entry), owner: owner(entry), capabilities })
}

impl FileChange<'_> {
    /// The entry of the newer tree, or of the older where the newer has none.
    pub(super) fn entry(&self) -> &Entry {
        match self {
            Self::Added(lone) | Self::Removed(lone) => lone.entry,
            Self::Changed(both) => both.new,
        }
    }

    /// By how many bytes of regular files the tree grew here.
    pub(super) fn growth(&self) -> i64 {
        let size = |entry: &Entry| match entry.file_type {
            FileType::RegularFile => i64::try_from(entry.size).unwrap_or(i64::MAX),
            _ => 0,
        };
        match self {
            Self::Added(lone) => size(lone.entry),
            Self::Removed(lone) => -size(lone.entry),
            Self::Changed(both) => size(both.new) - size(both.old),
        }
    }
}

impl Lone<'_> {
    pub(super) fn listed(&self, package: Option<&str>) -> File {
        File {
            path: self.entry.path.to_string_lossy().into_owned(),
            file_type: kind(self.entry.file_type),
            mode: mode(self.entry),
            owner: owner(self.entry),
            size: (self.entry.file_type == FileType::RegularFile).then_some(self.entry.size),
            target: self.target.as_ref().map(|target| target.to_string_lossy().into_owned()),
            package: package.map(str::to_owned),
            contents: None,
        }
    }
}

impl Both<'_> {
    /// The rights before and after, where running it gave or gives some.
    pub(super) fn rights(&self) -> (Option<&Rights>, Option<&Rights>) {
        (self.old_rights.as_ref(), self.new_rights.as_ref())
    }

    pub(super) fn privileged_change(&self, from: &Rights, to: &Rights) -> PrivilegedChange {
        PrivilegedChange {
            path: self.change.path.clone(),
            from: from.clone(),
            to: to.clone(),
            content: self.change.content,
        }
    }
}

fn kind(file_type: FileType) -> FileKind {
    match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Link,
        FileType::Fifo => FileKind::Pipe,
        FileType::Socket => FileKind::Socket,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::CharacterDevice => FileKind::CharacterDevice,
        FileType::Unknown => FileKind::Unknown,
    }
}

fn mode(entry: &Entry) -> String {
    format!("{:04o}", entry.mode)
}

fn owner(entry: &Entry) -> String {
    format!("{}:{}", entry.owner.0, entry.owner.1)
}
