//! The measured program, its files, and what the kernel says of its process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cli::{Child, Command, interrupt};
use serde_json::Value;

use super::{KEYS, write};

/// For how long nothing may have changed before a file is made.
pub const QUIESCENCE: Duration = Duration::from_millis(20);

/// How long the first files may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running agent. It is killed when it is dropped.
pub struct Agent {
    child: Child,
    place: PathBuf,
}

/// The `number`th key, of those that are shared out among `templates`.
pub fn key(number: usize, templates: usize) -> String {
    let each = KEYS / templates;
    format!("/bench/{:04}/{:05}", number / each, number % each)
}

impl Agent {
    /// Starts one that keeps a file for each template, and waits until all are there.
    pub fn start(place: &Path, program: &Path, store: &str, templates: usize) -> Result<Self> {
        for directory in ["conf.d", "templates", "out"] {
            let path = place.join(directory);
            fs::create_dir_all(&path).with_context(|| format!("creating {}", path.display()))?;
        }
        let at = place.display();
        let settings = format!(
            "conf_dir = \"{at}/conf.d\"\ntemplate_dir = \"{at}/templates\"\nstate_dir = \"{at}/state\"\n\
             socket = \"{at}/agent.sock\"\n[store.etcd]\naddresses = [\"{store}\"]\n"
        );
        write(&place.join("config-agent.toml"), &settings)?;
        let template = "{% for key, value in keys.items() %}\n{{ key }}={{ value }}\n{% endfor %}\n";
        for number in 0..templates {
            write(&place.join(format!("templates/{number:04}.j2")), template)?;
            let text = format!(
                "template = \"{number:04}.j2\"\ndestination = \"{at}/out/{number:04}\"\n\
                 quiescence = {{ min = \"{}ms\", max = \"1s\" }}\n[values]\nkeys = {{ prefix = \"/bench/{number:04}\" }}\n",
                QUIESCENCE.as_millis()
            );
            write(&place.join(format!("conf.d/{number:04}.toml")), &text)?;
        }
        let log = File::create(place.join("agent.log")).context("creating the agent's log")?;
        let child = Command::new(program)
            .args(["run", "--settings"])
            .arg(place.join("config-agent.toml"))
            .configure(|command| _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log))
            .spawn()?;
        let agent = Self { child, place: place.to_owned() };
        agent.wait("making the first files", || Ok(agent.current_files(program)? == templates))?;
        Ok(agent)
    }

    /// How many files are what the store says, with nothing left to do for them.
    fn current_files(&self, program: &Path) -> Result<usize> {
        let status =
            Command::new(program).args(["status", "--json", "--socket"]).arg(self.place.join("agent.sock")).ask()?;
        // It does not listen yet.
        let Ok(report) = serde_json::from_slice::<Value>(&status.stdout) else { return Ok(0) };
        let files = report["files"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(files.iter().filter(|file| file["state"] == "current").count())
    }

    /// Where the files are.
    pub fn out(&self) -> PathBuf {
        self.place.join("out")
    }

    /// Waits until `what` is true.
    pub fn wait(&self, doing: &str, mut what: impl FnMut() -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !what()? {
            interrupt::check()?;
            if Instant::now() > deadline {
                bail!(
                    "{doing}: not within {PATIENCE:?}; the agent's log is {}",
                    self.place.join("agent.log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Resident memory now, in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let status = self.proc("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.context("reading the resident memory of the agent")
    }

    /// Nanoseconds on a CPU so far, of all threads.
    pub fn cpu_nanos(&self) -> Result<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.child.id())).context("reading the agent's threads")? {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            sum += text.split_whitespace().next().and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or_default();
        }
        Ok(sum)
    }

    fn proc(&self, name: &str) -> Result<String> {
        let path = format!("/proc/{}/{name}", self.child.id());
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
