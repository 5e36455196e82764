//! Which blocks a snapshot has to be given.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::LazyLock;

use anyhow::{Context, Result};
use sha2::{Digest as _, Sha256};

use crate::local::{BLOCK, BlockDigests};

/// The SHA-256 of a block.
pub(super) type Digest = [u8; 32];

/// That of a block of zeros.
static ZEROS: LazyLock<Digest> = LazyLock::new(|| Sha256::digest(vec![0; BLOCK as usize]).into());

/// What a volume holds, by the digests of its blocks. Behind the last of them there are zeros.
pub(super) struct Content(Vec<Digest>);

impl Content {
    /// What a volume holds that has this disk in it.
    pub fn of(disk: &Path, digests: &BlockDigests) -> Result<Self> {
        let mut blocks: Vec<Digest> = digests.blocks().collect();
        let doing = || format!("reading the disk {}", disk.display());
        let file = File::open(disk).with_context(doing)?;
        let length = file.metadata().with_context(doing)?.len();
        // The digest of the last block is that of what the disk has of it, and a volume has all of it.
        if !length.is_multiple_of(BLOCK)
            && let Some(last) = blocks.len().checked_sub(1)
        {
            blocks[last] = Sha256::digest(read(&file, last).with_context(doing)?).into();
        }
        Ok(Self(blocks))
    }

    /// The digest of a block.
    pub fn at(&self, index: usize) -> Digest {
        self.0.get(index).copied().unwrap_or(*ZEROS)
    }

    /// Those of a volume's first `count` blocks that have to be written because what is below them is something else.
    pub fn unlike(&self, below: &Below, count: usize) -> Vec<usize> {
        (0..count).filter(|index| below.at(*index) != Some(self.at(*index))).collect()
    }

    /// The checksum of a snapshot that these blocks were written to, in ascending order: SHA-256 over their digests.
    ///
    /// Source: EBS API reference, CompleteSnapshot, `Checksum`, whose "string" of checksums is of bytes and not of
    /// base64 (coldsnap, `upload.rs`, does so too). A parent's blocks are not in it.
    pub fn linear(&self, written: &[usize]) -> Digest {
        let mut whole = Sha256::new();
        written.iter().for_each(|index| whole.update(self.at(*index)));
        whole.finalize().into()
    }
}

/// What a snapshot holds before anything is written to it.
pub(super) struct Below<'a> {
    /// What its parent holds, and how many blocks that has.
    pub parent: Option<(&'a Content, usize)>,
    /// A block that nobody has written is random data in an encrypted snapshot, and zeros in another (coldsnap#395).
    pub encrypted: bool,
}

impl Below<'_> {
    fn at(&self, index: usize) -> Option<Digest> {
        match self.parent {
            Some((parent, count)) if index < count => Some(parent.at(index)),
            _ => (!self.encrypted).then_some(*ZEROS),
        }
    }
}

/// A block of a disk, filled up with zeros where the disk ends in it or before it.
pub(super) fn read(disk: &File, index: usize) -> io::Result<Vec<u8>> {
    let mut block = vec![0; BLOCK as usize];
    let mut done = 0;
    while done < block.len() {
        match disk.read_at(&mut block[done..], index as u64 * BLOCK + done as u64)? {
            0 => break,
            more => done += more,
        }
    }
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::contents::Contents;
    use crate::local::sparse_disk;

    fn content(length: u64, data: &[(u64, &[u8])]) -> Content {
        let disk = sparse_disk(length, data);
        Content::of(disk.path(), &BlockDigests::of(disk.path(), None, &Contents::default()).unwrap()).unwrap()
    }

    const NOTHING: Below = Below { parent: None, encrypted: false };

    #[test]
    fn without_a_parent_zeros_are_there_already_unless_it_is_encrypted() {
        let content = content(3 * BLOCK, &[(BLOCK + 7, b"x")]);
        assert_eq!(content.unlike(&NOTHING, 5), [1]);
        assert_eq!(content.unlike(&Below { parent: None, encrypted: true }, 5), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn zeros_over_a_parents_data_are_written_and_what_is_the_same_is_not() {
        let parent = content(4 * BLOCK, &[(0, b"kept"), (BLOCK, b"old"), (3 * BLOCK, b"behind our end")]);
        let ours = content(3 * BLOCK, &[(0, b"kept"), (2 * BLOCK, b"new")]);
        assert_eq!(ours.unlike(&Below { parent: Some((&parent, 6)), encrypted: false }, 8), [1, 2, 3]);
        // Behind the end of the parent's volume nothing is known of an encrypted one.
        assert_eq!(ours.unlike(&Below { parent: Some((&parent, 6)), encrypted: true }, 8), [1, 2, 3, 6, 7]);
    }

    #[test]
    fn a_last_block_is_what_the_volume_has_of_it() {
        let short = content(2 * BLOCK + 512, &[(2 * BLOCK, b"end")]);
        let long = content(3 * BLOCK, &[(2 * BLOCK, b"end")]);
        assert_eq!(short.at(2), long.at(2));
        assert_eq!(content(2 * BLOCK + 512, &[]).unlike(&NOTHING, 4), [0; 0]);
    }

    #[test]
    fn the_checksum_is_over_the_digests_of_what_was_written() {
        let content = content(3 * BLOCK, &[(0, b"a"), (2 * BLOCK, b"b")]);
        assert_eq!(content.linear(&[0, 2])[..], Sha256::digest([content.at(0), content.at(2)].concat())[..]);
        assert_eq!(content.linear(&[])[..], Sha256::digest([])[..]);
    }
}
