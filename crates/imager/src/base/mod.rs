//! Base images: Debian, made from packages, bootable here, in QEMU and on EC2.

mod boot;
mod disk;
mod mirror;
mod uuids;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use cli::{Command, narrate};

use self::uuids::Uuids;
use crate::session::Session;

/// What is on every base image: a system that boots, finds its network, takes user data, and that
/// Ansible can work on.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "dbus",
    "udev",
    "iproute2",
    "ca-certificates",
    "cloud-init",
    "cloud-guest-utils",
    "python3",
    "python3-apt",
    "linux-image-cloud-amd64",
    "grub-common",
    "grub-pc-bin",
    "grub-efi-amd64-bin",
];

/// Configuration that no package brings.
const FILES: &[(&str, &str)] = &[
    ("etc/systemd/network/80-dhcp.network", include_str!("files/80-dhcp.network")),
    ("etc/cloud/cloud.cfg.d/90-kiln.cfg", include_str!("files/90-kiln.cfg")),
    ("etc/kernel-img.conf", include_str!("files/kernel-img.conf")),
];

/// A base image to be.
pub(crate) struct BaseSpec {
    /// Debian suite, such as `bookworm`.
    pub(crate) suite: String,
    /// Size of its disk in bytes.
    pub(crate) size: u64,
}

/// Makes the disk of a base image as `disk`; `scratch` is for what is needed on the way.
pub(crate) fn make(spec: &BaseSpec, disk: &Path, scratch: &Path) -> Result<()> {
    let uuids = Uuids::random();
    let session = Session::start()?;
    let work = scratch.join("base");
    fs::create_dir_all(&work)?;
    // Unpacking hundreds of packages is much faster in memory; the mount is the session's and goes with it.
    session.command("mount").args(["-t", "tmpfs", "-o", "size=80%", "base"]).arg(&work).run()?;

    narrate::step(&format!("Installing Debian {} with mmdebstrap...", spec.suite));
    let tree = work.join("root");
    install(spec, &session, scratch, &work, &tree, &uuids)?;
    narrate::step("Making the boot loaders...");
    let boot = boot::make(&session, &tree, &uuids)?;
    narrate::step("Making the disk...");
    disk::make(&session, spec.size, &tree, &boot, &uuids, disk)
}

fn install(spec: &BaseSpec, session: &Session, scratch: &Path, work: &Path, tree: &Path, uuids: &Uuids) -> Result<()> {
    let files = scratch.join("base-files");
    let generated = [("etc/fstab", uuids.fstab()), ("boot/grub/grub.cfg", boot::menu(uuids))];
    let fixed = FILES.iter().map(|(path, content)| (*path, (*content).to_owned()));
    for (path, content) in fixed.chain(generated) {
        let file = files.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&files))?;
        fs::write(&file, content)?;
    }
    for directory in walkdir::WalkDir::new(&files).into_iter().filter_map(Result::ok) {
        let mode = if directory.file_type().is_dir() { 0o755 } else { 0o644 };
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode))?;
    }
    let files = shell_words::quote(&files.display().to_string()).into_owned();
    session
        .command("mmdebstrap")
        .env("TMPDIR", work)
        .args(["--variant=minbase", "--format=directory"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(format!("--customize-hook=sync-in {files} /"))
        .arg("--customize-hook=chroot \"$1\" systemctl enable systemd-networkd systemd-resolved")
        .arg("--customize-hook=ln -sf ../run/systemd/resolve/stub-resolv.conf \"$1/etc/resolv.conf\"")
        .arg("--customize-hook=chroot \"$1\" passwd --lock root")
        .arg("--customize-hook=rm -f \"$1/var/lib/dbus/machine-id\" \"$1/var/log/\"*.log \"$1/var/log/apt/\"*")
        .arg(&spec.suite)
        .arg(tree)
        .args(mirror::sources(&spec.suite)?)
        .narrated()
        .run()?;
    Ok(())
}

/// The version that Debian's own `os-release` states, such as `12`.
pub(crate) fn version_of(suite: &str) -> Result<Option<String>> {
    let table = fs::read_to_string("/usr/share/distro-info/debian.csv").unwrap_or_default();
    let known = table.lines().find_map(|line| {
        let mut fields = line.split(',');
        let (version, _codename, series) = (fields.next()?, fields.next()?, fields.next()?);
        (series == suite && !version.is_empty()).then(|| version.to_owned())
    });
    if known.is_some() {
        return Ok(known);
    }
    // A host without distro-info at least knows its own release.
    let release = fs::read_to_string("/etc/os-release").context("reading /etc/os-release")?;
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    Ok(field("VERSION_CODENAME").filter(|own| own == suite).and_then(|_| field("VERSION_ID")))
}

/// The suite of the host, where that is Debian.
pub(crate) fn host_suite() -> String {
    let release = Command::new("sh").args(["-c", ". /etc/os-release; echo \"$ID $VERSION_CODENAME\""]).run();
    let release = release.map(|output| output.text()).unwrap_or_default();
    match release.split_once(' ') {
        Some(("debian", suite)) if !suite.is_empty() => suite.to_owned(),
        _ => "bookworm".to_owned(),
    }
}
