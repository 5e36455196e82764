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
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use std::{fs, thread};

use anyhow::{Context, Result, bail};
use cli::{Child, Command, cgroup};
use rustix::process::{WaitOptions, wait};
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;

use crate::isolation::{LeftOver, look_at};

/// How the names of the control groups of sessions begin.
const GROUPS: &str = "kiln-build-";
/// How long processes may take to be gone after the kernel was told to end them.
const GONE: Duration = Duration::from_secs(3);

/// A session, which ends when this is dropped.
pub(crate) struct Session {
    /// `unshare`, the parent of the session's first process.
    unshare: Child,
    /// The session's first process, as seen from outside.
    init: i32,
}

impl Session {
    /// Starts a session.
    pub(crate) fn start() -> Result<Self> {
        sweep()?;
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
        match read_line(&mut unshare)?.trim().parse() {
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

    /// A path of the session, as seen from outside.
    pub(crate) fn path(&self, path: &Path) -> PathBuf {
        self.root().join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Where something is mounted, in the order in which that was done (proc_pid_mountinfo(5)).
    pub(crate) fn mounts(&self) -> Result<Vec<String>> {
        let mounts =
            fs::read_to_string(format!("/proc/{}/mountinfo", self.init)).context("looking into the session")?;
        Ok(mounts.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
    }

    /// The control group of a system that is booted in the session; nobody has made it yet.
    pub(crate) fn group(&self) -> PathBuf {
        group(self.init)
    }

    /// Everything that runs in the session apart from its first process.
    pub(crate) fn left_over(&self) -> Result<Vec<LeftOver>> {
        let namespace = fs::read_link(format!("/proc/{}/ns/pid", self.init)).context("looking into the session")?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // A process may end while we look; then it is not left over.
            if pid != self.init && fs::read_link(format!("/proc/{pid}/ns/pid")).ok().as_ref() == Some(&namespace) {
                found.extend(look_at(pid));
            }
        }
        Ok(found)
    }
}

/// The first line that a child prints.
pub(crate) fn read_line(child: &mut Child) -> Result<String> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).context("starting the session")?;
    }
    Ok(line)
}

/// The control group of the session whose first process is `init`.
fn group(init: i32) -> PathBuf {
    cgroup::hierarchy().join(format!("{GROUPS}{init}"))
}

/// Removes the groups of sessions whose first process was killed before it could do that.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(cgroup::hierarchy()).into_iter().flatten().flatten() {
        let owner = entry.file_name().to_str().and_then(|name| name.strip_prefix(GROUPS)?.parse::<i32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            cgroup::remove(&entry.path())?;
        }
    }
    Ok(())
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
    let this = fs::read_link("/proc/self")?.display().to_string();
    println!("{this}");
    let mut children = Signals::new([SIGCHLD])?;
    thread::spawn(move || {
        for _ in children.forever() {
            while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // All else goes with us; control groups do not.
    let group = group(this.parse()?);
    if group.exists() {
        cgroup::kill(&group)?;
        let asked = Instant::now();
        while !cgroup::remove(&group)? && asked.elapsed() < GONE {
            thread::sleep(Duration::from_millis(5));
        }
    }
    Ok(())
}
