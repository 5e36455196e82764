//! The line: which program does what, with which arguments.

use std::env;
use std::path::Path;

use clap::ValueEnum;
use cli::Command;
use cli::args::ProviderName;

use super::Args;
use super::component::Component;
use crate::workspace::Workspace;

/// What names this run in the tags of what it makes: ours, and Jenkins'. Where neither is set, its logs' directory does.
const NAMES_OF_RUN: [&str; 2] = ["KILN_RUN", "BUILD_TAG"];

/// A stage of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Stage {
    /// The commit becomes an artifact.
    Artifact,
    /// There is a base image to start from. It is made once, ahead of the first provisioning, and on this machine only:
    /// on AWS there are images of others.
    #[value(skip)]
    Base,
    /// Source image and artifact become a provisioned volume.
    Provision,
    /// The volume becomes an image.
    Snapshot,
    /// The image is booted and checked.
    Test,
    /// The tested image becomes a fleet.
    Deploy,
}

/// What the stages of this run are told.
pub struct Order<'a> {
    /// What the command line says.
    pub args: &'a Args,
    /// The programs.
    pub workspace: &'a Workspace,
    /// The component.
    pub component: &'a Component,
    /// The manifest.
    pub manifest: &'a Path,
    /// The directory of this run's logs.
    pub logs: &'a Path,
}

impl Stage {
    /// All stages of a provider's line, in order.
    pub fn of(provider: ProviderName) -> impl Iterator<Item = Self> {
        let all = [Self::Artifact, Self::Base, Self::Provision, Self::Snapshot, Self::Test, Self::Deploy];
        all.into_iter().filter(move |stage| *stage != Self::Base || provider == ProviderName::Local)
    }

    /// Its name on the command line and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Artifact => "artifact",
            Self::Base => "base",
            Self::Provision => "provision",
            Self::Snapshot => "snapshot",
            Self::Test => "test",
            Self::Deploy => "deploy",
        }
    }

    /// Whether it runs, given `--from` and `--only`.
    pub fn is_wanted(self, from: Option<Self>, only: Option<Self>) -> bool {
        // The base image has no name on the command line: it comes with provisioning.
        let stage = if self == Self::Base { Self::Provision } else { self };
        from.is_none_or(|from| stage >= from) && only.is_none_or(|only| stage == only)
    }
}

impl Order<'_> {
    /// The stage's program with its arguments.
    pub fn command(&self, stage: Stage) -> Command {
        let Self { args, workspace, component, manifest, logs } = self;
        let program = |name, subcommand| Command::new(workspace.program(name)).arg(subcommand);
        let with_manifest = |command: Command| command.arg("--manifest").arg(manifest);
        let store = args.store.store.iter().flat_map(|store| ["--store", store]);
        let command = match stage {
            // The other stages find the store in the manifest.
            Stage::Artifact => with_manifest(program("artifact", "build"))
                .arg("--source")
                .arg(&component.repository)
                .args(["--subdir", &component.subdirectory, "--rev", &args.rev])
                .args(store),
            Stage::Base => program("imager", "base"),
            Stage::Provision => with_manifest(program("imager", "provision")),
            Stage::Snapshot => with_manifest(program("imager", "snapshot")),
            Stage::Test => with_manifest(program("tester", "run"))
                .arg("--junit")
                .arg(logs.join("junit.xml"))
                .env("KILN_PROBE", workspace.probe()),
            Stage::Deploy => with_manifest(program("deployer", "deploy")).args(["--environment", &args.environment]),
        };
        let command =
            command.args(["--provider", &args.provider_name()]).arg("--state-dir").arg(&args.provider.state_dir);
        let is_named = NAMES_OF_RUN.iter().any(|name| env::var_os(name).is_some());
        let command =
            if is_named { command } else { command.env(NAMES_OF_RUN[0], logs.file_name().unwrap_or_default()) };
        if args.provider.no_wait { command.arg("--no-wait") } else { command }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(from: Option<Stage>, only: Option<Stage>) -> Vec<&'static str> {
        Stage::of(ProviderName::Local).filter(|stage| stage.is_wanted(from, only)).map(Stage::name).collect()
    }

    #[test]
    fn all_stages_run_where_nothing_is_said() {
        assert_eq!(wanted(None, None), ["artifact", "base", "provision", "snapshot", "test", "deploy"]);
    }

    #[test]
    fn no_base_image_is_made_for_aws() {
        let stages: Vec<_> = Stage::of(ProviderName::Aws).map(Stage::name).collect();
        assert_eq!(stages, ["artifact", "provision", "snapshot", "test", "deploy"]);
    }

    #[test]
    fn from_leaves_out_what_comes_before() {
        assert_eq!(wanted(Some(Stage::Snapshot), None), ["snapshot", "test", "deploy"]);
    }

    #[test]
    fn the_base_image_comes_with_provisioning() {
        assert_eq!(wanted(None, Some(Stage::Provision)), ["base", "provision"]);
        assert_eq!(wanted(None, Some(Stage::Deploy)), ["deploy"]);
    }
}
