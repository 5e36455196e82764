//! `cargo xtask pipeline`

mod component;
mod line;
mod log;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use cli::args::{ProviderArgs, ProviderName, StoreArgs};
use cli::{ExitCode, host, narrate};
use jiff::Timestamp;

use crate::setup;
use crate::workspace::{Providers, Workspace};
use component::Component;
use line::Stage;
use log::{Ended, Log};
use report::Report;

/// Take a component from a commit to a tested, running fleet.
///
/// Does all set-up, builds the programs of the line and runs them one after the other with one manifest. Prints the
/// service's URL; each stage's log is in target/pipeline/.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory of the component in its repository [default: this repository's examples/hello].
    #[arg(long, value_name = "PATH")]
    component: Option<PathBuf>,

    /// The revision that is built.
    #[arg(long, default_value = "HEAD")]
    rev: String,

    /// The manifest that the stages pass on, a file or s3://BUCKET/KEY [default: target/pipeline/COMPONENT.json, or
    /// COMPONENT-PROVIDER.json where that is not local].
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Begin with this stage; the manifest has what the stages before it did.
    #[arg(long, value_enum, value_name = "STAGE", conflicts_with = "only")]
    from: Option<Stage>,

    /// Run this stage alone.
    #[arg(long, value_enum, value_name = "STAGE")]
    only: Option<Stage>,

    /// The environment to deploy to.
    #[arg(long, value_name = "NAME", default_value = "local")]
    environment: String,

    /// Print one JSON document on stdout instead of the URL.
    #[arg(long)]
    json: bool,

    /// Name missing host packages instead of installing them.
    #[arg(long)]
    no_install: bool,

    /// Build the programs with AWS even if this run does not need it.
    #[arg(long)]
    with_aws: bool,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    provider: ProviderArgs,
}

impl Args {
    /// What the programs are built with.
    fn providers(&self) -> Providers {
        let aws = self.with_aws || self.provider.provider == ProviderName::Aws;
        if aws { Providers::All } else { Providers::Local }
    }

    /// The provider's name on command lines.
    fn provider_name(&self) -> String {
        let value = self.provider.provider.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// Runs the line, and reports on it however it ends.
pub fn run(args: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let default = workspace.root.join("examples/hello");
    let component = args.component.as_deref().unwrap_or(&default);
    let manifest = manifest_of(args, &workspace, component)?;
    let mut report = Report::new(&manifest, Stage::of(args.provider.provider));
    let ended = advance(args, &workspace, component, &manifest, &mut report);
    report.show(args.json)?;
    ended
}

/// The line. The report has a result for each stage, also for those that were not reached.
fn advance(
    args: &Args,
    workspace: &Workspace,
    component: &Path,
    manifest: &Path,
    report: &mut Report,
) -> Result<ExitCode> {
    let component = Component::find(component)?;
    component.note_uncommitted(&args.rev)?;
    let logs = logs_of_this_run(workspace)?;
    let order = line::Order { args, workspace, component: &component, manifest, logs: &logs };
    let mut code = report.stage("setup", || prepare(workspace, args, Log::new(&logs, "setup")?))?;
    for stage in Stage::of(args.provider.provider).filter(|stage| stage.is_wanted(args.from, args.only)) {
        if code == ExitCode::Done {
            code = report.stage(stage.name(), || Log::new(&logs, stage.name())?.run(order.command(stage)))?;
        }
    }
    Ok(code)
}

/// Installs what is missing on the host and builds the programs of the line.
fn prepare(workspace: &Workspace, args: &Args, mut log: Log) -> Result<Ended> {
    let missing = host::missing_tools(args.provider.provider);
    if args.no_install && !missing.is_empty() {
        setup::name(&missing, narrate::detail);
        let command = setup::install_command(&missing);
        bail!("programs are missing: run `{command}`, or this without --no-install");
    }
    setup::install(&missing, narrate::detail, |command| log.run(command)?.success())?;
    let [programs, probe] = workspace.builds(args.providers());
    let programs = log.run(programs)?;
    if !programs.is_success() {
        return Ok(programs);
    }
    let mut ended = log.run(probe)?;
    let is_built = [&programs, &ended].into_iter().any(|build| build.has_line("Compiling "));
    ended.unchanged = ended.is_success() && missing.is_empty() && !is_built;
    Ok(ended)
}

fn manifest_of(args: &Args, workspace: &Workspace, component: &Path) -> Result<PathBuf> {
    if let Some(named) = &args.manifest {
        if named.to_string_lossy().starts_with("s3://") {
            return Ok(named.clone());
        }
        return std::path::absolute(named).with_context(|| format!("manifest {}", named.display()));
    }
    let component = std::path::absolute(component)?;
    let mut name = component.file_name().unwrap_or("component".as_ref()).to_owned();
    // What stands in one provider's manifest means nothing to another.
    if args.provider.provider != ProviderName::Local {
        name.push(format!("-{}", args.provider_name()));
    }
    name.push(".json");
    Ok(workspace.target.join("pipeline").join(name))
}

/// A new directory, named by the time.
fn logs_of_this_run(workspace: &Workspace) -> Result<PathBuf> {
    let all = workspace.target.join("pipeline");
    let logs = all.join(Timestamp::now().strftime("%Y%m%dT%H%M%S.%3fZ").to_string());
    fs::create_dir_all(&all)
        .and_then(|()| fs::create_dir(&logs))
        .with_context(|| format!("creating {}", logs.display()))?;
    Ok(logs)
}
