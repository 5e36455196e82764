//! `locald become-instance`: becomes systemd-nspawn with an image's own systemd in it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::{Command, ExitCode, cgroup};
use provider::RegisteredImage;
use provider::local::api::{InstanceRecord, Place, read_json};
use provider::local::root_range;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::become_kept::record;
use crate::network::{GATEWAY, Network};

/// How often a mount is tried: an instance of the same image that ends at this moment can take the
/// loop device away with it after `mount` has chosen to share it.
const MOUNT_TRIES: u32 = 5;

/// Becomes an instance.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The state directory.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// Id of the instance.
    id: String,
}

/// Becomes systemd-nspawn. Returns only if it cannot.
///
/// The mounts are in a mount namespace of this process: they end with the instance, however it ends.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::of(&args.state_dir)?;
    let directory = place.instance(&args.id);
    let instance: InstanceRecord =
        read_json(&directory.join("instance.json"))?.with_context(|| format!("there is no instance {}", args.id))?;
    record(&directory)?;
    cgroup::join(&cgroup::hierarchy().join(place.key()).join(&args.id))?;
    own_mounts()?;
    let root = mount_root(&place, &directory, &instance.instance.image)?;
    prepare(&root, &instance)?;
    Err(nspawn(&place, &root, &args.id).exec().into())
}

fn own_mounts() -> Result<()> {
    // SAFETY: this process has no thread that relies on sharing its mount namespace or working directory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("making a mount namespace (are you root?)")?;
    // Slave, not private: what the host unmounts later must go here, too.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .context("making the mount namespace our own")?;
    if cgroup::is_hybrid() {
        // nspawn gives its payload what it finds here, and systemd wants either version whole.
        mount("none", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None).context("mounting cgroup2")?;
    }
    Ok(())
}

/// Mounts the image read-only and, over it, what the instance writes.
fn mount_root(place: &Place, directory: &Path, image: &str) -> Result<PathBuf> {
    let files = place.state().join("images").join(image);
    let disk = files.join("disk.raw");
    let registered: RegisteredImage =
        read_json(&files.join("image.json"))?.with_context(|| format!("there is no image {image}"))?;
    let range = root_range(&disk, registered.root_partition())?;
    for name in ["lower", "upper", "work", "root"] {
        fs::create_dir_all(directory.join(name)).with_context(|| format!("creating {}", directory.display()))?;
    }
    // Instances of one image share one loop device, and so the memory that its content takes:
    // mount(8) finds the one that is there, if nobody makes one at the same moment.
    let turn = File::create(place.locald().join("mounting")).context("waiting for other mounts")?;
    turn.lock().context("waiting for other mounts")?;
    let options = format!("ro,noload,loop,offset={},sizelimit={}", range.start, range.end - range.start);
    let mount_image =
        || Command::new("mount").args(["-t", "ext4", "-o", &options]).arg(&disk).arg(directory.join("lower")).run();
    let mut mounted = mount_image();
    for _ in 1..MOUNT_TRIES {
        if mounted.is_ok() {
            break;
        }
        mounted = mount_image();
    }
    mounted.with_context(|| format!("mounting image {image}"))?;
    // Relative, because a path may hold the characters that separate options.
    std::env::set_current_dir(directory).with_context(|| format!("entering {}", directory.display()))?;
    let layers = c"lowerdir=lower,upperdir=upper,workdir=work";
    mount("overlay", "root", "overlay", MountFlags::empty(), Some(layers))
        .context("mounting an overlay over the image (the state directory must not be on an overlay itself)")?;
    Ok(directory.join("root"))
}

/// What EC2 and its agents would tell the system at its first boot.
fn prepare(root: &Path, record: &InstanceRecord) -> Result<()> {
    let id = &record.instance.id;
    let write = |path: &str, content: &str| {
        let path = root.join(path);
        let directory = path.parent().unwrap_or(root);
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(&path, content))
            .with_context(|| format!("writing {} for instance {id}", path.display()))
    };
    let hostname = hostname(record);
    write("etc/hostname", &format!("{hostname}\n"))?;
    // The instance has the file system and not the disk: a unit that waits for a partition or mounts it
    // again with options of ext4 would fail.
    if let Ok(fstab) = fs::read_to_string(root.join("etc/fstab")) {
        write("etc/fstab", &without_disks(&fstab))?;
    }
    // What a DHCP client would do, where the image has none that does.
    if !root.join("etc/resolv.conf").is_symlink() {
        write("etc/resolv.conf", &format!("nameserver {GATEWAY}\n"))?;
    }
    match &record.user_data {
        Some(user_data) => {
            let metadata = format!("instance-id: {id}\nlocal-hostname: {hostname}\n");
            write("var/lib/cloud/seed/nocloud/meta-data", &metadata)?;
            write("var/lib/cloud/seed/nocloud/user-data", user_data)
        }
        // It would have nothing to do, and takes a second to find that out.
        None if root.join("etc/cloud").is_dir() => write("etc/cloud/cloud-init.disabled", ""),
        None => Ok(()),
    }
}

/// The lines of an fstab(5) that are not about partitions.
fn without_disks(fstab: &str) -> String {
    let is_disk = |line: &&str| {
        let device = line.split_whitespace().next().unwrap_or_default();
        ["/dev/", "UUID=", "LABEL=", "PARTUUID=", "PARTLABEL="].iter().any(|prefix| device.starts_with(prefix))
    };
    fstab.lines().filter(|line| !is_disk(line)).map(|line| format!("{line}\n")).collect()
}

/// `ip-10-77-0-16`, as on EC2.
pub fn hostname(record: &InstanceRecord) -> String {
    format!("ip-{}", record.address.to_string().replace('.', "-"))
}

fn nspawn(place: &Place, root: &Path, id: &str) -> Command {
    let netns = Network::new(place.key()).instance_path(id);
    let path = |name: &str, path: &Path| format!("--{name}={}", path.display());
    Command::new("systemd-nspawn")
        .args(["--boot", "--quiet", "--register=no", "--keep-unit", "--settings=no", "--console=read-only"])
        .args(["--link-journal=no", "--resolv-conf=off", "--timezone=off"])
        // A console that can only print: no colours, no clearing of the screen.
        .arg("--setenv=TERM=dumb")
        // SIGRTMIN+4 powers off (systemd(1)).
        .arg("--kill-signal=SIGRTMIN+4")
        // Joining a namespace by path takes the capability away, and with it systemd-networkd.
        .arg("--capability=CAP_NET_ADMIN")
        .arg(format!("--machine={id}"))
        .arg(path("network-namespace-path", &netns))
        .arg(path("directory", root))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_partitions_leave_the_fstab() {
        let fstab =
            "# disks\nUUID=1 / ext4 errors=remount-ro 0 1\n/dev/vda15 /boot/efi vfat\ntmpfs /scratch tmpfs size=1g\n";
        assert_eq!(without_disks(fstab), "# disks\ntmpfs /scratch tmpfs size=1g\n");
    }
}
