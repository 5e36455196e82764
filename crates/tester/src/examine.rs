//! The sequence: from an image to a verdict.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use cli::{BadInput, interrupt, narrate};
use jiff::Timestamp;
use manifest::{CheckOutcome, Image, Stamp, TestedCheck, Verdict};
use provider::{Images, Instances};

use crate::audit;
use crate::booted::{Bench, Booted, boot_and_check};
use crate::checklist::Checklist;

/// Tests an image: offline what its disk must not hold, then in an instance what the gossfile says.
///
/// An error means that there is no verdict, which is neither passed nor failed.
pub(crate) async fn examine(
    provider: &(impl Images + Instances),
    builder: &str,
    image: &Image,
    checklist: &Checklist,
    bench: &Bench,
) -> Result<Verdict> {
    let started = Timestamp::now();
    interrupt::check()?;
    let id = &image.identity.value;
    let say = |text: &str| narrate::step(&format!("{builder}: {text}"));

    say("Checking the image's digest...");
    let before = provider.digest(id).await?;
    ensure!(
        before == image.digest,
        "the image {id} is damaged: its digest is {before}, and {} when it was registered; run `{} --force`",
        image.digest,
        image.made_by()
    );
    say("Auditing the image's disk...");
    let mut checks = match provider.roots_out_of_reach().await? {
        None => provider.with_root(id, |root| audit(root, id)).await.context("auditing the image's disk")?,
        Some(why) => {
            narrate::note(&format!("{builder}: the disk is not audited: {why}"));
            vec![audit::skipped(why)]
        }
    };
    let Booted { after, checks: booted } = boot_and_check(provider, builder, id, checklist, bench).await?;
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

/// What is found on the image's disk. Bad input if nothing on it could start the probe.
fn audit(root: &Path, id: &str) -> Result<Vec<TestedCheck>> {
    if !audit::has_cloud_init(root)? {
        let why = format!("the image {id} has no cloud-init, which has to start the probe");
        return Err(BadInput::new("testing an image", why, "install cloud-init in it").into());
    }
    audit::audit(root)
}
