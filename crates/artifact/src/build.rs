use std::io::Write;

use anyhow::{Context, Result};
use cli::args::{ManifestArgs, ProviderArgs, StoreArgs};
use cli::{BadInput, ExitCode, interrupt, narrate};
use jiff::Timestamp;
use manifest::{Artifact, Component, Identity, Manifest, ReadError, Source, Stamp};
use provider::{ManifestPlace, ObjectDigest, Objects, Store};
use rustix::fs::Mode;

use crate::build_dir::BuildDir;
use crate::pack::pack;
use crate::package::package;
use crate::repository::Repository;
use crate::revision::{Revision, short};
use crate::session::{BuildFailed, run_commands};

const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Build the artifact of a component at a revision and store it under its SHA-256.
///
/// Prints the SHA-256 of the artifact. Exit codes: 0 built, or built already; 1 a build command failed;
/// 2 usage or bad input; 3 could not run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository: a directory of it on this machine, or anything that `git fetch` takes.
    #[arg(long, value_name = "PATH|URL", default_value = ".")]
    source: String,

    /// The component's directory, below the source.
    #[arg(long, value_name = "DIR", default_value = "")]
    subdir: String,

    /// The revision: a commit, a branch or a tag.
    #[arg(long, default_value = "HEAD")]
    rev: String,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    manifest: ManifestArgs,

    #[command(flatten)]
    provider: ProviderArgs,
}

/// Builds, and prints the digest of what was built.
pub fn run(args: &Args) -> Result<ExitCode> {
    // What is exported and built must not depend on who runs it.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // The thread that starts a build command has to live as long as the command: see `session`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?;
    match runtime.block_on(build(args)) {
        Ok(digest) => {
            narrate::finish();
            writeln!(std::io::stdout(), "{digest}").context("writing the digest to stdout")?;
            Ok(ExitCode::Done)
        }
        Err(error) if error.is::<BuildFailed>() => {
            narrate::error(&error.to_string());
            Ok(ExitCode::Verdict)
        }
        Err(error) => Err(error),
    }
}

/// The sequence of this stage.
async fn build(args: &Args) -> Result<ObjectDigest> {
    let started = Timestamp::now();
    let if_held = args.provider.if_held();
    let cache = args.provider.state_dir.join("git-cache");
    let repository = Repository::open(&args.source, &args.rev, &cache, if_held)?;
    let revision = Revision::resolve(repository, &args.rev, &args.subdir)?;
    let file = revision.component_file()?;
    let (component, version) = (&file.component, &revision.version);
    if args.rev == "HEAD" && revision.has_uncommitted_changes()? {
        narrate::note(&format!("{} has uncommitted changes, which are not built", component.name));
    }

    let directory = BuildDir::take(&component.name, if_held)?;
    let manifest = read_manifest(args, component).await?;
    let store = open_store(args).await?;
    if !args.manifest.force
        && let Some((source, digest)) = built_already(manifest.as_ref(), &revision, &store).await?
    {
        record(args, component, &source, None).await?;
        narrate::unchanged(&format!("{} {version} is built already", component.name));
        return Ok(digest);
    }

    narrate::step(&format!("{} {version}: exporting {}", component.name, short(&revision.commit)));
    directory.export(&revision)?;
    let archive = directory.file("source.tar.zst");
    pack(&directory.source(), &archive, revision.epoch)?;
    run_commands(component, &revision, &directory)?;

    narrate::step(&format!("{} {version}: storing the artifact in {}", component.name, store.name()));
    let artifact = package(&file, &revision, &directory)?;
    interrupt::check()?;
    let archive = Identity::sha256(store.put(&archive).await?.as_str());
    let digest = store.put(&artifact).await?;
    let entry = Artifact {
        stamp: Stamp::now(TOOL_VERSION, started, archive.clone()),
        identity: Identity::sha256(digest.as_str()),
        file_name: artifact.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        size: artifact.metadata().with_context(|| format!("looking at {}", artifact.display()))?.len(),
        store: store.name(),
    };
    narrate::detail(&format!("{} ({} bytes): {digest}", entry.file_name, entry.size));
    record(args, component, &revision.source(archive), Some(&entry)).await?;
    Ok(digest)
}

/// What the manifest holds already, if there is one. A manifest of another component is not overwritten.
async fn read_manifest(args: &Args, component: &Component) -> Result<Option<Manifest>> {
    let path = &args.manifest.manifest;
    match ManifestPlace::of(path).await?.read().await {
        Ok(manifest) if manifest.component.name != component.name => {
            let why = format!("it is the manifest of '{}', not of '{}'", manifest.component.name, component.name);
            let refused = BadInput::new("reading the manifest", why, "name another file with --manifest");
            Err(refused.in_file(path).into())
        }
        Ok(manifest) => Ok(Some(manifest)),
        Err(error) if matches!(error.downcast_ref(), Some(ReadError::Missing { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The store that was named, or else the one of the local provider.
async fn open_store(args: &Args) -> Result<Store> {
    if let Some(name) = &args.store.store {
        return Store::open(name, &args.provider.state_dir.join("cache")).await;
    }
    match provider::open(&args.provider).await?.local() {
        Some(local) => Ok(Store::Directory(local.objects())),
        None => {
            let why = "the provider aws has none of its own";
            Err(BadInput::new("opening the artifact store", why, "name one with --store s3://BUCKET/PREFIX").into())
        }
    }
}

/// The source entry of `revision` and its artifact, if the manifest has that artifact and the store has its content.
///
/// The source archive follows from tree, commit and version of this tool, so it need not be packed to be compared.
async fn built_already(
    manifest: Option<&Manifest>,
    revision: &Revision,
    store: &Store,
) -> Result<Option<(Source, ObjectDigest)>> {
    let Some((source, artifact)) =
        manifest.and_then(|manifest| manifest.source.as_ref().zip(manifest.artifact.as_ref()))
    else {
        return Ok(None);
    };
    let same = source.tree == revision.tree
        && source.component_commit == revision.component_commit
        && artifact.stamp.consumed == source.archive
        && artifact.stamp.tool_version == TOOL_VERSION
        && artifact.store == store.name();
    if !same {
        return Ok(None);
    }
    let digest = ObjectDigest::parse(&artifact.identity.value)?;
    let there = store.has(&digest).await? && store.has(&ObjectDigest::parse(&source.archive.value)?).await?;
    Ok(there.then(|| (revision.source(source.archive.clone()), digest)))
}

/// Writes this stage's sections of the manifest, and the artifact's only if there is a new one.
async fn record(args: &Args, component: &Component, source: &Source, artifact: Option<&Artifact>) -> Result<()> {
    let place = ManifestPlace::of(&args.manifest.manifest).await?;
    let change = |manifest: &mut Manifest| {
        manifest.component = component.clone();
        manifest.source = Some(source.clone());
        if artifact.is_some() {
            manifest.artifact = artifact.cloned();
        }
    };
    place.update(Some(component), change).await?;
    Ok(())
}
