//! A bootable disk from a directory tree, without loop devices or mounts.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::boot::Boot;
use super::uuids::Uuids;
use crate::session::Session;

/// Bytes in a sector.
const SECTOR: u64 = 512;
/// BIOS boot partition 14: first sector and number of sectors, as on Debian's cloud images.
const BIOS: (u64, u64) = (2048, 6144);
/// EFI system partition 15.
const ESP: (u64, u64) = (8192, 253_952);
/// First sector of the root partition 1.
const ROOT: u64 = 262_144;
/// Sectors after the last partition: the backup of the partition table, up to a MiB boundary.
const TAIL: u64 = 2048;

/// Bytes of the EFI system partition that are copied at once.
const CHUNK: usize = 64 * 1024;

/// Writes `tree` and its boot loaders to the new file `disk` of `size` bytes.
pub(crate) fn make(session: &Session, size: u64, tree: &Path, boot: &Boot, uuids: &Uuids, disk: &Path) -> Result<()> {
    let doing = || format!("making the disk {}", disk.display());
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(disk).with_context(doing)?;
    file.set_len(size).with_context(doing)?;
    partition(session, size / SECTOR, disk)?;
    make_root(session, size, tree, uuids, disk)?;
    for (bytes, offset) in make_esp(session, &boot.efi, uuids, disk)?.into_iter().chain(bios_loader(boot)?) {
        file.write_all_at(&bytes, offset).with_context(doing)?;
    }
    file.sync_all().with_context(doing)
}

fn partition(session: &Session, sectors: u64, disk: &Path) -> Result<()> {
    // Types: BIOS boot, EFI system, and root for x86-64 of the Discoverable Partitions Specification.
    let table = format!(
        "label: gpt\nunit: sectors\nsector-size: {SECTOR}\n\
         disk14 : start={}, size={}, type=21686148-6449-6E6F-744E-656564454649\n\
         disk15 : start={}, size={}, type=C12A7328-F81F-11D2-BA4B-00C04FA93B46\n\
         disk1 : start={ROOT}, size={}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n",
        BIOS.0,
        BIOS.1,
        ESP.0,
        ESP.1,
        sectors - ROOT - TAIL,
    );
    session.command("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(disk).input(table).run()?;
    Ok(())
}

fn make_root(session: &Session, size: u64, tree: &Path, uuids: &Uuids, disk: &Path) -> Result<()> {
    let blocks_of_1k = (size / SECTOR - ROOT - TAIL) / 2;
    session
        .command("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-L", "root", "-m", "1", "-U", &uuids.root.to_string()])
        .arg("-d")
        .arg(tree)
        .args(["-E", &format!("offset={},lazy_itable_init=1", ROOT * SECTOR)])
        .arg(disk)
        .arg(format!("{blocks_of_1k}k"))
        .run()?;
    Ok(())
}

/// The EFI system partition, made beside the disk: mtools does not read one at an offset whose
/// geometry mkfs.vfat has taken from the whole disk.
fn make_esp(session: &Session, efi: &Path, uuids: &Uuids, disk: &Path) -> Result<Vec<(Vec<u8>, u64)>> {
    let esp = disk.with_extension("esp");
    File::create(&esp).and_then(|file| file.set_len(ESP.1 * SECTOR)).context("making the EFI system partition")?;
    let id = format!("{:08x}", uuids.esp);
    session.command("mkfs.vfat").args(["-F", "32", "-n", "ESP", "-i", &id]).arg(&esp).run()?;
    // The path that firmware tries on a disk it has no boot entry for (UEFI 2.10, 3.5.1.1).
    session.command("mmd").arg("-i").arg(&esp).args(["::/EFI", "::/EFI/BOOT"]).run()?;
    session.command("mcopy").arg("-i").arg(&esp).arg(efi).arg("::/EFI/BOOT/BOOTX64.EFI").run()?;
    let content = fs::read(&esp)?;
    fs::remove_file(&esp)?;
    // Zeros stay holes of the disk.
    let chunks = (0..).zip(content.chunks(CHUNK)).filter(|(_, chunk)| chunk.iter().any(|byte| *byte != 0));
    Ok(chunks.map(|(number, chunk)| (chunk.to_vec(), ESP.0 * SECTOR + number * CHUNK as u64)).collect())
}

/// GRUB's BIOS loader, with the places patched that tell each part where the next one is.
///
/// The offsets are those of `grub-bios-setup`, which cannot be used itself: it looks for partition
/// devices, and a disk in a file has none (GRUB 2.06, include/grub/i386/pc/boot.h).
fn bios_loader(boot: &Boot) -> Result<[(Vec<u8>, u64); 2]> {
    /// In boot.img: the sector of core.img, 64 bits.
    const KERNEL_SECTOR: usize = 0x5c;
    /// Bytes of boot.img before the partition table's place.
    const CODE: usize = 440;
    /// In the first sector of core.img: where its rest is (start 64, length 16, segment 16 bits).
    const BLOCK_LIST: usize = 0x1f4;
    /// The segment that the rest is loaded to: 0x8000 plus one sector, in paragraphs.
    const SEGMENT: u16 = 0x820;

    let mut first = boot.first_sector.clone();
    ensure!(first.len() == 512, "GRUB's boot.img has {} bytes and should have 512", first.len());
    first[KERNEL_SECTOR..KERNEL_SECTOR + 8].copy_from_slice(&BIOS.0.to_le_bytes());
    first.truncate(CODE);

    let mut core = boot.core.clone();
    let sectors = (core.len() as u64).div_ceil(SECTOR);
    ensure!(core.len() > 512 && sectors <= BIOS.1, "GRUB's core.img has {} bytes: it does not fit", core.len());
    core[BLOCK_LIST..BLOCK_LIST + 8].copy_from_slice(&(BIOS.0 + 1).to_le_bytes());
    core[BLOCK_LIST + 8..BLOCK_LIST + 10].copy_from_slice(&u16::try_from(sectors - 1)?.to_le_bytes());
    core[BLOCK_LIST + 10..BLOCK_LIST + 12].copy_from_slice(&SEGMENT.to_le_bytes());
    Ok([(first, 0), (core, BIOS.0 * SECTOR)])
}
