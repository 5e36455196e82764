//! Our side: the base image that both start from, and builds in stores that have nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::{Command, narrate};
use serde_json::Value;

use super::Bench;
use super::timing::{Scenario, Timed};

/// The name of the base image, in base.json.
const BASE: &str = "kiln-bench-base";

/// The store with the base image, which is made once.
pub struct Store<'a> {
    bench: &'a Bench,
}

impl<'a> Store<'a> {
    /// Makes a base image with Ansible inside, or finds it.
    pub fn prepare(bench: &'a Bench) -> Result<Self> {
        narrate::step("Making the base image, with Ansible inside...");
        let run = |command: Command| command.current_dir(&bench.files).run().context("making the base image");
        run(imager(bench, "base", &bench.state))?;
        run(imager(bench, "build", &bench.state).arg("base.json"))?;
        Ok(Self { bench })
    }

    /// The base image's disk.
    pub fn base_disk(&self) -> Result<PathBuf> {
        let image = imager(self.bench, "inspect", &self.bench.state).arg(BASE).run()?.stdout;
        let image: Value = serde_json::from_slice(&image).context("reading what imager inspect says")?;
        let id = image["id"].as_str().context("imager inspect names no id")?;
        Ok(self.bench.state.join("images").join(id).join("disk.raw"))
    }

    /// A store with the same images and no layers. An image's disk is never written, so it can be one file in both.
    fn copy(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
        let parts = ["images", "aliases"].map(|part| self.bench.state.join(part));
        Command::new("cp").args(["--archive", "--link"]).args(parts).arg(to).run()?;
        Ok(())
    }
}

/// How imager runs provisioners.
#[derive(Debug, Clone, Copy)]
pub enum Isolation {
    /// As Packer does.
    Chroot,
    /// Inside the booted system.
    Boot,
}

/// A store of its own for one round.
pub struct Kiln<'a> {
    bench: &'a Bench,
    isolation: Isolation,
    state: PathBuf,
}

impl<'a> Kiln<'a> {
    /// A store with the base image and nothing else.
    pub fn begin(bench: &'a Bench, store: &Store, isolation: Isolation) -> Result<Self> {
        let kiln = Self { bench, isolation, state: bench.round.join(isolation.name()) };
        store.copy(&kiln.state)?;
        Ok(kiln)
    }

    /// From source image to registered image.
    pub fn build(&self, scenario: Scenario, round: u32) -> Result<Timed> {
        let command = self.command("image.json")?.args(scenario.arguments(round));
        Timed::run(self.bench, self.isolation.program(), command)
    }

    /// A build whose provisioner leaves `sleep SECONDS` running.
    pub fn leave_a_process(&self, sleep: &str) -> Result<Timed> {
        let command = self.command("left-behind.json")?.args(["-var", &format!("sleep={sleep}")]);
        Timed::run(self.bench, self.isolation.program(), command)
    }

    fn command(&self, template: &str) -> Result<Command> {
        let path = self.state.join(template);
        let text = fs::read(self.bench.files.join(template)).with_context(|| format!("reading {template}"))?;
        let text = with_isolation(&text, self.isolation).with_context(|| format!("reading {template}"))?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        let source = format!("source_ami={BASE}");
        Ok(imager(self.bench, "build", &self.state).arg(path).args(["-var", &source]))
    }
}

impl Isolation {
    fn name(self) -> &'static str {
        match self {
            Self::Chroot => "chroot",
            Self::Boot => "boot",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::Chroot => "kiln",
            Self::Boot => "kiln-boot",
        }
    }
}

fn imager(bench: &Bench, subcommand: &str, state: &Path) -> Command {
    Command::new(&bench.imager).arg(subcommand).arg("--state-dir").arg(state)
}

/// The template as it is for Packer, with the one option that Packer does not know.
fn with_isolation(template: &[u8], isolation: Isolation) -> Result<Vec<u8>> {
    let mut template: Value = serde_json::from_slice(template)?;
    let builders = template["builders"].as_array_mut().context("it has no builders")?;
    for builder in builders {
        builder["isolation"] = isolation.name().into();
    }
    Ok(serde_json::to_vec_pretty(&template)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_builder_is_told_how_to_isolate() {
        let template = br#"{"builders": [{"name": "one"}, {"name": "two"}]}"#;
        let told: Value = serde_json::from_slice(&with_isolation(template, Isolation::Boot).unwrap()).unwrap();
        assert_eq!(told["builders"][1], serde_json::json!({"name": "two", "isolation": "boot"}));
    }
}
