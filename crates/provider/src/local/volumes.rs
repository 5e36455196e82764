//! How the disks of volumes come about, and how layers keep them.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::OFlags;

use super::Local;
use super::changes::{Base, Changes, Piece};
use super::contents::Contents;
use super::digests::{BlockDigests, Known};
use super::disk::{self, HVM, PARAVIRTUAL};
use super::images::{DIGESTS, DISK};
use super::loop_device::LoopDevice;
use super::records::{read_json, write_json};
use crate::{RegisteredImage, VolumeRecord, VolumeSpec};

/// What a layer has instead of a disk: where it differs from the base, and the content of these ranges.
const CHANGES: &str = "changes.json";
const CHANGED: &str = "changed.raw";
/// How much is written to a device at a time.
const CHUNK: usize = 1 << 20;
/// The unit of direct I/O on any block device here.
const SECTOR: u64 = 512;

impl Local {
    /// Makes the disk of a new volume in the new file `disk`.
    ///
    /// The content goes in through a loop device, which is kept for [`Local::take_device`]: to set one up over a file
    /// that has just been written makes the kernel write all of it out first.
    pub(super) fn fill_volume(&self, id: &str, spec: &VolumeSpec, disk: &Path) -> Result<()> {
        let mut base = self.base(spec.source.as_ref(), &spec.virtualization_type)?;
        let mut changes = None;
        let layer = spec.layer.as_ref().map(|key| self.layers_dir().join(key)).unwrap_or_default();
        if spec.layer.is_some() {
            changes = read_json::<Changes>(&layer.join(CHANGES))?;
            if changes.is_none() {
                base = Some(Base::whole(layer.join(DISK))?);
            }
        }
        let changed = layer.join(CHANGED);
        let (pieces, size) = match (&changes, &base) {
            (Some(changes), Some(base)) => (changes.pieces(base, &changed)?, changes.size),
            (Some(_), None) => bail!("the image is gone that the layer {} was made from", layer.display()),
            (None, Some(base)) if base.is_whole()? && disk::reflink(&base.file, disk)? => {
                return grow(disk, spec.size);
            }
            (None, Some(base)) => (base.pieces(base.size())?, base.size()),
            (None, None) => (Vec::new(), 0),
        };
        let doing = || format!("making the disk {}", disk.display());
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(disk).with_context(doing)?;
        file.set_len(size).with_context(doing)?;
        grow(disk, spec.size)?;
        let device = LoopDevice::attach(disk, None, false)?;
        write_through(&device, &pieces, &self.contents).map_err(disk::making_room).with_context(doing)?;
        // While provisioners compute, the disk can be written to the one below it.
        thread::spawn(move || file.sync_data());
        self.devices().insert(id.to_owned(), device);
        Ok(())
    }

    /// The loop device of a volume.
    pub(super) fn take_device(&self, id: &str, disk: &Path) -> Result<LoopDevice> {
        match self.devices().remove(id) {
            Some(device) => Ok(device),
            None => LoopDevice::attach(disk, None, false),
        }
    }

    /// What is known of the blocks that a volume was made from.
    pub(super) fn known(&self, volume: &VolumeRecord) -> Result<Option<Known>> {
        let Some(base) = self.base_of(volume)? else { return Ok(None) };
        let digests = BlockDigests::read(&base.file.with_file_name(DIGESTS));
        Ok(digests.map(|digests| Known { base, digests }))
    }

    /// Keeps the present content of a volume's disk in the directory of a layer.
    pub(super) fn store_layer(&self, volume: &VolumeRecord, disk: &Path, layer: &Path) -> Result<()> {
        let whole = layer.join(DISK);
        let Some(base) = self.base_of(volume)? else {
            return disk::clone(disk, &whole);
        };
        // Where content can be shared, that is cheaper than to compare.
        if disk::reflink(disk, &whole)? {
            return Ok(());
        }
        fs::remove_file(&whole).with_context(|| format!("removing {}", whole.display()))?;
        let changes = Changes::store(disk, &base, &layer.join(CHANGED), &self.contents)?;
        write_json(&layer.join(CHANGES), &changes)
    }

    /// Bytes that a layer takes.
    pub(super) fn layer_size(layer: &Path) -> u64 {
        // st_blocks counts units of 512 bytes, whatever the file system (stat(2)).
        let size = |name| layer.join(name).metadata().map_or(0, |file| file.blocks() * 512);
        [DISK, CHANGED, CHANGES].into_iter().map(size).sum()
    }

    fn base_of(&self, volume: &VolumeRecord) -> Result<Option<Base>> {
        let source = match &volume.source_image {
            Some(source) => self.read_image(&source.value)?,
            None => None,
        };
        self.base(source.as_ref(), &volume.virtualization_type)
    }

    /// What a volume is made from at first.
    fn base(&self, source: Option<&RegisteredImage>, virtualization_type: &str) -> Result<Option<Base>> {
        let Some(source) = source else { return Ok(None) };
        let file = self.image_disk(&source.id);
        let range = match (source.virtualization_type.as_str(), virtualization_type) {
            (HVM, PARAVIRTUAL) => disk::root_range(&file, source.root_partition())?,
            (have, want) if have == want => return Base::whole(file).map(Some),
            (have, want) => bail!(
                "cannot make a {want} volume of {} ({}), which is {have}: it has no partition table and no boot loader; start from an hvm image",
                source.name,
                source.id
            ),
        };
        Ok(Some(Base { file, range }))
    }
}

/// Makes a disk as large as it was asked to be; none becomes smaller.
fn grow(disk: &Path, size: Option<u64>) -> Result<()> {
    let doing = || format!("making the disk {}", disk.display());
    let file = OpenOptions::new().write(true).open(disk).with_context(doing)?;
    if let Some(size) = size {
        let now = file.metadata().with_context(doing)?.len();
        ensure!(now <= size, "{}: it would lose content: it needs {now} bytes, not {size}", doing());
        file.set_len(size).with_context(doing)?;
    }
    Ok(())
}

/// Writes by direct I/O, so that what the device has in its cache is never older than the file.
fn write_through(device: &LoopDevice, pieces: &[Piece], contents: &Contents) -> io::Result<()> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let target = OpenOptions::new().write(true).custom_flags(direct).open(&device.path)?;
    for piece in pieces {
        let content = contents.of(piece.file)?;
        for start in piece.range.clone().step_by(CHUNK) {
            let end = (start + CHUNK as u64).min(piece.range.end);
            let at = piece.at + (start - piece.range.start);
            let bytes = content.bytes(at..at + (end - start))?;
            if at.is_multiple_of(SECTOR) && (end - start).is_multiple_of(SECTOR) {
                target.write_all_at(bytes, start)?;
            } else {
                target.write_all_at(aligned(&mut Vec::new(), bytes), start)?;
            }
        }
    }
    Ok(())
}

/// A copy that direct I/O takes: it begins at a whole sector, and is filled up to one with zeros.
fn aligned<'a>(memory: &'a mut Vec<u8>, bytes: &[u8]) -> &'a [u8] {
    let length = bytes.len().next_multiple_of(SECTOR as usize);
    memory.resize(length + SECTOR as usize, 0);
    let start = memory.as_ptr().align_offset(SECTOR as usize);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    &memory[start..start + length]
}
