//! The command line, one file for each subcommand.

mod alias;
mod base;
mod build;
mod diff;
mod gc;
mod images;
mod inspect;
mod layers;
mod provision;
mod publish;
mod remove;
mod snapshot;
mod validate;

use std::ffi::OsString;

use anyhow::Result;
use clap::{Parser, Subcommand};
use cli::args::ProviderArgs;
use cli::{BadInput, ExitCode};
use provider::{Images, RegisteredImage, SourceImage};

use crate::isolation::{CONTAINER, become_container};
use crate::mounts::{SESSION_MOUNT, session_mount};
use crate::session;
use crate::suppress_sync::{WITHOUT_SYNC, become_without_sync};

/// Makes machine images: source image + artifact → provisioned volume → image.
#[derive(Parser)]
#[command(name = "imager", version, max_term_width = 100, after_help = cli::EXIT_CODES)]
struct Imager {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    provider: ProviderArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Make a base image from Debian's packages, or say which one there is.
    Base(base::Args),
    /// Provision a volume as the component's template says.
    Provision(provision::Args),
    /// Register the provisioned volumes of the manifest as images.
    Snapshot(snapshot::Args),
    /// Provision and snapshot.
    Build(provision::Args),
    /// Say whether a template can be built.
    Validate(validate::Args),
    /// Upload images of this machine to another provider.
    Publish(publish::Args),
    /// List images, or remove those of old versions.
    Images(images::Args),
    /// Show what changed between two images.
    Diff(diff::Args),
    /// Show an image or a template.
    Inspect(inspect::Args),
    /// List layers, or remove old ones.
    Layers(layers::Args),
    /// Let a name stand for an image.
    Alias(alias::Args),
    /// Delete an image.
    Remove(remove::Args),
    /// Delete what dead runs have left, and volumes and layers whose time is past.
    Gc(gc::Args),
}

/// Runs the command line.
pub fn run() -> Result<ExitCode> {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    // What a session runs of us is no command of a user's: its words are not ours to read.
    match words.first().and_then(|first| first.to_str()) {
        Some(session::INIT) => return session::init().map(|()| ExitCode::Done),
        Some(CONTAINER) => return become_container(&words[1..]).map(|()| ExitCode::Done),
        Some(SESSION_MOUNT) => return session_mount(&words[1..]).map(|()| ExitCode::Done),
        Some(WITHOUT_SYNC) => return become_without_sync(&words[1..]).map(|()| ExitCode::Done),
        _ => {}
    }
    let Imager { command, provider: opened } = Imager::parse_from(std::env::args_os().map(long_form));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let provider = runtime.block_on(provider::open(&opened))?;
    match command {
        Command::Base(args) => return runtime.block_on(base::run(&provider, args)),
        Command::Publish(args) => return runtime.block_on(publish::run(&provider, &opened, &args)),
        _ => {}
    }
    let done = runtime.block_on(async {
        provider::dispatch!(&provider, provider => match command {
            Command::Base(_) | Command::Publish(_) => unreachable!("it is run above"),
            Command::Provision(args) => provision::run(provider, &args).await,
            Command::Snapshot(args) => snapshot::run(provider, &args).await,
            Command::Build(args) => build::run(provider, &args).await,
            Command::Validate(args) => validate::run(provider, &args).await,
            Command::Images(args) => images::run(provider, &args).await,
            Command::Diff(args) => diff::run(provider, &args).await,
            Command::Inspect(args) => inspect::run(provider, &args).await,
            Command::Layers(args) => layers::run(provider, &args).await,
            Command::Alias(args) => alias::run(provider, &args).await,
            Command::Remove(args) => remove::run(provider, &args).await,
            Command::Gc(args) => gc::run(provider, &args).await,
        })
    });
    cli::narrate::finish();
    done
}

/// Packer's users write `-var`, `-only` and so on with one dash.
fn long_form(argument: OsString) -> OsString {
    const PACKERS: &[&str] = &[
        "-var",
        "-var-file",
        "-only",
        "-except",
        "-force",
        "-parallel-builds",
        "-on-error",
        "-machine-readable",
        "-color",
        "-syntax-only",
    ];
    let text = argument.to_string_lossy();
    let name = text.split('=').next().unwrap_or_default();
    if PACKERS.contains(&name) { format!("-{text}").into() } else { argument }
}

/// Prints an id, unless stdout is for Packer's lines.
fn print_id(id: &impl std::fmt::Display) {
    if !cli::narrate::is_machine_readable() {
        println!("{id}");
    }
}

/// The image that the command line names.
async fn find(provider: &impl Images, name: &str) -> Result<RegisteredImage> {
    let found = provider.find_source(&SourceImage { name: name.to_owned() }).await?;
    found.ok_or_else(|| {
        let why = format!("there is no image '{name}'");
        BadInput::new("finding the image", why, "`imager images` lists ids, names and aliases").into()
    })
}
