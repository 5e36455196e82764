//! Raw disks as files: cloning, hashing, and where the root file system is.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use cli::Command;
use rustix::fs::{SeekFrom, copy_file_range, ioctl_ficlone, seek};
use serde::Deserialize;

/// The type of a disk whose root file system is partition 1 of a GPT.
pub const HVM: &str = "hvm";
/// The type of a disk that is a root file system as a whole.
pub const PARAVIRTUAL: &str = "paravirtual";

/// The bytes of `disk` that hold the root file system, which is in `partition`; 0 is the whole disk.
pub fn root_range(disk: &Path, partition: u32) -> Result<Range<u64>> {
    if partition == 0 {
        return Ok(0..disk.metadata().with_context(|| format!("disk {}", disk.display()))?.len());
    }
    let table = Command::new("sfdisk").arg("--json").arg(disk).run()?.stdout;
    partition_in(&table, partition).with_context(|| format!("partition table of {}", disk.display()))
}

/// Reads the bytes of a partition from what `sfdisk --json` prints.
fn partition_in(json: &[u8], partition: u32) -> Result<Range<u64>> {
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
    let number = |node: &str| node.rsplit(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok());
    match partitions.iter().find(|found| number(&found.node) == Some(partition)) {
        Some(found) => Ok(found.start * sectorsize..(found.start + found.size) * sectorsize),
        None => bail!("there is no partition {partition}, where the root file system should be"),
    }
}

/// Tells the kernel of a partition: not every kernel looks at the table of a loop device by itself.
///
/// partx(8) would do that for all, and write out everything that the device has not written yet.
pub fn add_partition(device: &Path, partition: u32, range: &Range<u64>) -> Result<()> {
    // The unit is 512 bytes, whatever the device's own sectors are (addpart(8)).
    let sectors = [range.start / 512, (range.end - range.start) / 512].map(|count| count.to_string());
    if !PathBuf::from(format!("{}p{partition}", device.display())).exists() {
        Command::new("addpart").arg(device).arg(partition.to_string()).args(sectors).run()?;
    }
    Ok(())
}

/// Checks the root file system without changing it: an image never rests on a damaged one.
pub fn check(disk: &Path, partition: u32) -> Result<()> {
    let offset = root_range(disk, partition)?.start;
    // Byte 1080 of an ext2, ext3 or ext4 has its magic number (ext4's documentation: super block, s_magic).
    let mut magic = [0; 2];
    File::open(disk).and_then(|disk| disk.read_exact_at(&mut magic, offset + 1080)).context("reading a super block")?;
    ensure!(
        magic == [0x53, 0xef],
        "the root file system of {} is not ext4, which is what instances here boot from: make it with mkfs.ext4",
        disk.display()
    );
    let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(format!("{}?offset={offset}", disk.display())).run();
    checked.with_context(|| format!("checking the root file system of {}", disk.display()))?;
    Ok(())
}

/// Copies a disk to a new file: by reflink where the file system can, else without its holes.
pub fn clone(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("copying the disk {} to {}", from.display(), to.display());
    if reflink(from, to)? {
        return Ok(());
    }
    let source = File::open(from).with_context(doing)?;
    let target = OpenOptions::new().write(true).open(to).with_context(doing)?;
    let size = source.metadata().with_context(doing)?.len();
    target.set_len(size).with_context(doing)?;
    for data in data_ranges(&source, 0..size).with_context(doing)? {
        copy_range(&source, &target, data.clone(), data.start).map_err(making_room).with_context(doing)?;
    }
    Ok(())
}

/// Makes the new file `to` with the content of `from`, if the file system can do that without copying; else it is
/// left empty.
pub fn reflink(from: &Path, to: &Path) -> Result<bool> {
    let doing = || format!("copying the disk {} to {}", from.display(), to.display());
    let source = File::open(from).with_context(doing)?;
    let target = OpenOptions::new().write(true).create_new(true).open(to).with_context(doing)?;
    Ok(ioctl_ficlone(&target, &source).is_ok())
}

/// What helps when the disk that the store is on is full.
pub fn making_room(error: io::Error) -> anyhow::Error {
    let full = error.kind() == io::ErrorKind::StorageFull;
    let error = anyhow::Error::from(error);
    if full { error.context("`imager layers --prune` and `imager remove` make room") } else { error }
}

/// Copies a range of a file to the place `to` of another.
pub fn copy_range(source: &File, target: &File, range: Range<u64>, to: u64) -> io::Result<()> {
    let (mut read, mut write) = (range.start, to);
    while read < range.end {
        let length = usize::try_from(range.end - read).unwrap_or(usize::MAX);
        if copy_file_range(source, Some(&mut read), target, Some(&mut write), length)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter while it was copied"));
        }
    }
    Ok(())
}

/// The ranges of `range` that are not holes, in order.
pub fn data_ranges(file: &File, range: Range<u64>) -> io::Result<Vec<Range<u64>>> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const BLOCK: u64 = 512 * 1024;

    /// A disk of this length that has these bytes at these offsets, and holes.
    pub fn sparse(length: u64, data: &[(u64, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(length).unwrap();
        for (offset, bytes) in data {
            file.as_file().write_all_at(bytes, *offset).unwrap();
        }
        file
    }

    #[test]
    fn a_clone_has_the_content_and_the_holes() {
        use std::os::unix::fs::MetadataExt;
        let disk = sparse(64 * BLOCK, &[(BLOCK + 4096, b"one"), (40 * BLOCK, b"two")]);
        let directory = tempfile::tempdir().unwrap();
        let whole = directory.path().join("whole");
        clone(disk.path(), &whole).unwrap();
        assert_eq!(std::fs::read(disk.path()).unwrap(), std::fs::read(&whole).unwrap());
        assert!(whole.metadata().unwrap().blocks() * 512 < BLOCK);
    }

    #[test]
    fn a_partition_is_found_wherever_the_table_lists_it() {
        let json = br#"{"partitiontable": {"label":"gpt", "id":"X", "device":"/s/v1/disk.raw", "unit":"sectors", "sectorsize":512,
            "partitions": [
              {"node":"/s/v1/disk.raw14", "start":2048, "size":8192, "type":"A"},
              {"node":"/s/v1/disk.raw1", "start":264192, "size":100, "type":"B"}]}}"#;
        assert_eq!(partition_in(json, 1).unwrap(), 264_192 * 512..264_292 * 512);
        assert_eq!(partition_in(json, 14).unwrap().start, 2048 * 512);
        let none = br#"{"partitiontable": {"sectorsize":512, "partitions": []}}"#;
        assert!(partition_in(none, 1).unwrap_err().to_string().contains("no partition 1"));
    }
}
