//! The sequence: from an image to a verdict.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cli::{interrupt, narrate};
use jiff::Timestamp;
use manifest::{CheckOutcome, Image, Stamp, Verdict};
use provider::{Images, Instances};

use crate::audit;
use crate::booted::{Booted, boot_and_check};
use crate::checklist::Checklist;

/// Tests an image: offline what its disk must not hold, then in an instance what the gossfile says.
///
/// An error means that there is no verdict, which is neither passed nor failed.
pub(crate) async fn examine(
    provider: &(impl Images + Instances),
    builder: &str,
    image: &Image,
    checklist: &Checklist,
    probe: &Path,
) -> Result<Verdict> {
    let started = Timestamp::now();
    interrupt::check()?;
    let id = &image.identity.value;
    let say = |text: &str| narrate::step(&format!("{builder}: {text}"));

    say("Checking the image's digest...");
    let before = provider.digest(id).await?;
    ensure!(
        before == image.digest,
        "the image {id} is damaged: its digest is {before}, and {} when it was registered; run `imager snapshot --force`",
        image.digest
    );
    say("Auditing the image's disk...");
    let mut checks = provider.with_root(id, audit::audit).await.context("auditing the image's disk")?;
    let Booted { after, checks: booted } = boot_and_check(provider, builder, id, checklist, probe).await?;
    checks.extend(booted);
    say("Proving that the image is unchanged...");
    let digest = provider.digest(id).await?;
    ensure!(digest == before, "the test changed the image {id}: its digest was {before} and is {digest} now");

    Ok(Verdict {
        stamp: Stamp::now(env!("CARGO_PKG_VERSION"), started, image.identity.clone()),
        digest,
        gossfile: checklist.digest.clone(),
        passed: checks.iter().all(|check| check.outcome != CheckOutcome::Failed),
        boot_millis: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
        checks,
    })
}
