//! EBS snapshots: made once each, waited for, and layers kept as such.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use aws_sdk_ec2::config::retry::RetryConfig;
use aws_sdk_ec2::error::SdkError;
use aws_sdk_ec2::types::{Image, ResourceType, Snapshot, SnapshotState};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use jiff::Timestamp;

use super::failure::{Explain, code, is_not_found, is_throttle};
use super::lease::{self, EXPIRES, HOLDER};
use super::tags::{self, LAYER, Tags, filter};
use super::{Aws, ami, wait};
use crate::LayerRecord;
use crate::images::LAYER_KEPT;

/// What a layer's snapshot has beside its key: which provisioner made it.
const MADE_BY: &str = "kiln:made-by";

/// How long a snapshot may take. The first of a volume is of all its blocks, and EC2 promises nothing.
const COMPLETED: Duration = Duration::from_secs(3600);
/// How long CreateSnapshot is tried.
const BEGUN: Duration = Duration::from_secs(300);
/// How many requests for a snapshot may stay without an answer.
const TRIES: usize = 3;
/// How long a snapshot is looked for whose making was not answered: DescribeSnapshots may be behind.
const UNANSWERED: Duration = Duration::from_secs(15);

impl Aws {
    /// Begins a snapshot of `volume`, or finds the one that has the same tag `mark`, and returns its id.
    ///
    /// CreateSnapshot has no token by which a request could be repeated. So it is never repeated before it is certain
    /// that the one before has made nothing.
    pub(super) async fn begin_snapshot(&self, volume: &str, mark: &str, tags: &Tags) -> Result<String> {
        let wanted = tags.get(mark).with_context(|| format!("a snapshot needs the tag {mark}"))?;
        let mut unanswered = Vec::<Instant>::new();
        wait::until(&format!("a snapshot of {volume} to be begun"), BEGUN, async || {
            let filters = [filter("volume-id", [volume]), filter(format!("tag:{mark}"), [wanted])];
            let known = self.snapshots_with(filters).await?;
            if let Some(known) = known.iter().find(|snapshot| snapshot.state() != Some(&SnapshotState::Error)) {
                return Ok(known.snapshot_id().map(str::to_owned));
            }
            if unanswered.last().is_some_and(|since| since.elapsed() < UNANSWERED) {
                return Ok(None);
            }
            let once = aws_sdk_ec2::config::Builder::new().retry_config(RetryConfig::disabled());
            let begun = self
                .ec2
                .create_snapshot()
                .volume_id(volume)
                .description(format!("kiln: {wanted}"))
                .tag_specifications(tags::specification(ResourceType::Snapshot, tags))
                .customize()
                .config_override(once)
                .send()
                .await;
            match begun {
                Ok(snapshot) => Ok(snapshot.snapshot_id),
                Err(error) => match Repeat::of(&error) {
                    Repeat::AtOnce => Ok(None),
                    Repeat::AfterALook if unanswered.len() < TRIES => {
                        unanswered.push(Instant::now());
                        Ok(None)
                    }
                    _ => Err(error).doing("ec2:CreateSnapshot", || format!("making a snapshot of {volume}")),
                },
            }
        })
        .await
    }

    /// Waits until volumes and images can be made of it.
    pub(super) async fn completed(&self, id: &str) -> Result<Snapshot> {
        wait::until(&format!("the snapshot {id} to be complete"), COMPLETED, async || {
            let snapshot = match self.ec2.describe_snapshots().snapshot_ids(id).send().await {
                Ok(asked) => asked.snapshots.unwrap_or_default().pop(),
                Err(error) if is_not_found(&error) => None,
                Err(error) => Err(error).doing("ec2:DescribeSnapshots", || format!("looking at the snapshot {id}"))?,
            };
            match snapshot.as_ref().and_then(Snapshot::state) {
                Some(SnapshotState::Completed) => Ok(snapshot),
                Some(SnapshotState::Error) => {
                    let why = snapshot.as_ref().and_then(Snapshot::state_message).unwrap_or("AWS gives no reason");
                    bail!("EC2 could not make the snapshot {id}: {why}")
                }
                _ => Ok(None),
            }
        })
        .await
    }

    /// The account's snapshots that these filters let through, oldest first.
    pub(super) async fn snapshots_with(
        &self,
        filters: impl IntoIterator<Item = aws_sdk_ec2::types::Filter>,
    ) -> Result<Vec<Snapshot>> {
        let asking = self.ec2.describe_snapshots().owner_ids("self").set_filters(Some(filters.into_iter().collect()));
        let found = asking.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let mut found = found.doing("ec2:DescribeSnapshots", || "looking for snapshots".to_owned())?;
        found.sort_by_key(|snapshot| snapshot.start_time().map(|time| (time.secs(), time.subsec_nanos())));
        Ok(found)
    }

    /// The snapshots that go when the image goes: a stage of ours has made them, and no other image consists of them.
    pub(super) async fn going_with(&self, image: &Image) -> Result<Vec<String>> {
        let asked = self.ec2.describe_images().owners("self").into_paginator().items().send();
        let images = asked.collect::<Result<Vec<_>, _>>().await;
        let images = images.doing("ec2:DescribeImages", || "looking for images".to_owned())?;
        let others = images.iter().filter(|other| other.image_id() != image.image_id()).flat_map(ami::snapshots);
        let others: Vec<_> = others.collect();
        let mut alone = ami::snapshots(image);
        alone.retain(|snapshot| !others.contains(snapshot));
        if alone.is_empty() {
            return Ok(alone);
        }
        let ours = self.snapshots_with([filter("snapshot-id", alone), filter("tag-key", [lease::STAGE])]).await?;
        Ok(ours.into_iter().filter_map(|snapshot| snapshot.snapshot_id).collect())
    }

    /// Deletes a snapshot; one that is gone is as it should be.
    pub(super) async fn delete_snapshot(&self, id: &str) -> Result<()> {
        match self.ec2.delete_snapshot().snapshot_id(id).send().await {
            Err(error) if is_not_found(&error) => Ok(()),
            done => done.doing("ec2:DeleteSnapshot", || format!("deleting the snapshot {id}")).map(drop),
        }
    }

    /// Begins the layer's snapshot. It has the volume's content of this moment, whatever happens to the volume later.
    pub(super) async fn begin_layer(&self, volume: &str, key: &str, made_by: &str, tags: &Tags) -> Result<()> {
        let mut tags = tags.clone();
        tags.remove(HOLDER);
        tags.insert(LAYER.to_owned(), key.to_owned());
        tags.insert(MADE_BY.to_owned(), made_by.chars().take(256).collect());
        tags.insert(EXPIRES.to_owned(), lease::ending(LAYER_KEPT));
        self.begin_snapshot(volume, LAYER, &tags).await.map(drop)
    }

    /// The snapshots of a layer, or of all layers, oldest first.
    pub(super) async fn layer_snapshots(&self, key: Option<&str>) -> Result<Vec<Snapshot>> {
        let of_key = key.map(|key| filter(format!("tag:{LAYER}"), [key]));
        let mut found = self.snapshots_with([filter("tag-key", [MADE_BY])].into_iter().chain(of_key)).await?;
        found.retain(|snapshot| snapshot.state() != Some(&SnapshotState::Error));
        Ok(found)
    }

    /// The newest snapshot of a layer, once it is complete.
    pub(super) async fn completed_layer(&self, key: &str) -> Result<Snapshot> {
        let newest = self.layer_snapshots(Some(key)).await?.pop();
        let newest = newest.with_context(|| format!("the layer {key} is no longer there"))?;
        self.completed(newest.snapshot_id().unwrap_or_default()).await
    }
}

/// A layer as the stages know it.
pub(super) fn layer(snapshot: &Snapshot) -> Result<LayerRecord> {
    let tags = tags::read(snapshot.tags());
    Ok(LayerRecord {
        key: tags.get(LAYER).cloned().unwrap_or_default(),
        made_by: tags.get(MADE_BY).cloned().unwrap_or_default(),
        created: begun(snapshot)?,
        size: u64::try_from(snapshot.volume_size().unwrap_or_default())? << 30,
    })
}

/// When a snapshot was begun.
pub(super) fn begun(snapshot: &Snapshot) -> Result<Timestamp> {
    let time = snapshot.start_time().context("DescribeSnapshots tells no time")?;
    Ok(Timestamp::from_second(time.secs())?)
}

/// Whether a request that failed may be made again.
#[derive(Debug, PartialEq, Eq)]
enum Repeat {
    /// It was refused unread.
    AtOnce,
    /// Nobody knows whether it was carried out.
    AfterALook,
    Never,
}

impl Repeat {
    /// Codes: "Error codes for the Amazon EC2 API".
    fn of<E: ProvideErrorMetadata, R>(error: &SdkError<E, R>) -> Self {
        match (error, code(error)) {
            (SdkError::ConstructionFailure(_), _) => Self::Never,
            _ if is_throttle(error) => Self::AtOnce,
            (_, Some("SnapshotCreationPerVolumeRateExceeded")) => Self::AtOnce,
            (_, Some("InternalError" | "InternalFailure" | "ServiceUnavailable" | "Unavailable")) => Self::AfterALook,
            (SdkError::ServiceError(_), _) => Self::Never,
            _ => Self::AfterALook,
        }
    }
}
