//! The process on which all kernel resources of a build hang.
//!
//! A session is a PID, mount, IPC and UTS namespace. Its first process stands
//! outside the volume's root, so that systemctl inside the chroot sees that it is
//! in one (it compares `/proc/1/root` with its own root) and ignores requests to
//! start things. It lives as long as the pipe to this process is open: when this
//! process ends, however it ends, the kernel kills what runs in the session,
//! drops its mounts, and with them frees the loop devices.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use cli::{Child, Command};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, wait};
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

/// How long a left-over process may take to end after SIGTERM, before SIGKILL.
const GRACE: Timespec = Timespec { tv_sec: 2, tv_nsec: 0 };

/// A session, which ends when this is dropped.
pub(crate) struct Session {
    /// `unshare`, the parent of the session's first process.
    unshare: Child,
    /// The session's first process, as seen from outside.
    init: i32,
}

/// A process in the session that should not be there any more.
pub(crate) struct LeftOver {
    pid: i32,
    pub(crate) name: String,
    pub(crate) command_line: String,
}

impl Session {
    /// Starts a session.
    pub(crate) fn start() -> Result<Self> {
        let this = std::env::current_exe().context("finding this program")?;
        let mut unshare = Command::new("unshare")
            .args(["--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private", "--"])
            .arg(this)
            .arg(INIT)
            .configure(|command| {
                // A group of its own: Ctrl-C is for us to handle, not for the session to die of.
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).process_group(0);
            })
            .spawn()?;
        let mut line = String::new();
        if let Some(stdout) = unshare.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("starting the session")?;
        }
        match line.trim().parse() {
            Ok(init) => Ok(Self { unshare, init }),
            Err(_) => {
                let _ = unshare.wait();
                bail!("the provisioning session did not start: it needs root, and a kernel with namespaces")
            }
        }
    }

    /// A command in the session's namespaces, outside the volume's root.
    pub(crate) fn command(&self, program: &str) -> Command {
        self.enter(&[]).arg(program)
    }

    /// `nsenter` into the session; `prefix` are further options of it.
    pub(crate) fn enter(&self, prefix: &[&str]) -> Command {
        Command::new("nsenter").args(self.enter_arguments()).args(prefix).arg("--")
    }

    /// The options with which `nsenter` gets into the session.
    pub(crate) fn enter_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--target".to_owned(), self.init.to_string()];
        arguments.extend(["--mount", "--pid", "--ipc", "--uts"].map(str::to_owned));
        arguments
    }

    /// The session's view of the file system, from outside.
    pub(crate) fn root(&self) -> PathBuf {
        format!("/proc/{}/root", self.init).into()
    }

    /// Everything that runs in the session apart from its first process.
    pub(crate) fn left_over(&self) -> Result<Vec<LeftOver>> {
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", self.init)).context("looking into the session")?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            let proc = |file: &str| format!("/proc/{pid}/{file}");
            // A process may end while we look; then it is not left over.
            if pid == self.init || fs::read_link(proc("ns/pid")).ok().as_ref() != Some(&namespace) {
                continue;
            }
            let (Ok(name), Ok(command_line)) = (fs::read_to_string(proc("comm")), fs::read(proc("cmdline"))) else {
                continue;
            };
            // A zombie has no command line; the session's first process is about to reap it.
            if command_line.is_empty() {
                continue;
            }
            let command_line = String::from_utf8_lossy(&command_line).trim_end_matches('\0').replace('\0', " ");
            found.push(LeftOver { pid, name: name.trim_end().to_owned(), command_line });
        }
        Ok(found)
    }

    /// Ends everything that was left running: politely first, and for certain then.
    pub(crate) fn kill(&self, left_over: &[LeftOver]) -> Result<()> {
        let handles: Vec<_> = left_over
            .iter()
            .filter_map(|process| Pid::from_raw(process.pid))
            .filter_map(|pid| pidfd_open(pid, PidfdFlags::empty()).ok().map(|handle| (pid, handle)))
            .collect();
        for signal in [Signal::TERM, Signal::KILL] {
            for (pid, handle) in &handles {
                let ended = |wait: &Timespec| {
                    let mut ended = [PollFd::new(handle, PollFlags::IN)];
                    poll(&mut ended, Some(wait)).is_ok_and(|count| count > 0)
                };
                if !ended(&Timespec { tv_sec: 0, tv_nsec: 0 }) {
                    let _ = kill_process(*pid, signal);
                    ended(&GRACE);
                }
            }
        }
        // What they started in the meantime, and what ignores everything but SIGKILL, is found by looking again.
        for process in self.left_over()? {
            if let Some(pid) = Pid::from_raw(process.pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        Ok(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.unshare.stdin.take());
        // The kernel has torn the session down when its parent returns.
        let _ = self.unshare.wait();
    }
}

/// The hidden subcommand that is the session's first process.
pub(crate) const INIT: &str = "session-init";

/// Is the session's first process: says its number, reaps, and ends with stdin.
pub(crate) fn init() -> Result<()> {
    // Ansible takes the name of process 1 for that of the service manager, unless it is this one:
    // then it looks at what the image has (ansible.module_utils.facts.system.service_mgr).
    rustix::thread::set_name(c"init").context("naming the session's first process")?;
    // Our /proc is still the host's, so this is our number there.
    println!("{}", fs::read_link("/proc/self")?.display());
    let mut children = Signals::new([SIGCHLD])?;
    thread::spawn(move || {
        for _ in children.forever() {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
