//! The volume's own system, booted in a container of the session.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cli::{Child, Command, cgroup, interrupt, narrate};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::container::{self, CONSOLE, CONTAINER, MACHINE_ID};
use super::inside::Inside;
use super::network::{self, WayOut};
use super::traces::Traces;
use super::{LeftOver, left_over};
use crate::session::Session;

/// How long systemd may take to be there, and how long until all that is enabled has started.
const STARTED: Duration = Duration::from_secs(20);
const BOOTED: Duration = Duration::from_secs(120);
/// How long services may take to stop, before they are killed.
const STOPPED: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Where nspawn has the container's own groups, below the session's.
const PAYLOAD: &str = "payload";
/// What provisioners run in, beside systemd's own groups: what is still in here later was left over.
const PROVISIONER: &str = "provisioner";

/// A booted volume. Its processes end with the session at the latest.
pub(crate) struct Booted {
    nspawn: Child,
    /// The system's first process, as seen from outside.
    leader: i32,
    group: PathBuf,
    files: TempDir,
    machine_id: String,
    traces: Traces,
    way_out: WayOut,
}

impl Booted {
    /// The content of the volume's `/etc/resolv.conf` meanwhile.
    pub(crate) fn resolv_conf() -> String {
        format!("nameserver {}\n", network::RESOLVER)
    }

    /// Boots the volume that is mounted at `root` in the session; `scratch` takes what is needed meanwhile.
    pub(crate) fn boot(session: &Session, root: &Path, scratch: &Path, label: &str) -> Result<Self> {
        let group = session.group();
        let files = tempfile::Builder::new().prefix("boot-").tempdir_in(scratch).context("booting the volume")?;
        let machine_id = container::prepare(files.path())?;
        let traces = Traces::before(&Inside::open(&session.path(root))?)?;
        let mut nspawn = session
            .enter(&[])
            .arg(std::env::current_exe().context("finding this program")?)
            .arg(CONTAINER)
            .args([&group, root, files.path()])
            .configure(|command| {
                command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
            })
            .spawn()?;
        let number = crate::session::read_line(&mut nspawn)?;
        let Ok(number) = number.trim().parse() else {
            let _ = nspawn.wait();
            bail!("the container for the volume's system did not start");
        };
        let way_out = network::connect(session, number)?;
        if let Some(mut stdin) = nspawn.stdin.take() {
            stdin.write_all(b"\n").context("starting the volume's system")?;
        }
        let mut booted = Self { nspawn, leader: 0, group, files, machine_id, traces, way_out };
        booted.leader = booted.wait_for_leader()?;
        booted.wait_until_up(label)?;
        fs::create_dir_all(booted.provisioners()).context("making a control group for the provisioners")?;
        Ok(booted)
    }

    /// The words that bring a command inside, into the group of what provisioners run.
    pub(crate) fn enter_words(&self) -> Vec<String> {
        let group = self.provisioners().join("cgroup.procs").display().to_string();
        let mut words = ["/bin/sh", "-c", "echo 0 > \"$0\" && exec \"$@\"", &group].map(str::to_owned).to_vec();
        words.extend(self.namespaces());
        words
    }

    /// What provisioners have left running: whatever is not systemd's own, nor a service's.
    pub(crate) fn left_over(&self) -> Vec<LeftOver> {
        let left = |group: &Path| {
            let session = |name: &str| name.starts_with("session-") && name.ends_with(".scope");
            group.starts_with(PROVISIONER) || group.iter().any(|name| name.to_str().is_some_and(session))
        };
        cgroup::processes(&self.group.join(PAYLOAD), left).into_iter().filter_map(left_over::look_at).collect()
    }

    /// Shuts the system down and removes what its boot has left in the volume.
    pub(crate) fn shut_down(mut self, session: &Session, root: &Path, label: &str) -> Result<()> {
        if let Some(leader) = Pid::from_raw(self.leader) {
            // SIGRTMIN+4 powers off (systemd(1)); the C library keeps two of the kernel's for itself.
            let power_off = libc::SIGRTMIN() + 4;
            // SAFETY: the number is that of a real-time signal, which no library of this process uses.
            let power_off = unsafe { Signal::from_raw_unchecked(power_off) };
            let _ = kill_process(leader, power_off);
        }
        let started = Instant::now();
        while self.nspawn.try_wait().context("shutting the volume's system down")?.is_none() {
            interrupt::check()?;
            if started.elapsed() > STOPPED {
                narrate::note(&format!("{label}: services did not stop in {STOPPED:?} and were killed"));
                cgroup::kill(&self.group)?;
                self.nspawn.wait().context("shutting the volume's system down")?;
            }
            thread::sleep(POLL);
        }
        drop(self.way_out);
        cgroup::remove(&self.group)?;
        let inside = Inside::open(&session.path(root))?;
        self.traces.remove(&inside)?;
        // A provisioner that wrote the identity meant the image's.
        let written = fs::read_to_string(self.files.path().join(MACHINE_ID)).unwrap_or_default();
        if written.trim() != self.machine_id
            && let Some(etc) = inside.directory(Path::new("/etc"))?
        {
            fs::write(etc.path().join("machine-id"), written).context("writing /etc/machine-id")?;
        }
        Ok(())
    }

    fn provisioners(&self) -> PathBuf {
        self.group.join(PAYLOAD).join(PROVISIONER)
    }

    fn namespaces(&self) -> Vec<String> {
        let leader = self.leader.to_string();
        let options = ["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--root", "--wd", "--"];
        ["nsenter", "--target", &leader].into_iter().chain(options).map(str::to_owned).collect()
    }

    fn wait_for_leader(&mut self) -> Result<i32> {
        let started = Instant::now();
        loop {
            interrupt::check()?;
            let init = |group: &Path| group == Path::new("init.scope");
            if let Some(leader) = cgroup::processes(&self.group.join(PAYLOAD), init).first() {
                return Ok(*leader);
            }
            if self.nspawn.try_wait()?.is_some() || started.elapsed() > STARTED {
                bail!("the volume's system did not boot:\n{}", self.console());
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until systemd has started what it is to start.
    fn wait_until_up(&mut self, label: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            let inside = self.namespaces();
            let asked = Command::new("timeout")
                .arg(BOOTED.saturating_sub(started.elapsed()).as_secs_f64().max(0.1).to_string())
                .args(inside.iter().map(String::as_str).chain(["systemctl", "is-system-running", "--wait"]))
                .ask()?;
            interrupt::check()?;
            match asked.text().as_str() {
                "running" => return Ok(()),
                "degraded" => {
                    let failed = ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "--no-pager"];
                    let failed = Command::new("nsenter").args(inside.iter().skip(1)).args(failed).ask()?.text();
                    let units: Vec<_> = failed.lines().filter_map(|line| line.split(' ').next()).collect();
                    narrate::note(&format!("{label}: did not start at the volume's boot: {}", units.join(", ")));
                    return Ok(());
                }
                // Its socket is not there yet.
                _ if self.nspawn.try_wait()?.is_none() && started.elapsed() < BOOTED => thread::sleep(POLL),
                state => bail!("the volume's system did not come up ('{state}'):\n{}", self.console()),
            }
        }
    }

    /// The last that was said on the console.
    fn console(&self) -> String {
        let said = fs::read(self.files.path().join(CONSOLE)).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<_> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
