//! A look at file systems that no other process sees mounted.

use std::path::{Path, PathBuf};
use std::{fs, thread};

use anyhow::{Context, Result, anyhow};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Mounts `devices` read-only for the time that `look` takes.
///
/// The mounts are made in a mount namespace of one thread (unshare(2): the
/// namespace is an attribute of a thread, and threads that it starts share it), so
/// they end with the thread, however that ends, and nothing has to be unmounted.
pub fn with<T: Send, const N: usize>(
    devices: [&Path; N],
    look: impl FnOnce([&Path; N]) -> Result<T> + Send,
) -> Result<T> {
    let look_at_mounts = || {
        let directory = tempfile::tempdir().context("creating a mount point")?;
        // SAFETY: the flags change the mount namespace (and with it the working directory) of this
        // thread alone, which was started for this purpose.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("making a mount namespace (are you root?)")?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .context("making the mount namespace private")?;
        let read_only = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let mount_points: [_; N] = std::array::from_fn(|at| directory.path().join(at.to_string()));
        let mounted = devices.iter().zip(&mount_points).try_for_each(|(device, target)| {
            fs::create_dir(target).context("creating a mount point")?;
            mount(*device, target, "ext4", read_only, Some(c"noload"))
                .with_context(|| format!("mounting {}", device.display()))
        });
        let seen = mounted.and_then(|()| look(mount_points.each_ref().map(PathBuf::as_path)));
        // A mount point can be removed when nothing is mounted there. What never was is no error here.
        for target in &mount_points {
            let _ = unmount(target, UnmountFlags::DETACH);
        }
        seen
    };
    thread::scope(|scope| scope.spawn(look_at_mounts).join())
        .unwrap_or_else(|_| Err(anyhow!("the thread that looked at {} ended early", shown(&devices))))
}

fn shown(devices: &[&Path]) -> String {
    devices.iter().map(|device| device.display().to_string()).collect::<Vec<_>>().join(" and ")
}
