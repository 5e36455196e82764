//! `tester run`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::args::{ManifestArgs, StoreArgs};
use cli::{BadInput, ExitCode, narrate};
use futures_util::future::join_all;
use manifest::{CheckOutcome, Image, Manifest, Verdict};
use provider::{Images, Instances, ManifestPlace, RegisteredImage, Store, StoredVerdict, known_here, origin};

use crate::booted::Bench;
use crate::checklist::Checklist;
use crate::examine::examine;
use crate::user_data::Via;
use crate::{junit, probe_file};

/// Arguments of `tester run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,
    /// Only the images of these builders.
    #[arg(long, value_name = "BUILDER", value_delimiter = ',')]
    only: Vec<String>,
    /// The gossfile; without it, the one that the component names.
    #[arg(long, value_name = "FILE")]
    gossfile: Option<PathBuf>,
    /// Write the verdicts to this file as JUnit XML, too.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// The static probe; without it, the one beside this program.
    #[arg(long, value_name = "FILE", env = "KILN_PROBE")]
    probe: Option<PathBuf>,
    /// How the report comes out of the instance.
    #[arg(long, value_enum, default_value_t)]
    via: Via,
    #[command(flatten)]
    store: StoreArgs,
}

/// Tests the images of the manifest, records the verdicts and prints them.
pub(crate) async fn run(provider: &(impl Images + Instances), args: &Args) -> Result<ExitCode> {
    let path = &args.manifest.manifest;
    let manifest = ManifestPlace::of(path).await?.read().await?;
    let images = select(provider, &manifest, &args.only).map_err(|why| why.in_file(path))?;
    let (scratch, cache) = (provider.scratch()?, provider.cache());
    let checklist = Checklist::fetch(path, &manifest, args.gossfile.as_deref(), &scratch, &cache).await?;

    let mut verdicts = BTreeMap::new();
    let mut untested = Vec::new();
    for &(builder, ref image) in &images {
        let registered = find(provider, builder, image).await?;
        let known = manifest.tests.get(builder).filter(|verdict| holds(verdict, image, &registered, &checklist));
        match known.filter(|_| !args.manifest.force) {
            Some(known) => drop(verdicts.insert(builder, known.clone())),
            None => untested.push((builder, image)),
        }
    }
    let unchanged = untested.is_empty();
    if !unchanged {
        let bench = bench(args, &manifest, &cache).await?;
        verdicts.extend(test_all(provider, path, untested, &checklist, &bench).await?);
    }

    for verdict in verdicts.values() {
        println!("{} {}", verdict.stamp.consumed, if verdict.passed { "passed" } else { "failed" });
    }
    if let Some(file) = &args.junit {
        junit::write(file, &manifest.component.name, &verdicts)?;
    }
    if unchanged {
        narrate::unchanged("every image is tested already, and passed");
    }
    let passed = verdicts.values().all(|verdict| verdict.passed);
    Ok(if passed { ExitCode::Done } else { ExitCode::Verdict })
}

/// What the images are tested with. Without `--store`, the probe is put where the artifact is.
async fn bench(args: &Args, manifest: &Manifest, cache: &Path) -> Result<Bench> {
    let store = args.store.store.as_ref().or(manifest.artifact.as_ref().map(|artifact| &artifact.store));
    let mut tags = manifest.component.test.as_ref().map(|test| test.tags.clone()).unwrap_or_default();
    tags.extend(origin::tags("tester", Some(manifest)));
    tags.insert("kiln-purpose".to_owned(), "test".to_owned());
    Ok(Bench {
        probe: probe_file::find(args.probe.as_deref())?,
        store: match store {
            Some(name) => Some(Store::open(name, cache).await?),
            None => None,
        },
        placement: manifest.component.test.as_ref().and_then(|test| test.aws.clone()).unwrap_or_default(),
        via: args.via,
        tags,
    })
}

/// Tests images side by side: most of a boot is waiting.
///
/// What goes wrong with one does not keep the others from their verdicts. The last error is
/// returned, those before it are told.
async fn test_all<'a>(
    provider: &(impl Images + Instances),
    manifest: &Path,
    images: Vec<(&'a String, &'a Image)>,
    checklist: &Checklist,
    bench: &Bench,
) -> Result<Vec<(&'a String, Verdict)>> {
    let test = async |(builder, image): (&'a String, &'a Image)| {
        let verdict = examine(provider, builder, image, checklist, bench).await;
        let verdict = verdict.with_context(|| format!("builder '{builder}'"))?;
        record(provider, manifest, builder, image, &verdict).await?;
        summarize(builder, &verdict);
        anyhow::Ok((builder, verdict))
    };
    let mut verdicts = Vec::new();
    let mut failure = None;
    for tested in join_all(images.into_iter().map(test)).await {
        match tested {
            Ok(verdict) => verdicts.push(verdict),
            Err(error) => {
                if let Some(earlier) = failure.replace(error) {
                    narrate::detail(&format!("{earlier:#}"));
                }
            }
        }
    }
    failure.map_or(Ok(verdicts), Err)
}

/// The images that are to be tested, by builder, as the provider knows them.
fn select<'a>(
    provider: &impl Images,
    manifest: &'a Manifest,
    only: &[String],
) -> Result<Vec<(&'a String, Image)>, BadInput> {
    let refuse = |why: String, stage: &str| {
        let remedy = format!("run `imager {stage}` first");
        Err(BadInput::new("reading the manifest", why, remedy))
    };
    if let Some(missing) = only.iter().find(|name| !manifest.images.contains_key(*name)) {
        return refuse(format!("it has no image of the builder '{missing}'"), "snapshot");
    }
    let wanted = |builder: &String| only.is_empty() || only.contains(builder);
    let images: Vec<_> = manifest.images.iter().filter(|(builder, _)| wanted(builder)).collect();
    if images.is_empty() {
        return refuse("it has no image yet".to_owned(), "snapshot");
    }
    for (builder, image) in &images {
        if let Some(stale) = &image.stamp.stale {
            return refuse(format!("the image of '{builder}' is stale: {stale}"), "build");
        }
    }
    images.into_iter().map(|(builder, image)| Ok((builder, known_here(provider, builder, image)?))).collect()
}

async fn find(provider: &impl Images, builder: &str, image: &Image) -> Result<RegisteredImage> {
    provider.image(&image.identity.value).await?.with_context(|| {
        let Image { identity, .. } = image;
        format!("the image {identity} of builder '{builder}' is no longer there: run `{}` again", image.made_by())
    })
}

/// Whether this verdict is what a test of the image would find again. One that failed is never
/// taken for granted: the cause may have been outside the image.
fn holds(verdict: &Verdict, image: &Image, registered: &RegisteredImage, checklist: &Checklist) -> bool {
    let stored = |stored: &StoredVerdict| stored.passed && stored.digest == verdict.digest;
    verdict.passed
        && verdict.digest == image.digest
        && verdict.stamp.consumed == image.identity
        && verdict.gossfile == checklist.digest
        && registered.verdict.as_ref().is_some_and(stored)
}

async fn record(
    provider: &impl Images,
    manifest: &Path,
    builder: &str,
    image: &Image,
    verdict: &Verdict,
) -> Result<()> {
    let stored = StoredVerdict { passed: verdict.passed, digest: verdict.digest.clone(), ended: verdict.stamp.ended };
    provider.record_verdict(&image.identity.value, &stored).await?;
    let change = |manifest: &mut Manifest| drop(manifest.tests.insert(builder.to_owned(), verdict.clone()));
    ManifestPlace::of(manifest).await?.update(None, change).await?;
    Ok(())
}

fn summarize(builder: &str, verdict: &Verdict) {
    let count = |outcome| verdict.checks.iter().filter(|check| check.outcome == outcome).count();
    for check in verdict.checks.iter().filter(|check| check.outcome == CheckOutcome::Failed) {
        let message = check.message.as_deref().unwrap_or("no reason given");
        narrate::detail(&format!("FAILED {}: {}: {message}", check.phase, check.name));
    }
    let (passed, failed) = (count(CheckOutcome::Passed), count(CheckOutcome::Failed));
    let skipped = match count(CheckOutcome::Skipped) {
        0 => String::new(),
        skipped => format!(", {skipped} skipped"),
    };
    let seconds = verdict.boot_millis as f64 / 1000.0;
    narrate::step(&format!("{builder}: {passed} passed, {failed} failed{skipped}; up after {seconds:.1} s"));
}
