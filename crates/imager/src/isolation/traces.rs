//! What booting leaves on a disk, so that it can be removed again.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::path::Path;

use anyhow::{Context, Result};

use super::inside::Inside;

/// Directories, and what a boot makes in them: names, or with a star at the end how names begin.
const MADE: &[(&str, &[&str])] = &[
    ("/etc", &["machine-id", ".updated"]),
    ("/tmp", &["systemd-private-*", ".ICE-unix", ".X11-unix", ".XIM-unix", ".font-unix", ".Test-unix"]),
    ("/var", &[".updated"]),
    ("/var/lib/dbus", &["machine-id"]),
    ("/var/lib/dhcp", &["*"]),
    ("/var/lib/NetworkManager", &["*"]),
    ("/var/lib/systemd", &["random-seed", "credential.secret", "timesync", "timers"]),
    ("/var/lib/systemd/timers", &["*"]),
    ("/var/lib/systemd/coredump", &["*"]),
    ("/var/log/journal", &["*"]),
    ("/var/tmp", &["systemd-private-*"]),
];

/// Files in `/var/log` that a boot adds lines to, with whatever logs the image has.
const LOGS: &[&str] = &[
    "auth.log",
    "boot.log",
    "btmp",
    "cron.log",
    "daemon.log",
    "debug",
    "kern.log",
    "mail.log",
    "messages",
    "syslog",
    "user.log",
    "wtmp",
];

/// What stood in the places of a boot's traces before it.
pub(super) struct Traces {
    made: Vec<BTreeMap<OsString, Metadata>>,
    logs: BTreeMap<OsString, Metadata>,
}

impl Traces {
    /// Looks before the boot.
    pub(super) fn before(inside: &Inside) -> Result<Self> {
        let made = MADE.iter().map(|(directory, names)| found(inside, directory, names));
        Ok(Self { made: made.collect::<Result<_>>()?, logs: found(inside, "/var/log", LOGS)? })
    }

    /// Removes what was made since, and cuts off what was added to logs.
    pub(super) fn remove(&self, inside: &Inside) -> Result<()> {
        for ((directory, names), before) in MADE.iter().zip(&self.made) {
            for name in found(inside, directory, names)?.keys().filter(|name| !before.contains_key(*name)) {
                in_place(inside, directory, name, remove)?;
            }
        }
        for (name, now) in found(inside, "/var/log", LOGS)? {
            match self.logs.get(&name) {
                None => in_place(inside, "/var/log", &name, remove)?,
                Some(before) if now.is_file() && before.is_file() && now.len() > before.len() => {
                    let cut = |path: &Path| OpenOptions::new().write(true).open(path)?.set_len(before.len());
                    in_place(inside, "/var/log", &name, cut)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

fn found(inside: &Inside, directory: &str, wanted: &[&str]) -> Result<BTreeMap<OsString, Metadata>> {
    let mut found = BTreeMap::new();
    let Some(directory) = inside.directory(Path::new(directory))? else { return Ok(found) };
    for entry in fs::read_dir(directory.path())? {
        let entry = entry?;
        if wanted.iter().any(|wanted| matches(&entry.file_name(), wanted)) {
            found.insert(entry.file_name(), entry.metadata()?);
        }
    }
    Ok(found)
}

fn matches(name: &OsStr, wanted: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(beginning) => name.as_encoded_bytes().starts_with(beginning.as_bytes()),
        None => name == wanted,
    }
}

fn in_place(inside: &Inside, directory: &str, name: &OsStr, act: impl FnOnce(&Path) -> io::Result<()>) -> Result<()> {
    let Some(place) = inside.directory(Path::new(directory))? else { return Ok(()) };
    act(&place.path().join(name))
        .with_context(|| format!("removing the boot's traces in {directory}/{}", name.display()))
}

fn remove(path: &Path) -> io::Result<()> {
    if path.symlink_metadata()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_boot_made_goes_and_what_was_there_stays() {
        let root = tempfile::tempdir().unwrap();
        for directory in ["etc", "var/log/journal/kept", "var/lib/systemd/timers", "tmp"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let write = |path: &str, content: &str| fs::write(root.path().join(path), content).unwrap();
        write("etc/machine-id", "uninitialized\n");
        write("var/log/wtmp", "before");
        let inside = Inside::open(root.path()).unwrap();
        let traces = Traces::before(&inside).unwrap();
        write("var/log/wtmp", "before and after");
        write("var/log/syslog", "booted");
        write("var/log/redis.log", "a provisioner's");
        write("tmp/for-the-next-provisioner", "");
        fs::create_dir_all(root.path().join("tmp/systemd-private-1-x/tmp")).unwrap();
        fs::create_dir_all(root.path().join("var/log/journal/made")).unwrap();
        write("var/lib/systemd/timers/stamp-a.timer", "");
        write("var/.updated", "");
        traces.remove(&inside).unwrap();
        assert_eq!(fs::read_to_string(root.path().join("var/log/wtmp")).unwrap(), "before");
        for kept in ["etc/machine-id", "var/log/redis.log", "tmp/for-the-next-provisioner", "var/log/journal/kept"] {
            assert!(root.path().join(kept).exists(), "{kept} is gone");
        }
        for gone in ["var/log/syslog", "tmp/systemd-private-1-x", "var/log/journal/made", "var/.updated"] {
            assert!(!root.path().join(gone).exists(), "{gone} is still there");
        }
    }
}
