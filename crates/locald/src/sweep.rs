//! What a locald left that was killed while it made or removed something.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cli::cgroup;
use provider::local::api::Place;
use rustix::mount::{UnmountFlags, unmount};

use crate::network::Network;

/// How long processes may take to be gone after the kernel was told to end them.
const GONE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

/// Removes what no record names: files, processes and network namespaces of instances.
pub fn sweep(place: &Place, network: &Network) -> Result<()> {
    let recorded = |id: &str| place.instance(id).join("instance.json").exists();
    for id in names_in(&place.state().join("instances")).iter().filter(|id| !recorded(id)) {
        remove_instance(place, network, id)?;
    }
    for id in names_in(&cgroup::hierarchy().join(place.key())).iter().filter(|id| id.starts_with("i-") && !recorded(id))
    {
        remove_instance(place, network, id)?;
    }
    for id in network.instances()?.iter().filter(|id| !recorded(id)) {
        remove_instance(place, network, id)?;
    }
    Ok(())
}

/// Removes all that there is of an instance: its processes, network and files, the record first,
/// so that nobody takes what is left for an instance.
pub fn remove_instance(place: &Place, network: &Network, id: &str) -> Result<()> {
    let files = place.instance(id);
    let _ = fs::remove_file(files.join("instance.json"));
    end_processes(place, id)?;
    network.remove_instance(id)?;
    // systemd-nspawn makes these and leaves them.
    for left in ["propagate", "unix-export"] {
        let _ = fs::remove_dir(format!("/run/systemd/nspawn/{left}/{id}"));
    }
    match fs::remove_dir_all(&files) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", files.display()))
        }
        _ => Ok(()),
    }
}

/// Ends every process of an instance and returns when they are gone.
pub fn end_processes(place: &Place, id: &str) -> Result<()> {
    let group = cgroup::hierarchy().join(place.key()).join(id);
    cgroup::kill(&group)?;
    let deadline = Instant::now() + GONE;
    while !cgroup::remove(&group)? {
        anyhow::ensure!(Instant::now() < deadline, "processes of instance {id} do not end (see {})", group.display());
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// `ip netns` makes `/run/netns` a mount of its own and leaves it.
pub fn remove_empty_netns_directory() {
    if names_in("/run/netns".as_ref()).is_empty() && unmount("/run/netns", UnmountFlags::empty()).is_ok() {
        let _ = fs::remove_dir("/run/netns");
    }
}

/// Removes what has no file in it, from a state directory that was removed and of which writing
/// records of what ends has made parts again.
pub fn remove_empty_directories(directory: &std::path::Path) {
    for name in names_in(directory) {
        let path = directory.join(name);
        if path.is_dir() && !path.is_symlink() {
            remove_empty_directories(&path);
        }
    }
    let _ = fs::remove_dir(directory);
}

/// Names of the directories (and, in `/run/netns`, files) in a directory, which need not exist.
fn names_in(directory: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
