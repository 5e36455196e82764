//! Raw disks as files: cloning, hashing, and where the root file system is.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::{io, thread};

use anyhow::{Context, Result, bail};
use cli::Command;
use manifest::Identity;
use rustix::fs::{SeekFrom, copy_file_range, ftruncate, ioctl_ficlone, seek};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Digests are taken block by block in the size of EBS snapshot blocks, so that a
/// published image has the digest that it had here.
const BLOCK: u64 = 512 * 1024;

/// The type of a disk whose root file system is partition 1 of a GPT.
pub const HVM: &str = "hvm";
/// The type of a disk that is a root file system as a whole.
pub const PARAVIRTUAL: &str = "paravirtual";

/// The bytes of `disk` that hold the root file system.
pub fn root_range(disk: &Path, virtualization_type: &str) -> Result<Range<u64>> {
    if virtualization_type == PARAVIRTUAL {
        return Ok(0..disk.metadata().with_context(|| format!("disk {}", disk.display()))?.len());
    }
    let table = Command::new("sfdisk").arg("--json").arg(disk).run()?.stdout;
    first_partition(&table).with_context(|| format!("partition table of {}", disk.display()))
}

/// Reads the bytes of partition 1 from what `sfdisk --json` prints.
fn first_partition(json: &[u8]) -> Result<Range<u64>> {
    #[derive(Deserialize)]
    struct Sfdisk {
        partitiontable: Table,
    }
    #[derive(Deserialize)]
    struct Table {
        #[serde(default = "classic_sector")]
        sectorsize: u64,
        partitions: Vec<Partition>,
    }
    #[derive(Deserialize)]
    struct Partition {
        node: String,
        start: u64,
        size: u64,
    }
    fn classic_sector() -> u64 {
        512
    }
    let Sfdisk { partitiontable: Table { sectorsize, partitions } } = serde_json::from_slice(json)?;
    // sfdisk names partition N of `disk.raw` `disk.raw1`, and of `disk0` `disk0p1`.
    let number = |node: &str| node.trim_start_matches(|c: char| !c.is_ascii_digit()).to_owned();
    let is_first =
        |node: &str| number(node.rsplit(['.', '/']).next().unwrap_or_default()) == "1" || node.ends_with("p1");
    match partitions.iter().find(|partition| is_first(&partition.node)) {
        Some(first) => Ok(first.start * sectorsize..(first.start + first.size) * sectorsize),
        None => bail!("there is no partition 1, where the root file system should be"),
    }
}

/// Checks the root file system without changing it: an image never rests on a damaged one.
pub fn check(disk: &Path, virtualization_type: &str) -> Result<()> {
    let offset = root_range(disk, virtualization_type)?.start;
    let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(format!("{}?offset={offset}", disk.display())).run();
    checked.with_context(|| format!("checking the root file system of {}", disk.display()))?;
    Ok(())
}

/// Copies a disk, or a range of it, to a new file: by reflink where the file
/// system can, else without its holes.
pub fn clone(from: &Path, range: Option<Range<u64>>, to: &Path) -> Result<()> {
    let doing = || format!("copying the disk {} to {}", from.display(), to.display());
    let source = File::open(from).with_context(doing)?;
    let target = OpenOptions::new().write(true).create_new(true).open(to).with_context(doing)?;
    let whole = range.is_none();
    let range = range.unwrap_or(0..source.metadata().with_context(doing)?.len());
    ftruncate(&target, range.end - range.start).map_err(io::Error::from).with_context(doing)?;
    if whole && ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let copied = copy_data(&source, &target, &range);
    match copied.as_ref().map_err(io::Error::kind) {
        Err(io::ErrorKind::StorageFull) => {
            copied.context("`imager layers --prune` and `imager remove` make room").with_context(doing)
        }
        _ => copied.with_context(doing),
    }
}

fn copy_data(source: &File, target: &File, range: &Range<u64>) -> io::Result<()> {
    for data in data_ranges(source, range.clone())? {
        let (mut read, mut write) = (data.start, data.start - range.start);
        while read < data.end {
            let length = usize::try_from(data.end - read).unwrap_or(usize::MAX);
            if copy_file_range(source, Some(&mut read), target, Some(&mut write), length)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was copied"));
            }
        }
    }
    Ok(())
}

/// The ranges of `range` that are not holes, in order.
fn data_ranges(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
    let mut found = Vec::new();
    let mut at = range.start;
    while at < range.end {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Only a hole follows.
            Err(rustix::io::Errno::NXIO) => break,
            Err(errno) => return Err(errno.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?.min(range.end);
        if start < range.end {
            found.push(start..end);
        }
        at = end;
    }
    Ok(found)
}

/// The digest of a disk's content: SHA-256 over the SHA-256 of each 512 KiB block in order.
///
/// The last block is as long as the disk has it. Holes are hashed as the zeros
/// that they read as, without reading them.
pub fn digest(disk: &Path) -> Result<Identity> {
    let doing = || format!("hashing the disk {}", disk.display());
    let file = File::open(disk).with_context(doing)?;
    let length = file.metadata().with_context(doing)?.len();
    let data = data_ranges(&file, 0..length).with_context(doing)?;
    let blocks = length.div_ceil(BLOCK);
    let zero_block = Sha256::digest(vec![0; usize::try_from(BLOCK)?]);
    let workers = thread::available_parallelism().map_or(1, usize::from) as u64;
    let share = blocks.div_ceil(workers).max(1);
    let hash = |first: u64| -> io::Result<Vec<u8>> {
        let mut digests = Vec::new();
        let mut buffer = Vec::new();
        for block in first..(first + share).min(blocks) {
            let (start, end) = (block * BLOCK, ((block + 1) * BLOCK).min(length));
            if end - start == BLOCK && !overlaps(&data, start..end) {
                digests.extend_from_slice(&zero_block);
            } else {
                buffer.resize(usize::try_from(end - start).map_err(io::Error::other)?, 0);
                file.read_exact_at(&mut buffer, start)?;
                digests.extend_from_slice(&Sha256::digest(&buffer));
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
    Ok(Identity::sha256(hex::encode(Sha256::digest(parts.concat()))))
}

fn overlaps(sorted: &[Range<u64>], wanted: Range<u64>) -> bool {
    let next = sorted.partition_point(|range| range.end <= wanted.start);
    sorted.get(next).is_some_and(|range| range.start < wanted.end)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn sparse(length: u64, data: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(length).unwrap();
        for (offset, bytes) in data {
            file.as_file().write_all_at(bytes, *offset).unwrap();
        }
        file
    }

    #[test]
    fn a_digest_does_not_depend_on_what_is_a_hole() {
        let length = 5 * BLOCK + 77;
        let holey = sparse(length, &[(2 * BLOCK + 5, b"content")]);
        let mut full = tempfile::NamedTempFile::new().unwrap();
        full.write_all(&std::fs::read(holey.path()).unwrap()).unwrap();
        assert_eq!(digest(holey.path()).unwrap(), digest(full.path()).unwrap());

        let other = sparse(length, &[(2 * BLOCK + 5, b"contenu")]);
        assert_ne!(digest(holey.path()).unwrap(), digest(other.path()).unwrap());
    }

    #[test]
    fn a_digest_is_that_of_the_block_digests_in_order() {
        let one_block = sparse(BLOCK, &[(0, b"x")]);
        let block = Sha256::digest(std::fs::read(one_block.path()).unwrap());
        assert_eq!(digest(one_block.path()).unwrap().value, hex::encode(Sha256::digest(block)));
    }

    #[test]
    fn a_clone_has_the_content_and_the_holes() {
        use std::os::unix::fs::MetadataExt;
        let disk = sparse(64 * BLOCK, &[(BLOCK + 4096, b"one"), (40 * BLOCK, b"two")]);
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("whole");
        clone(disk.path(), None, &whole).unwrap();
        assert_eq!(digest(disk.path()).unwrap(), digest(&whole).unwrap());
        assert!(whole.metadata().unwrap().blocks() * 512 < BLOCK);

        let part = directory.path().join("part");
        clone(disk.path(), Some(BLOCK..41 * BLOCK), &part).unwrap();
        let content = std::fs::read(&part).unwrap();
        assert_eq!(content.len() as u64, 40 * BLOCK);
        assert_eq!(&content[4096..4099], b"one");
        assert_eq!(&content[(39 * BLOCK) as usize..][..3], b"two");
    }

    #[test]
    fn partition_1_is_found_wherever_the_table_lists_it() {
        let json = br#"{"partitiontable": {"label":"gpt", "id":"X", "device":"/s/v1/disk.raw", "unit":"sectors", "sectorsize":512,
            "partitions": [
              {"node":"/s/v1/disk.raw14", "start":2048, "size":8192, "type":"A"},
              {"node":"/s/v1/disk.raw1", "start":264192, "size":100, "type":"B"}]}}"#;
        assert_eq!(first_partition(json).unwrap(), 264_192 * 512..264_292 * 512);
        let none = br#"{"partitiontable": {"sectorsize":512, "partitions": []}}"#;
        assert!(first_partition(none).unwrap_err().to_string().contains("no partition 1"));
    }
}
