//! `imager container`: becomes systemd-nspawn with the volume's own systemd in it.
//!
//! Nothing here stays in the volume: what is to be otherwise than at a machine's boot is mounted over it or
//! given on the command line, which systemd in a container reads in place of the kernel's.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use cli::{Command, cgroup};
use rustix::mount::{MountFlags, mount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// The hidden subcommand: `imager container GROUP ROOT FILES`.
pub(crate) const CONTAINER: &str = "container";

/// The machine's identity during the boot, a file of its own in `FILES`.
pub(super) const MACHINE_ID: &str = "machine-id";
/// What systemd said on its console, in `FILES`.
pub(super) const CONSOLE: &str = "console.log";

/// Files that are mounted read-only inside: name in `FILES`, place, content.
const FILES: &[(&str, &str, &str)] = &[
    // The first file that matches wins: slirp4netns has configured the interface.
    ("network", "/run/systemd/network/00-kiln.network", "[Match]\nName=tap0\n\n[Link]\nUnmanaged=yes\n"),
    // For when a provisioner makes /etc/resolv.conf lead to systemd-resolved, as installing that does.
    ("resolver", "/run/systemd/resolved.conf.d/kiln.conf", "[Resolve]\nDNS=10.0.2.3\n"),
    ("journal", "/run/systemd/journald.conf.d/zz-kiln.conf", "[Journal]\nStorage=volatile\n"),
    // It would wait in vain for an interface that nobody manages.
    ("online", "/run/systemd/system/systemd-networkd-wait-online.service.d/kiln.conf", ONLINE),
    ("online-nm", "/run/systemd/system/NetworkManager-wait-online.service.d/kiln.conf", ONLINE),
    // In place of Debian's own, which empties /tmp at boot: one provisioner puts there what the next one uses.
    ("tmp", "/run/tmpfiles.d/tmp.conf", "d /tmp 1777 root root -\nd /var/tmp 1777 root root -\n"),
];
const ONLINE: &str = "[Service]\nExecStart=\nExecStart=/bin/true\n";

/// What systemd and cloud-init read as the kernel's command line.
const KERNEL: &[&str] = &[
    "cloud-init=disabled",
    // No apt-daily in the middle of an apt-get. A timer that a provisioner starts does run.
    "systemd.mask=timers.target",
    // It would write the transient identity to the volume.
    "systemd.mask=systemd-machine-id-commit.service",
    "systemd.condition-needs-update=0",
    "systemd.condition-first-boot=0",
];

/// Writes the files that [`become_container`] mounts, and the transient identity; returns that.
pub(super) fn prepare(files: &Path) -> Result<String> {
    let machine_id = uuid::Uuid::new_v4().simple().to_string();
    let own = [(MACHINE_ID, format!("{machine_id}\n"))];
    let all = FILES.iter().map(|(name, _, content)| (*name, (*content).to_owned())).chain(own);
    for (name, content) in all {
        let path = files.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(machine_id)
}

/// Says its number, waits for a line (the network is there then), and becomes systemd-nspawn.
pub(crate) fn become_container(words: &[OsString]) -> Result<()> {
    let [group, root, files] = words else { bail!("usage: imager {CONTAINER} GROUP ROOT FILES") };
    let (group, root, files) = (Path::new(group), Path::new(root), Path::new(files));
    cgroup::join(group)?;
    // Our /proc is still the host's, so this is our number there.
    let number = fs::read_link("/proc/self")?;
    // SAFETY: this process has no thread that relies on sharing its namespaces or working directory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWNET) }.context("making the build's namespaces")?;
    println!("{}", number.display());
    std::io::stdout().flush()?;
    let mut line = String::new();
    BufReader::new(std::io::stdin()).read_line(&mut line)?;
    if line.is_empty() {
        bail!("the build ended before its system was booted");
    }
    // nspawn looks at its children by their numbers in our namespace.
    mount("proc", "/proc", "proc", MountFlags::empty(), None).context("mounting /proc")?;
    if cgroup::is_hybrid() {
        // nspawn gives its payload what it finds here, and systemd wants either version whole.
        mount("none", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None).context("mounting cgroup2")?;
    }
    let console = File::create(files.join(CONSOLE)).context("making a file for the console's output")?;
    let errors = console.try_clone().context("making a file for the console's output")?;
    let nspawn = nspawn(root, files, knows_suppress_sync()?);
    Err(nspawn.configure(|command| _ = command.stdout(console).stderr(errors)).exec().into())
}

fn nspawn(root: &Path, files: &Path, suppress_sync: bool) -> Command {
    let bind = |how: &str, name: &str, to: &str| format!("{how}={}:{to}", escaped(&files.join(name)));
    let command = Command::new("systemd-nspawn")
        // /tmp is the volume's: what a provisioner puts there, the next one finds.
        .env("SYSTEMD_NSPAWN_TMPFS_TMP", "0")
        .args(["--boot", "--quiet", "--register=no", "--keep-unit", "--settings=no", "--console=read-only"])
        .args(["--link-journal=no", "--resolv-conf=off", "--timezone=off", "--setenv=TERM=dumb"])
        // SIGRTMIN+4 powers off (systemd(1)).
        .arg("--kill-signal=SIGRTMIN+4")
        // Joining a namespace by path takes the capability away, and with it systemd-networkd.
        .args(["--capability=CAP_NET_ADMIN", "--network-namespace-path=/proc/self/ns/net", "--machine=kiln-build"])
        .arg(format!("--directory={}", root.display()))
        .arg(bind("--bind", MACHINE_ID, "/etc/machine-id"));
    let command = FILES.iter().fold(command, |command, (name, to, _)| command.arg(bind("--bind-ro", name, to)));
    let command = if suppress_sync { command.arg("--suppress-sync=yes") } else { command };
    command.args(KERNEL)
}

/// A path in an option in which colons separate.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace('\\', "\\\\").replace(':', "\\:")
}

/// The option is there since systemd 250.
fn knows_suppress_sync() -> Result<bool> {
    Ok(Command::new("systemd-nspawn").arg("--help").run()?.text().contains("--suppress-sync"))
}
