//! The process in the volume that runs what Ansible wants run there.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::{Context, Result};
use cli::{Child, Command};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};

use crate::chroot::Chroot;

/// What it is, in Python, which every volume that Ansible can provision has.
const RUNNER: &str = include_str!("runner.py");
/// Ansible's descriptor that leads to it.
const DESCRIPTOR: i32 = 3;

/// The runner, which ends when this is dropped.
pub(super) struct Runner {
    process: Child,
    socket: OwnedFd,
}

impl Runner {
    /// Starts it in the volume. Where it cannot live, as there is no Python yet, the connection does without it.
    pub(super) fn start(chroot: &Chroot) -> Result<Self> {
        let (socket, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context("making a socket for Ansible's modules")?;
        let python = chroot.command("python3").args(["-c", RUNNER]);
        let process = python
            .configure(|command| {
                // A group of its own: on Ctrl-C it is needed until Ansible has ended.
                command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
            })
            .spawn()?;
        Ok(Self { process, socket })
    }

    /// Tells a run of Ansible where it is.
    pub(super) fn lead(&self, ansible: Command) -> Result<Command> {
        let socket = self.socket.try_clone().context("handing on a socket for Ansible's modules")?;
        Ok(ansible.descriptor(socket, DESCRIPTOR).env("KILN_RUNNER", DESCRIPTOR.to_string()))
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // Closing it would not do: something that outlived Ansible may have it as well.
        let _ = shutdown(&self.socket, Shutdown::Both);
        let _ = self.process.wait();
    }
}
