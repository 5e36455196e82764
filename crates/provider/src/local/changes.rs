//! What of a disk differs from the one that it was made from: layers are stored as that.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::contents::Contents;
use super::disk::{copy_range, data_ranges};

/// The unit of comparison: the block of every file system in use, and what direct I/O is aligned to.
pub const BLOCK: u64 = 4096;
/// How much is read at a time.
const CHUNK: u64 = 1 << 20;

/// The content that a disk was made from: a range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The file, which does not change.
    pub file: PathBuf,
    /// The bytes of it that became the disk's first.
    pub range: Range<u64>,
}

/// Ranges of a disk whose content is not its base's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Bytes of the whole disk.
    pub size: u64,
    /// Where it differs, in order, in bytes.
    pub ranges: Vec<Range<u64>>,
}

/// A part of a disk to be: where its content is.
#[derive(Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// The file that has it.
    pub file: &'a Path,
    /// Where it is there.
    pub at: u64,
    /// Which bytes of the disk it becomes.
    pub range: Range<u64>,
}

impl Changes {
    /// Compares `disk` with `base`, and stores what is different in the new file `to`, at the same places.
    pub fn store(disk: &Path, base: &Base, to: &Path, contents: &Contents) -> Result<Self> {
        let doing = || format!("comparing {} with {}", disk.display(), base.file.display());
        let (ours, theirs) = (File::open(disk).with_context(doing)?, File::open(&base.file).with_context(doing)?);
        let size = ours.metadata().with_context(doing)?.len();
        let shifted = |range: Range<u64>| range.start - base.range.start..range.end - base.range.start;
        let mut looked_at = data_ranges(&ours, 0..size).with_context(doing)?;
        looked_at.extend(data_ranges(&theirs, base.range.clone()).with_context(doing)?.into_iter().map(shifted));
        let chunks = chunks(looked_at, size);
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let share = chunks.len().div_ceil(workers).max(1);
        let our = contents.of(disk).with_context(doing)?;
        let their = contents.of(&base.file).with_context(doing)?;
        let compare = |chunks: &[Range<u64>]| -> io::Result<Vec<Range<u64>>> {
            let mut differing = Vec::new();
            for chunk in chunks {
                let [start, end] = [chunk.start, chunk.end].map(|at| (base.range.start + at).min(base.range.end));
                differing.extend(differences(our.bytes(chunk.clone())?, their.bytes(start..end)?, chunk.start));
            }
            Ok(differing)
        };
        let found = thread::scope(|scope| {
            let running: Vec<_> = chunks.chunks(share).map(|part| scope.spawn(|| compare(part))).collect();
            let ended = running.into_iter().map(|worker| {
                worker.join().unwrap_or_else(|_| Err(io::Error::other("a thread that compared ended early")))
            });
            ended.collect::<io::Result<Vec<_>>>()
        });
        let ranges = joined(found.with_context(doing)?.into_iter().flatten());
        let doing = || format!("writing {}", to.display());
        let target = OpenOptions::new().write(true).create_new(true).open(to).with_context(doing)?;
        target.set_len(size).with_context(doing)?;
        for range in &ranges {
            for data in data_ranges(&ours, range.clone()).with_context(doing)? {
                copy_range(&ours, &target, data.clone(), data.start).with_context(doing)?;
            }
        }
        // What tells of the layer must not outlive a power failure without this.
        target.sync_all().with_context(doing)?;
        Ok(Self { size, ranges })
    }

    /// What the disk consists of: what is in `changes`, which [`Changes::store`] has written, and the base's rest.
    pub fn pieces<'a>(&self, base: &'a Base, changes: &'a Path) -> Result<Vec<Piece<'a>>> {
        let mut pieces = self.kept(base)?;
        let file = File::open(changes).with_context(|| format!("reading {}", changes.display()))?;
        for range in &self.ranges {
            let data = data_ranges(&file, range.clone()).with_context(|| format!("reading {}", changes.display()))?;
            pieces.extend(data.into_iter().map(|range| Piece { file: changes, at: range.start, range }));
        }
        Ok(pieces)
    }

    /// The base's data that is not replaced.
    fn kept<'a>(&self, base: &'a Base) -> Result<Vec<Piece<'a>>> {
        let doing = || format!("reading {}", base.file.display());
        let file = File::open(&base.file).with_context(doing)?;
        let mut pieces = Vec::new();
        for data in data_ranges(&file, base.range.clone()).with_context(doing)? {
            let mut at = data.start - base.range.start;
            let end = (data.end - base.range.start).min(self.size);
            let first = self.ranges.partition_point(|range| range.end <= at);
            for replaced in self.ranges[first..].iter().take_while(|range| range.start < end) {
                pieces.push(base.piece(at..replaced.start.max(at)));
                at = replaced.end;
            }
            pieces.push(base.piece(at..end.max(at)));
        }
        pieces.retain(|piece| !piece.range.is_empty());
        Ok(pieces)
    }
}

impl Base {
    /// All of a file.
    pub fn whole(file: PathBuf) -> Result<Self> {
        let size = file.metadata().with_context(|| format!("disk {}", file.display()))?.len();
        Ok(Self { file, range: 0..size })
    }

    /// Whether it is all of the file.
    pub fn is_whole(&self) -> Result<bool> {
        Ok(*self == Self::whole(self.file.clone())?)
    }

    /// Bytes of a disk that it becomes.
    pub fn size(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn piece(&self, range: Range<u64>) -> Piece<'_> {
        Piece { file: &self.file, at: self.range.start + range.start, range }
    }

    /// Its data, as the parts of a disk of `size` bytes.
    pub fn pieces(&self, size: u64) -> Result<Vec<Piece<'_>>> {
        Changes { size, ranges: Vec::new() }.kept(self)
    }
}

/// What has to be looked at, in pieces of at most [`CHUNK`] that begin at whole blocks.
fn chunks(mut ranges: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let whole_blocks = |range: Range<u64>| range.start / BLOCK * BLOCK..range.end.next_multiple_of(BLOCK).min(size);
    let mut chunks = Vec::new();
    for range in joined(ranges.into_iter().map(whole_blocks)) {
        let starts = (range.start..range.end).step_by(CHUNK as usize);
        chunks.extend(starts.map(|start| start..(start + CHUNK).min(range.end)));
    }
    chunks
}

/// Ranges that touch or overlap as one; `ranges` are sorted by their start.
fn joined(ranges: impl Iterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges.filter(|range| !range.is_empty()) {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The blocks in which two contents differ that begin at `start`; where theirs is shorter, it goes on with zeros.
fn differences(ours: &[u8], theirs: &[u8], start: u64) -> Vec<Range<u64>> {
    if ours == theirs {
        return Vec::new();
    }
    let block = usize::try_from(BLOCK).unwrap_or(usize::MAX);
    let differing = ours.chunks(block).enumerate().filter(|(number, ours)| {
        let theirs = theirs.get(number * block..).unwrap_or_default();
        let theirs = &theirs[..theirs.len().min(ours.len())];
        ours[..theirs.len()] != *theirs || ours[theirs.len()..].iter().any(|byte| *byte != 0)
    });
    joined(differing.map(|(number, ours)| {
        let at = start + number as u64 * BLOCK;
        at..at + ours.len() as u64
    }))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    /// A disk of blocks, each filled with its letter; a dot is a hole.
    fn disk(directory: &Path, name: &str, blocks: &str) -> PathBuf {
        let path = directory.join(name);
        let file = File::create_new(&path).unwrap();
        file.set_len(blocks.len() as u64 * BLOCK).unwrap();
        for (at, letter) in blocks.bytes().enumerate().filter(|(_, letter)| *letter != b'.') {
            file.write_all_at(&vec![letter; BLOCK as usize], at as u64 * BLOCK).unwrap();
        }
        path
    }

    fn content(path: &Path) -> String {
        std::fs::read(path).unwrap().chunks(BLOCK as usize).map(|block| char::from(block[0])).collect()
    }

    fn assembled(directory: &Path, pieces: &[Piece], size: u64) -> String {
        let path = directory.join("assembled");
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for Piece { file: from, at, range } in pieces {
            let length = range.end - range.start;
            copy_range(&File::open(from).unwrap(), &file, *at..at + length, range.start).unwrap();
        }
        content(&path)
    }

    #[test]
    fn a_disk_is_its_base_with_its_changes() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        // The base is a part of a larger disk, as the root of a partitioned one is.
        let file = disk(root, "base", "xxabcd.ef..xx");
        let base = Base { file, range: 2 * BLOCK..11 * BLOCK };
        for (number, ours) in
            ["abcd.ef..", "aBcd.e.gh", "..........zz", ".", "abcd.ef..x", "xxxxxxxxx"].iter().enumerate()
        {
            let ours_disk = disk(root, &format!("ours-{number}"), ours);
            let stored = root.join(format!("changes-{number}"));
            let changes = Changes::store(&ours_disk, &base, &stored, &Contents::default()).unwrap();
            let pieces = changes.pieces(&base, &stored).unwrap();
            assert_eq!(assembled(root, &pieces, changes.size), content(&ours_disk), "{ours}: {changes:?}");
        }
        assert_eq!(
            assembled(root, &base.pieces(10 * BLOCK).unwrap(), 10 * BLOCK),
            content(&root.join("ours-0")) + "\0"
        );
    }

    #[test]
    fn what_is_the_same_is_not_stored() {
        let directory = tempfile::tempdir().unwrap();
        let base = Base { file: disk(directory.path(), "base", "abcdef"), range: 0..6 * BLOCK };
        let ours = disk(directory.path(), "ours", "abXYe.");
        let changes = Changes::store(&ours, &base, &directory.path().join("changes"), &Contents::default()).unwrap();
        assert_eq!(changes.ranges, [2 * BLOCK..4 * BLOCK, 5 * BLOCK..6 * BLOCK]);
        assert_eq!(content(&directory.path().join("changes")), "\0\0XY\0\0");
    }
}
