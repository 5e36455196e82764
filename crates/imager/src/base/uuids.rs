//! Names by which an image's file systems are found.

use uuid::Uuid;

/// The identities of a disk's file systems.
pub(crate) struct Uuids {
    pub(crate) root: Uuid,
    pub(crate) esp: u32,
}

impl Uuids {
    /// New ones, for a new disk. A FAT volume's has 32 bits.
    pub(crate) fn random() -> Self {
        Self { root: Uuid::new_v4(), esp: Uuid::new_v4().as_fields().0 }
    }

    /// The image's `fstab`. The root is not in it: the boot menu mounts it read-write, and an instance
    /// whose root is an overlay could not remount it by its UUID.
    pub(crate) fn fstab(&self) -> String {
        format!("UUID={:04X}-{:04X} /boot/efi vfat umask=0077,nofail 0 1\n", self.esp >> 16, self.esp & 0xffff)
    }
}
