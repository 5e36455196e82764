//! What keeps provisioners apart from the host: a chroot, or the volume's own system in a container.

mod boot;
mod container;
mod inside;
mod left_over;
mod network;
mod traces;

use std::fs;
use std::path::Path;

use anyhow::Result;
use cli::{cgroup, host};
use manifest::Isolation;
use provider::{Images, RegisteredImage};

pub(crate) use boot::Booted;
pub(crate) use container::{CONTAINER, become_container};
pub(crate) use inside::{Directory, Inside};
pub(crate) use left_over::{LeftOver, end, look_at};

/// Decides for a builder; `wanted` is what the template says, `None` if that is `auto`. The second is why it is
/// not `boot` where the host is the reason.
pub(crate) async fn decide<P: Images>(
    provider: &P,
    wanted: Option<Isolation>,
    source: Option<&RegisteredImage>,
) -> Result<(Isolation, Option<String>)> {
    match wanted {
        Some(wanted) => Ok((wanted, None)),
        None => match lacking() {
            Some(lacking) => Ok((Isolation::Chroot, Some(lacking))),
            None => match source {
                Some(_) if !P::QUICK => {
                    let reason = "whether the image has systemd, a volume of it would have to be made to see; \"isolation\": \"boot\" says that it has";
                    Ok((Isolation::Chroot, Some(reason.to_owned())))
                }
                Some(source) if provider.with_root(&source.id, |root| Ok(has_systemd(root))).await? => {
                    Ok((Isolation::Boot, None))
                }
                // What will be in a volume that is made from scratch, nobody knows yet.
                _ => Ok((Isolation::Chroot, None)),
            },
        },
    }
}

/// What this host lacks for booting a volume.
pub(crate) fn lacking() -> Option<String> {
    for program in ["systemd-nspawn", "slirp4netns", "ip"] {
        if !host::has(program) {
            let package = host::package_of(program).unwrap_or(program);
            return Some(format!("{program} is not installed (`apt-get install {package}`)"));
        }
    }
    if !cgroup::hierarchy().join("cgroup.procs").exists() {
        return Some("this machine has no control groups of version 2".into());
    }
    (!Path::new("/dev/net/tun").exists()).then(|| "this machine has no /dev/net/tun".into())
}

/// Whether the system's first process would be systemd.
fn has_systemd(root: &Path) -> bool {
    fs::read_link(root.join("sbin/init")).is_ok_and(|init| init.file_name().is_some_and(|name| name == "systemd"))
}
