//! Where things are in this repository, and how they are built.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::Command;

/// The programs that the line runs, and the supervisor that they start.
const PROGRAMS: [&str; 5] = ["artifact", "imager", "tester", "deployer", "locald"];

/// What builds the programs of the line with AWS beside this machine.
const WITH_AWS: [&str; 2] = ["--features", "aws"];

/// Which providers the programs are built with. AWS's SDK takes minutes to build, so a local run does without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Providers {
    /// This machine.
    Local,
    /// This machine and AWS.
    All,
}

impl Providers {
    /// Arguments of cargo.
    pub fn features(self) -> &'static [&'static str] {
        match self {
            Self::Local => &[],
            Self::All => &WITH_AWS,
        }
    }
}

/// Variables that cargo sets for the package that it runs.
const OF_PACKAGE: [&str; 2] = ["CARGO_PKG_", "CARGO_MANIFEST_"];

/// This checkout and its build directory.
#[derive(Debug)]
pub struct Workspace {
    /// The directory that has the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// The build directory.
    pub target: PathBuf,
    /// Where cargo puts programs: where this one is.
    programs: PathBuf,
}

impl Workspace {
    /// Finds it by the running program and the package that cargo runs it for.
    pub fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
        let root = package.parent().context("finding the workspace")?.to_owned();
        let this = std::env::current_exe().context("finding the build directory")?;
        let programs = this.parent().context("finding the build directory")?.to_owned();
        let target = programs.parent().context("finding the build directory")?.to_owned();
        Ok(Self { root, target, programs })
    }

    /// A run of cargo in the workspace, with the environment that a person's own run would have: what the outer cargo
    /// says of this package would make some build scripts (ring's) run anew each time.
    pub fn cargo(&self) -> Command {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let of_package = |name: &str| OF_PACKAGE.iter().any(|prefix| name.starts_with(prefix));
        Command::new(cargo).current_dir(&self.root).configure(|command| {
            for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(of_package)) {
                command.env_remove(name);
            }
        })
    }

    /// What builds the line's programs and the probe that goes into instances.
    pub fn builds(&self, providers: Providers) -> [Command; 2] {
        let build = self.cargo().arg("build");
        let programs = match providers {
            Providers::Local => build.args(PROGRAMS.into_iter().flat_map(|program| ["--package", program])),
            // As the tests build them: a subset of the packages has other features, and the SDK was built anew.
            Providers::All => build.arg("--workspace").args(providers.features()),
        };
        // With an explicit target the flag concerns the probe alone: proc-macros cannot be static, and the other
        // programs are not built anew.
        let probe = self.cargo().args(["build", "--package", "probe", "--target", &triple()]);
        [programs, probe.env("RUSTFLAGS", "-C target-feature=+crt-static")]
    }

    /// What builds config-agent as it ships: static and small.
    pub fn builds_config_agent(&self) -> Command {
        let build = self.cargo().args(["build", "--profile", "instance", "--package", "config-agent"]);
        build.args(["--target", &triple()]).env("RUSTFLAGS", "-C target-feature=+crt-static")
    }

    /// config-agent as it ships.
    pub fn config_agent(&self) -> PathBuf {
        self.target.join(triple()).join("instance/config-agent")
    }

    /// One of the line's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The static probe.
    pub fn probe(&self) -> PathBuf {
        let profile = self.programs.file_name().unwrap_or("debug".as_ref());
        self.target.join(triple()).join(profile).join("probe")
    }

    /// A path as a person would write it from the current directory.
    pub fn shown(path: &Path) -> String {
        let here = std::env::current_dir().unwrap_or_default();
        path.strip_prefix(&here).unwrap_or(path).display().to_string()
    }
}

fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}
