//! The digest of a disk, by the digests of its blocks.

use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use manifest::Identity;
use sha2::{Digest, Sha256};

use super::changes::Base;
use super::contents::{Contents, Mapped};
use super::disk::data_ranges;

/// Digests are taken block by block in the size of EBS snapshot blocks, so that a
/// published image has the digest that it had here.
pub const BLOCK: u64 = 512 * 1024;
/// Bytes of a SHA-256.
const LENGTH: usize = 32;

/// The SHA-256 of each 512 KiB block of a disk, in order. The last block is as long as the disk has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockDigests(Vec<u8>);

/// A disk that another was made from, whose digests are known.
pub struct Known {
    /// Where it is.
    pub base: Base,
    /// The digests of the base's whole file.
    pub digests: BlockDigests,
}

impl BlockDigests {
    /// Hashes a disk. Holes are hashed as the zeros that they read as, without reading them; blocks that
    /// are the same as in `known` are compared, which is cheaper than to hash them.
    pub fn of(disk: &Path, known: Option<&Known>, contents: &Contents) -> Result<Self> {
        let doing = || format!("hashing the disk {}", disk.display());
        let file = File::open(disk).with_context(doing)?;
        let length = file.metadata().with_context(doing)?.len();
        let data = data_ranges(&file, 0..length).with_context(doing)?;
        let ours = contents.of(disk).with_context(doing)?;
        let known = known.map(|known| Compared::with(known, contents)).transpose().with_context(doing)?;
        let zero_block = Sha256::digest(vec![0; usize::try_from(BLOCK)?]);
        let blocks = length.div_ceil(BLOCK);
        let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
        let share = blocks.div_ceil(workers).max(1);
        let hash = |first: u64| -> io::Result<Vec<u8>> {
            let mut digests = Vec::new();
            for block in first..(first + share).min(blocks) {
                let range = block * BLOCK..((block + 1) * BLOCK).min(length);
                if range.end - range.start == BLOCK && !overlaps(&data, range.clone()) {
                    digests.extend_from_slice(&zero_block);
                    continue;
                }
                let bytes = ours.bytes(range.clone())?;
                match known.as_ref().map(|known| known.same(block, bytes)).transpose()?.flatten() {
                    Some(digest) => digests.extend_from_slice(digest),
                    None => digests.extend_from_slice(&Sha256::digest(bytes)),
                }
            }
            Ok(digests)
        };
        let hash = &hash;
        let parts = thread::scope(|scope| {
            let running: Vec<_> = (0..workers).map(|worker| scope.spawn(move || hash(worker * share))).collect();
            running
                .into_iter()
                .map(|worker| worker.join().unwrap_or_else(|_| Err(io::Error::other("a hashing thread ended early"))))
                .collect::<io::Result<Vec<_>>>()
        })
        .with_context(doing)?;
        Ok(Self(parts.concat()))
    }

    /// The digest of the whole: SHA-256 over the digests of the blocks.
    pub fn whole(&self) -> Identity {
        Identity::sha256(hex::encode(Sha256::digest(&self.0)))
    }

    /// Reads digests that were written beside a disk; `None` if there are none.
    pub fn read(path: &Path) -> Option<Self> {
        let digests = fs::read(path).ok()?;
        digests.len().is_multiple_of(LENGTH).then_some(Self(digests))
    }

    /// The digest of each block.
    pub fn blocks(&self) -> impl Iterator<Item = [u8; LENGTH]> {
        self.0.as_chunks().0.iter().copied()
    }

    /// The bytes to write beside a disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What blocks are compared with.
struct Compared<'a> {
    content: Arc<Mapped>,
    digests: &'a BlockDigests,
    range: Range<u64>,
}

impl<'a> Compared<'a> {
    fn with(known: &'a Known, contents: &Contents) -> io::Result<Self> {
        let content = contents.of(&known.base.file)?;
        Ok(Self { content, digests: &known.digests, range: known.base.range.clone() })
    }

    /// The digest of a block, if it is the same here.
    fn same(&self, block: u64, bytes: &[u8]) -> io::Result<Option<&[u8]>> {
        let start = self.range.start + block * BLOCK;
        let end = start + bytes.len() as u64;
        let whole = start.is_multiple_of(BLOCK) && bytes.len() as u64 == BLOCK && end <= self.range.end;
        if !whole || self.content.bytes(start..end)? != bytes {
            return Ok(None);
        }
        let at = usize::try_from(start / BLOCK).map_err(io::Error::other)? * LENGTH;
        Ok(self.digests.0.get(at..at + LENGTH))
    }
}

fn overlaps(sorted: &[Range<u64>], wanted: Range<u64>) -> bool {
    let next = sorted.partition_point(|range| range.end <= wanted.start);
    sorted.get(next).is_some_and(|range| range.start < wanted.end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::disk::tests::sparse;
    use super::*;

    fn whole(disk: &tempfile::NamedTempFile) -> Identity {
        BlockDigests::of(disk.path(), None, &Contents::default()).unwrap().whole()
    }

    #[test]
    fn a_digest_does_not_depend_on_what_is_a_hole() {
        let length = 5 * BLOCK + 77;
        let holey = sparse(length, &[(2 * BLOCK + 5, b"content")]);
        let mut full = tempfile::NamedTempFile::new().unwrap();
        full.write_all(&fs::read(holey.path()).unwrap()).unwrap();
        assert_eq!(whole(&holey), whole(&full));

        let other = sparse(length, &[(2 * BLOCK + 5, b"contenu")]);
        assert_ne!(whole(&holey), whole(&other));
    }

    #[test]
    fn a_digest_is_that_of_the_block_digests_in_order() {
        let one_block = sparse(BLOCK, &[(0, b"x")]);
        let block = Sha256::digest(fs::read(one_block.path()).unwrap());
        assert_eq!(whole(&one_block).value, hex::encode(Sha256::digest(block)));
    }

    #[test]
    fn what_is_known_of_a_base_is_true_of_the_disk() {
        let base = sparse(6 * BLOCK, &[(0, b"first"), (2 * BLOCK, b"third"), (3 * BLOCK + 9, b"fourth")]);
        let digests = BlockDigests::of(base.path(), None, &Contents::default()).unwrap();
        // The disk was made from the base's third block on, and has changed in its second.
        let disk = sparse(4 * BLOCK + 5, &[(0, b"third"), (BLOCK + 9, b"FOURTH"), (4 * BLOCK, b"end")]);
        for start in [2 * BLOCK, 2 * BLOCK + 512] {
            let base = Base { file: base.path().to_owned(), range: start..6 * BLOCK };
            let known = Known { base, digests: digests.clone() };
            let with = BlockDigests::of(disk.path(), Some(&known), &Contents::default()).unwrap();
            assert_eq!(with, BlockDigests::of(disk.path(), None, &Contents::default()).unwrap());
        }
    }
}
