//! Control groups: one for each booted system, by which all that runs in it can be found and ended.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::getpid;

/// Where the unified hierarchy is on machines that have both versions (cgroups(7)).
const HYBRID: &str = "/sys/fs/cgroup/unified";
/// Where it is on machines that have only version 2.
const PURE: &str = "/sys/fs/cgroup";

/// Whether version 2 has to share `/sys/fs/cgroup` with version 1.
pub fn is_hybrid() -> bool {
    !Path::new(PURE).join("cgroup.procs").exists()
}

/// Where the groups of version 2 are.
pub fn hierarchy() -> &'static Path {
    Path::new(if is_hybrid() { HYBRID } else { PURE })
}

/// Makes the group and moves this process into it.
pub fn join(group: &Path) -> Result<()> {
    let doing = || format!("joining the control group {} (this machine must have cgroup version 2)", group.display());
    fs::create_dir_all(group).with_context(doing)?;
    fs::write(group.join("cgroup.procs"), getpid().as_raw_nonzero().to_string()).with_context(doing)
}

/// Ends every process in the group and below it. They are gone soon after.
pub fn kill(group: &Path) -> Result<()> {
    match fs::write(group.join("cgroup.kill"), "1") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("ending what runs in the control group {}", group.display()))
        }
        _ => Ok(()),
    }
}

/// Removes an empty group and those below it. `false`: something still runs in there.
pub fn remove(group: &Path) -> Result<bool> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(true) };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !remove(&entry.path())? {
            return Ok(false);
        }
    }
    match fs::remove_dir(group) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(error) => Err(error).with_context(|| format!("removing the control group {}", group.display())),
    }
}

/// The processes in the group and below it whose group, named from there, is one that `wanted` takes.
pub fn processes(group: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<i32> {
    let mut found = Vec::new();
    let mut groups = vec![group.to_owned()];
    while let Some(next) = groups.pop() {
        let below = fs::read_dir(&next).into_iter().flatten().flatten();
        groups
            .extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
        if wanted(next.strip_prefix(group).unwrap_or(&next)) {
            // A group that went away in the meantime has none.
            let pids = fs::read_to_string(next.join("cgroup.procs")).unwrap_or_default();
            found.extend(pids.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    found
}
