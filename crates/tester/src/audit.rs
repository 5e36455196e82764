//! The offline audit: what an image's disk must not hold.
//!
//! Every instance of the image would have it: a key that all share, a door that somebody left open,
//! an identity that is not its own, or what is left of the build.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use manifest::{CheckOutcome, TestedCheck};

use crate::root::Root;

/// The phase of every check that is made here.
const PHASE: &str = "offline";
/// How many faults of one check are listed.
const LISTED: usize = 10;

/// What is wrong, a phrase for each fault.
type Faults = Result<Vec<String>>;
type Look = fn(&Root) -> Faults;

const CHECKS: &[(&str, Look)] = &[
    ("no SSH host keys", host_keys),
    ("no authorized keys", authorized_keys),
    ("root has no password", root_password),
    ("no machine id", machine_id),
    ("no state of cloud-init", cloud_init),
    ("no left-over build files", build_files),
    ("no core dumps", core_dumps),
    ("no shell history", histories),
];

/// Looks into the root file system that is mounted at `root`.
pub(crate) fn audit(root: &Path) -> Result<Vec<TestedCheck>> {
    let root = Root::open(root)?;
    CHECKS.iter().map(|(name, look)| check(&root, name, *look)).collect()
}

/// Whether the image has cloud-init, where distributions and pip put it.
pub(crate) fn has_cloud_init(root: &Path) -> Result<bool> {
    let root = Root::open(root)?;
    Ok(root.has(Path::new("/usr/bin/cloud-init"))? || root.has(Path::new("/usr/local/bin/cloud-init"))?)
}

/// Stands for all checks where nobody can look, because of `why`.
pub(crate) fn skipped(why: String) -> TestedCheck {
    TestedCheck {
        phase: PHASE.to_owned(),
        name: "audit of the disk".to_owned(),
        outcome: CheckOutcome::Skipped,
        message: Some(why),
        millis: 0,
    }
}

fn check(root: &Root, name: &str, look: Look) -> Result<TestedCheck> {
    let started = Instant::now();
    let faults = look(root)?;
    let mut message = faults.iter().take(LISTED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if let more @ 1.. = faults.len().saturating_sub(LISTED) {
        message.push_str(&format!(" and {more} more"));
    }
    Ok(TestedCheck {
        phase: PHASE.to_owned(),
        name: name.to_owned(),
        outcome: if faults.is_empty() { CheckOutcome::Passed } else { CheckOutcome::Failed },
        message: (!faults.is_empty()).then_some(message),
        millis: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    })
}

/// sshd makes them at the first boot; an image's are those of a whole fleet.
fn host_keys(root: &Root) -> Faults {
    in_directory(root, "/etc/ssh", |name| name.starts_with("ssh_host_"))
}

fn authorized_keys(root: &Root) -> Faults {
    let mut found = Vec::new();
    for home in ["/root", "/home"] {
        let below = root.all_below(Path::new(home))?;
        found
            .extend(below.iter().filter(|entry| starts_with(&entry.name, "authorized_keys")).map(|it| shown(&it.path)));
    }
    Ok(found)
}

/// The second field of shadow(5): what holds nothing but `!` and `*` is no password's hash.
fn root_password(root: &Root) -> Faults {
    let content = root.read(Path::new("/etc/shadow"))?.unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let field = content.lines().find_map(|line| line.strip_prefix("root:")).map(|rest| rest.split(':').next());
    Ok(match field.flatten() {
        None => vec!["/etc/shadow has no entry for root".to_owned()],
        Some("") => vec!["root needs no password".to_owned()],
        Some(field) if field.bytes().all(|byte| matches!(byte, b'!' | b'*')) => Vec::new(),
        Some(_) => vec!["/etc/shadow has a password of root".to_owned()],
    })
}

/// The image is to be missing it, or to have it empty or as `uninitialized` (machine-id(5)). The copy of
/// D-Bus is a link to it or is not there either (dbus-uuidgen(1)).
fn machine_id(root: &Root) -> Faults {
    let mut found = Vec::new();
    for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"].map(Path::new) {
        if root.is_link(path)? {
            continue;
        }
        let content = root.read(path)?.unwrap_or_default();
        if !matches!(content.trim_ascii(), b"" | b"uninitialized") {
            found.push(shown(path));
        }
    }
    Ok(found)
}

/// With it, cloud-init takes the instance for one that it has set up already.
fn cloud_init(root: &Root) -> Faults {
    let mut found = at(root, &["/var/lib/cloud/instance"])?;
    found.extend(in_directory(root, "/var/lib/cloud/instances", |_| true)?);
    Ok(found)
}

fn build_files(root: &Root) -> Faults {
    let mut found = at(root, &["/usr/sbin/policy-rc.d"])?;
    found.extend(in_directory(root, "/tmp", |name| {
        name.starts_with("kiln-") || name.starts_with(".kiln") || name.starts_with("packer-provisioner-")
    })?);
    for directory in ["/", "/etc", "/usr/sbin"] {
        found.extend(in_directory(root, directory, |name| name.starts_with(".kiln"))?);
    }
    Ok(found)
}

fn core_dumps(root: &Root) -> Faults {
    let is_core = |name: &str| name == "core" || name.strip_prefix("core.").is_some_and(is_number);
    let mut found = Vec::new();
    for directory in ["/", "/root", "/tmp", "/var/tmp"] {
        found.extend(in_directory(root, directory, is_core)?);
    }
    for directory in ["/var/crash", "/var/lib/systemd/coredump"] {
        found.extend(in_directory(root, directory, |_| true)?);
    }
    Ok(found)
}

/// `.bash_history`, `.python_history` and their like.
fn histories(root: &Root) -> Faults {
    let is_history = |name: &str| name.starts_with('.') && name.ends_with("_history");
    let mut found = in_directory(root, "/root", is_history)?;
    for home in root.entries(Path::new("/home"))? {
        found.extend(in_directory(root, &home.path, is_history)?);
    }
    Ok(found)
}

fn at(root: &Root, paths: &[&str]) -> Faults {
    let mut found = Vec::new();
    for path in paths.iter().map(Path::new) {
        if root.has(path)? {
            found.push(shown(path));
        }
    }
    Ok(found)
}

fn in_directory(root: &Root, directory: impl AsRef<Path>, is_fault: impl Fn(&str) -> bool) -> Faults {
    let entries = root.entries(directory.as_ref())?;
    Ok(entries.iter().filter(|entry| is_fault(&entry.name.to_string_lossy())).map(|entry| shown(&entry.path)).collect())
}

fn starts_with(name: &OsStr, prefix: &str) -> bool {
    name.to_string_lossy().starts_with(prefix)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests;
