//! What builds leave behind: processes, mounts and loop devices.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cli::Command;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use super::Bench;

/// Where Packer mounts the devices that bench/imager/*.json name: its default, and the devices' names.
const MOUNTS: &str = "/mnt/packer-amazon-chroot-volumes/kiln-bench-";

/// The kernel lets go of a device a moment after its last user, who may be a process of somebody else's that was
/// starting just then. What is still there after this time stays.
const SETTLED: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_millis(50);

/// What is there.
#[derive(Debug, Default)]
pub struct Residue {
    processes: Vec<(Pid, String)>,
    mounts: Vec<PathBuf>,
    loops: Vec<LoopDevice>,
}

#[derive(Debug, Deserialize)]
struct LoopDevice {
    name: String,
    #[serde(rename = "back-file")]
    file: Option<String>,
}

impl Residue {
    /// Looks for it. `sleep` is the argument of a process that belongs to it wherever it runs; empty: there is none.
    pub fn find(bench: &Bench, sleep: &str) -> Result<Self> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
        let listed = Command::new("losetup").args(["--list", "--json", "--output", "NAME,BACK-FILE"]).run()?.stdout;
        Ok(Self {
            processes: processes(sleep)?,
            mounts: mounts(&mountinfo, &bench.round),
            loops: loop_devices(&listed, &bench.round)?,
        })
    }

    /// What a build has left that does not go away by itself within [`SETTLED`].
    pub fn that_stays(bench: &Bench, sleep: &str) -> Result<Self> {
        let settled = Instant::now() + SETTLED;
        loop {
            let residue = Self::find(bench, sleep)?;
            if residue.is_empty() || Instant::now() > settled {
                return Ok(residue);
            }
            thread::sleep(INTERVAL);
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty() && self.mounts.is_empty() && self.loops.is_empty()
    }

    /// One line for each.
    pub fn names(&self) -> Vec<String> {
        let processes = self.processes.iter().map(|(pid, line)| format!("process {}: {line}", pid.as_raw_nonzero()));
        let mounts = self.mounts.iter().map(|path| format!("mount {}", path.display()));
        let loops = self.loops.iter().map(|device| format!("loop device {}", device.name));
        processes.chain(mounts).chain(loops).collect()
    }

    /// Ends the processes, unmounts, detaches: in this order, as each holds the next.
    pub fn remove(&self) -> Result<()> {
        for (pid, _) in &self.processes {
            // It may have ended since.
            let _ = kill_process(*pid, Signal::KILL);
        }
        for mount in &self.mounts {
            let settled = Instant::now() + SETTLED;
            while let Err(error) = Command::new("umount").arg(mount).run() {
                if Instant::now() > settled {
                    bail!("{error}");
                }
                thread::sleep(INTERVAL);
            }
        }
        for device in &self.loops {
            // One that was only waiting to be unmounted has gone already.
            Command::new("losetup").args(["--detach", &device.name]).ask()?;
        }
        Ok(())
    }
}

/// Processes whose root is a volume of Packer's, and the one that sleeps.
fn processes(sleep: &str) -> Result<Vec<(Pid, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("reading the processes")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw) else {
            continue;
        };
        // A process that ends meanwhile has neither a root nor a command line.
        let root = fs::read_link(entry.path().join("root")).unwrap_or_default();
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words: Vec<_> = line.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
        let sleeps = !sleep.is_empty() && words.first().is_some_and(|word| word.ends_with("sleep"));
        if root.to_string_lossy().starts_with(MOUNTS) || sleeps && words.iter().any(|word| word == sleep) {
            found.push((pid, words.join(" ").trim_end().to_owned()));
        }
    }
    Ok(found)
}

/// Mount points of Packer's and below `round`, the last mounted first: field 5 of mountinfo (proc(5)).
fn mounts(mountinfo: &str, round: &Path) -> Vec<PathBuf> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    let ours = |point: &&str| point.starts_with(MOUNTS) || Path::new(point).starts_with(round);
    let mut points: Vec<_> = points.filter(ours).map(PathBuf::from).collect();
    points.reverse();
    points
}

/// Devices over files below `round`, also over files that have been deleted. losetup says nothing if there is none.
fn loop_devices(listed: &[u8], round: &Path) -> Result<Vec<LoopDevice>> {
    #[derive(Default, Deserialize)]
    struct Listed {
        loopdevices: Vec<LoopDevice>,
    }
    let listed = if listed.trim_ascii().is_empty() { Listed::default() } else { serde_json::from_slice(listed)? };
    let ours = |device: &LoopDevice| device.file.as_ref().is_some_and(|file| Path::new(file).starts_with(round));
    Ok(listed.loopdevices.into_iter().filter(ours).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_taken_down_in_reverse() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
90 22 7:1 / /mnt/packer-amazon-chroot-volumes/kiln-bench-one rw,relatime - ext4 /dev/loop1 rw
91 90 0:5 / /mnt/packer-amazon-chroot-volumes/kiln-bench-one/proc rw,relatime - proc proc rw
92 22 7:2 / /mnt/packer-amazon-chroot-volumes/sdf rw,relatime - ext4 /dev/loop2 rw
";
        let found = mounts(mountinfo, Path::new("/t/round"));
        assert_eq!(found, [MOUNTS.to_owned() + "one/proc", MOUNTS.to_owned() + "one"].map(PathBuf::from));
    }

    #[test]
    fn devices_of_others_are_left_alone() {
        let listed = br#"{"loopdevices": [
            {"name":"/dev/loop0", "back-file":"/t/round/disks/vol-1 (deleted)"},
            {"name":"/dev/loop1", "back-file":"/t/other/disk.raw"},
            {"name":"/dev/loop2", "back-file":null}]}"#;
        let found = loop_devices(listed, Path::new("/t/round")).unwrap();
        assert_eq!(found.iter().map(|device| device.name.as_str()).collect::<Vec<_>>(), ["/dev/loop0"]);
        assert!(loop_devices(b"\n", Path::new("/t/round")).unwrap().is_empty());
    }
}
