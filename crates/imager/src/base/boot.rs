//! Boot loaders for BIOS and UEFI, made with the image's own GRUB.

use std::path::Path;

use anyhow::{Context, Result};

use super::uuids::Uuids;
use crate::session::Session;

/// What both loaders need to find the root by its UUID, read the menu and start Linux.
const MODULES: &[&str] = &[
    "part_gpt",
    "ext2",
    "fat",
    "search",
    "search_fs_uuid",
    "normal",
    "configfile",
    "linux",
    "echo",
    "test",
    "serial",
    "gzio",
];

/// The loaders, as the disk takes them.
pub(crate) struct Boot {
    /// GRUB's `boot.img`: the first sector of a BIOS disk.
    pub(crate) first_sector: Vec<u8>,
    /// GRUB's `core.img`, for the BIOS boot partition.
    pub(crate) core: Vec<u8>,
    /// The loader for the EFI system partition, as a path in the session.
    pub(crate) efi: std::path::PathBuf,
}

/// The boot menu: one entry, by symlinks that the kernel's packages keep.
pub(crate) fn menu(uuids: &Uuids) -> String {
    format!(
        "set timeout=0\n\
         serial --unit=0 --speed=115200\n\
         terminal_output serial console\n\
         search --no-floppy --fs-uuid --set=root {root}\n\
         menuentry 'Debian' {{\n\
         \tlinux /vmlinuz root=UUID={root} rw console=tty0 console=ttyS0,115200 net.ifnames=1\n\
         \tinitrd /initrd.img\n\
         }}\n",
        root = uuids.root
    )
}

/// Makes both loaders with the GRUB that is installed in `tree`.
pub(crate) fn make(session: &Session, tree: &Path, uuids: &Uuids) -> Result<Boot> {
    let early = format!("search.fs_uuid {} root\nset prefix=($root)/boot/grub\nnormal\n", uuids.root);
    session.command("tee").arg(tree.join("tmp/early.cfg")).input(early).run()?;
    for (platform, output, own) in
        [("i386-pc", "/tmp/core.img", "biosdisk"), ("x86_64-efi", "/tmp/bootx64.efi", "efi_gop")]
    {
        session
            .command("chroot")
            .arg(tree)
            .args(["grub-mkimage", "--format", platform, "--output", output, "--prefix", "/boot/grub"])
            .args(["--config", "/tmp/early.cfg", own])
            .args(MODULES)
            .run()?;
    }
    let inside = |path: &str| tree.join(path.trim_start_matches('/'));
    let read = |path: &str| -> Result<Vec<u8>> {
        Ok(session.command("cat").arg(inside(path)).run().with_context(|| format!("reading {path}"))?.stdout)
    };
    let boot = Boot {
        first_sector: read("/usr/lib/grub/i386-pc/boot.img")?,
        core: read("/tmp/core.img")?,
        efi: tree.with_file_name("bootx64.efi"),
    };
    session.command("mv").arg(inside("/tmp/bootx64.efi")).arg(&boot.efi).run()?;
    session.command("rm").args([inside("/tmp/core.img"), inside("/tmp/early.cfg")]).run()?;
    Ok(boot)
}
