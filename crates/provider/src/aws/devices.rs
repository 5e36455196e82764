//! Block devices: what a volume is to be called, and which one it has become.
//!
//! Instances of the Nitro system call EBS volumes /dev/nvme… in the order in which they appear, whatever AttachVolume
//! was told; those on Xen keep the name, with `xvd` for `sd` ("Device names for volumes on Linux instances"). So a volume is
//! found by its id wherever there is one: as the serial number of an NVMe device it lacks its dash.

use std::fs;
use std::path::{Path, PathBuf};

/// The names that AWS recommends for EBS volumes.
pub(super) fn names() -> impl Iterator<Item = String> {
    ('f'..='p').map(|letter| format!("/dev/sd{letter}"))
}

/// Whether the kernel has a device of this name, below `root`.
pub(super) fn exists(root: &Path, name: &str) -> bool {
    kernels_names(name).iter().any(|name| below(root, name).exists())
}

/// The block device of `volume`, which was attached as `name`; `None` while the kernel does not have it.
///
/// `root` is that of the machine whose /dev and /sys are looked at.
pub(super) fn find(root: &Path, volume: &str, name: &str) -> Option<PathBuf> {
    let serial = volume.replace('-', "");
    by_id(root, &serial).or_else(|| by_serial(root, &serial)).or_else(|| by_name(root, name))
}

/// The link that udev makes (60-persistent-storage.rules).
fn by_id(root: &Path, serial: &str) -> Option<PathBuf> {
    let link = format!("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{serial}");
    below(root, &link).canonicalize().ok()
}

/// What the NVMe driver knows (nvme_core: the attribute `serial`, filled up with spaces).
fn by_serial(root: &Path, serial: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(below(root, "/sys/block")).ok()?.flatten();
    let mut of_volume = entries
        .filter(|entry| fs::read_to_string(entry.path().join("device/serial")).is_ok_and(|is| is.trim() == serial));
    let device = below(root, "/dev").join(of_volume.next()?.file_name());
    device.exists().then_some(device)
}

/// On Xen the name is the volume's: it was free when it was chosen.
fn by_name(root: &Path, name: &str) -> Option<PathBuf> {
    kernels_names(name).iter().map(|name| below(root, name)).find_map(|path| path.canonicalize().ok())
}

/// What a kernel may call a device that AttachVolume calls `name`.
fn kernels_names(name: &str) -> [String; 2] {
    [name.to_owned(), name.replace("/dev/sd", "/dev/xvd")]
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    const VOLUME: &str = "vol-0123456789abcdef0";

    /// A machine with two NVMe disks, the second of which is the volume's.
    fn nitro() -> TempDir {
        let root = tempfile::tempdir().unwrap();
        for (disk, serial) in [("nvme0n1", "vol0aaaaaaaaaaaaaaaa "), ("nvme1n1", "vol0123456789abcdef0 ")] {
            let device = root.path().join("sys/block").join(disk).join("device");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("serial"), serial).unwrap();
            fs::create_dir_all(root.path().join("dev/disk/by-id")).unwrap();
            fs::write(root.path().join("dev").join(disk), "").unwrap();
        }
        root
    }

    fn found(root: &TempDir) -> Option<String> {
        let root = root.path().canonicalize().unwrap();
        let found = find(&root, VOLUME, "/dev/sdf")?;
        Some(found.strip_prefix(&root).unwrap().display().to_string())
    }

    #[test]
    fn an_nvme_device_is_found_by_the_volumes_id() {
        let root = nitro();
        assert_eq!(found(&root).as_deref(), Some("dev/nvme1n1"), "by its serial number");
        let link = root.path().join("dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0123456789abcdef0");
        symlink("../../nvme0n1", link).unwrap();
        assert_eq!(found(&root).as_deref(), Some("dev/nvme0n1"), "udev's link comes first");
    }

    #[test]
    fn on_xen_the_name_is_the_volumes() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("dev")).unwrap();
        assert_eq!(found(&root), None);
        assert!(!exists(root.path(), "/dev/sdf"));
        fs::write(root.path().join("dev/xvdf"), "").unwrap();
        assert_eq!(found(&root).as_deref(), Some("dev/xvdf"));
        assert!(exists(root.path(), "/dev/sdf") && !exists(root.path(), "/dev/sdg"));
    }
}
