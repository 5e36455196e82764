//! A look at a file system that no other process sees mounted.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Mounts `device` read-only for the time that `look` takes.
///
/// The mount is made in a mount namespace of one thread (unshare(2): the
/// namespace is an attribute of a thread), so it ends with the thread, however
/// that ends, and nothing has to be unmounted.
pub fn with<T: Send>(device: &Path, look: impl FnOnce(&Path) -> Result<T> + Send) -> Result<T> {
    let look_at_mount = || {
        let target = tempfile::tempdir().context("creating a mount point")?;
        // SAFETY: the flags change the mount namespace (and with it the working directory) of this
        // thread alone, which was started for this purpose.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("making a mount namespace (are you root?)")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("making the mount namespace private")?;
        let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(device, target.path(), "ext4", read_only, Some(c"noload"))
            .with_context(|| format!("mounting {}", device.display()))?;
        let seen = look(target.path());
        rustix::mount::unmount(target.path(), rustix::mount::UnmountFlags::DETACH).context("unmounting")?;
        seen
    };
    thread::scope(|scope| scope.spawn(look_at_mount).join())
        .unwrap_or_else(|_| Err(anyhow!("the thread that looked at {} ended early", device.display())))
}
