//! The peer: Debian's Packer, and moto behind a gateway.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use cli::args::ProviderName;
use cli::host::{self, Tool};
use cli::{Child, Command, narrate};
use serde::Deserialize;

use super::Bench;
use super::timing::{Scenario, Timed};
use crate::{moto, setup};

/// What only the peer needs.
const TOOLS: [Tool; 2] = [
    Tool { program: "packer", package: "packer", used_for: "measuring imager beside it" },
    Tool { program: "python3", package: "python3-venv", used_for: "running moto, which answers Packer" },
];

/// Packer, and the Python that has moto.
pub struct Packer<'a> {
    bench: &'a Bench,
    python: PathBuf,
}

impl<'a> Packer<'a> {
    /// Installs what is missing of Packer, moto and what imager needs.
    pub fn install(bench: &'a Bench) -> Result<Self> {
        let mut missing = host::missing_tools(ProviderName::Local);
        missing.extend(TOOLS.into_iter().filter(|tool| !host::has(tool.program)));
        setup::install(&missing, narrate::detail, |command| {
            command.narrated().run()?;
            Ok(())
        })?;
        let version = Command::new("packer").arg("version").env("CHECKPOINT_DISABLE", "1").run()?.text();
        narrate::detail(&format!("the peer is {version}"));
        Ok(Self { bench, python: moto::install(&bench.state.join("moto"))? })
    }

    /// From source image to registered image. Packer does the same whatever was there before.
    pub fn build(&self, gateway: &Gateway, scenario: Scenario, round: u32) -> Result<Timed> {
        let command = self.command(gateway)?.args(scenario.arguments(round)).arg("image.json");
        Timed::run(self.bench, "packer", command)
    }

    /// A build whose provisioner leaves `sleep SECONDS` running.
    pub fn leave_a_process(&self, gateway: &Gateway, sleep: &str) -> Result<Timed> {
        let command = self.command(gateway)?.args(["-var", &format!("sleep={sleep}"), "left-behind.json"]);
        Timed::run(self.bench, "packer", command)
    }

    fn command(&self, gateway: &Gateway) -> Result<Command> {
        let own = self.bench.round.join("packer");
        fs::create_dir_all(&own).with_context(|| format!("creating {}", own.display()))?;
        let Ready { endpoint, source_ami } = &gateway.ready;
        Ok(Command::new("packer")
            .args(["build", "-color=false"])
            .args(["-var", &format!("endpoint={endpoint}"), "-var", &format!("source_ami={source_ami}")])
            .env("CHECKPOINT_DISABLE", "1")
            .env("PACKER_CONFIG_DIR", &own)
            .env("PACKER_CACHE_DIR", own.join("cache")))
    }
}

/// moto with disks, as tests/emulator makes it. It ends when its stdin does, so also with this process.
pub struct Gateway {
    child: Child,
    ready: Ready,
}

/// What the gateway says when it is ready.
#[derive(Debug, Deserialize)]
struct Ready {
    endpoint: String,
    source_ami: String,
}

impl Gateway {
    /// Starts it with `disk` as the disk of the source image, and waits until it answers.
    pub fn start(bench: &Bench, packer: &Packer, disk: &Path) -> Result<Self> {
        let command = Command::new(&packer.python)
            .arg(bench.files.join("../../tests/emulator"))
            .arg(bench.round.join("disks"))
            .arg(disk)
            .configure(|it| {
                // A Ctrl-C is for the build that runs, which still needs the gateway to clean up.
                it.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
            });
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().context("the gateway's stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("reading what the gateway says")?;
        let ready = serde_json::from_str(&line).context("the gateway did not start")?;
        Ok(Self { child, ready })
    }

    /// Ends it, after it has removed its disks.
    pub fn stop(mut self) -> Result<()> {
        let status = self.end()?;
        ensure!(status.success(), "the gateway failed ({status})");
        Ok(())
    }

    fn end(&mut self) -> Result<std::process::ExitStatus> {
        drop(self.child.stdin.take());
        self.child.wait().context("waiting for the gateway")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // On the way out of an error, which is worth more than this one.
        let _ = self.end();
    }
}
