//! The volume's block device, as a build sees it: by a name that partitions follow from.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::session::Session;

/// As many partitions have a name. A GPT may have 128; disks of machine images have a handful.
const NAMED: u32 = 16;

/// An attached volume.
///
/// Templates write `{{.Device}}1` for the first partition, as it is with /dev/xvdf. The kernel calls that of
/// /dev/nvme1n1 and /dev/loop0 otherwise, so the names that a template is given are links.
pub(crate) struct Device {
    disk: PathBuf,
    named: PathBuf,
}

impl Device {
    /// Names `disk` and its partitions, of which there may be none yet, in a directory below `scratch`.
    pub(crate) fn name(disk: &Path, scratch: &Path) -> Result<Self> {
        let doing = || format!("naming the device {}", disk.display());
        let directory = scratch.join("devices");
        fs::create_dir_all(&directory).with_context(doing)?;
        let named = directory.join(disk.file_name().with_context(doing)?);
        let device = Self { disk: disk.to_owned(), named };
        for number in 0..NAMED {
            let (to, name) = (provider::partition(disk, number), device.partition(number));
            // Left by a volume that had the same device before.
            let _ = fs::remove_file(&name);
            symlink(to, name).with_context(doing)?;
        }
        Ok(device)
    }

    /// What `{{.Device}}` is.
    pub(crate) fn path(&self) -> &Path {
        &self.named
    }

    /// A partition; 0 is the whole disk.
    pub(crate) fn partition(&self, number: u32) -> PathBuf {
        if number == 0 { self.named.clone() } else { format!("{}{number}", self.named.display()).into() }
    }

    /// Has the kernel know the partitions that are in the disk's table, if it has one: some kernels do not look by
    /// themselves.
    pub(crate) fn read_partitions(&self, session: &Session) -> Result<()> {
        session.command("partx").arg("--update").arg(&self.disk).ask()?;
        Ok(())
    }

    /// A partition that must be there.
    pub(crate) fn present(&self, number: u32) -> Result<PathBuf> {
        let path = provider::partition(&self.disk, number);
        ensure!(
            path.exists(),
            "the volume has no partition {number}, or /dev is no devtmpfs and does not show it: set \"mount_partition\" to \
             the partition that has the root (0 is the whole disk)"
        );
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_follow_from_a_devices_name_whatever_the_kernel_calls_them() {
        let scratch = tempfile::tempdir().unwrap();
        for (disk, first) in
            [("/dev/xvdf", "/dev/xvdf1"), ("/dev/nvme1n1", "/dev/nvme1n1p1"), ("/dev/loop0", "/dev/loop0p1")]
        {
            let device = Device::name(Path::new(disk), scratch.path()).unwrap();
            let name = format!("{}1", device.path().display());
            assert_eq!(fs::read_link(name).unwrap(), Path::new(first));
            assert_eq!(fs::read_link(device.path()).unwrap(), Path::new(disk));
        }
    }
}
