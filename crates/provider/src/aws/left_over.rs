//! What dead runs have left: whatever has our tags and a lease that is over.

use anyhow::{Result, bail, ensure};
use aws_sdk_ec2::types::{Image, Snapshot, Volume};

use super::failure::Explain;
use super::lease::{self, EXPIRES};
use super::tags::{self, Tags, filter};
use super::{Aws, ami};
use crate::{InUse, LeftOver};

const IMAGE: &str = "image";
const VOLUME: &str = "volume";
const SNAPSHOT: &str = "snapshot";

impl Aws {
    /// Images come before the snapshots that they consist of.
    pub(super) async fn expired(&self) -> Result<Vec<LeftOver>> {
        let leased = filter("tag-key", [EXPIRES]);
        let images = self.ec2.describe_images().owners("self").filters(leased.clone()).into_paginator().items().send();
        let images = images.collect::<Result<Vec<_>, _>>().await;
        let images = images.doing("ec2:DescribeImages", || "looking for images whose lease is over".to_owned())?;
        let images = images.iter().map(|image: &Image| (IMAGE, image.image_id(), tags::read(image.tags())));
        let volumes = self.volumes_with(EXPIRES, None).await?;
        let volumes = volumes.iter().map(|volume: &Volume| (VOLUME, volume.volume_id(), tags::read(volume.tags())));
        let snapshots = self.snapshots_with([leased]).await?;
        let snapshots =
            snapshots.iter().map(|snapshot: &Snapshot| (SNAPSHOT, snapshot.snapshot_id(), tags::read(snapshot.tags())));
        let all = images.chain(volumes).chain(snapshots);
        let over = all.filter(|(_, _, tags)| lease::is_over(tags));
        Ok(over.filter_map(|(kind, id, tags)| Some(LeftOver { kind, id: id?.to_owned(), from: from(&tags) })).collect())
    }

    pub(super) async fn delete_expired(&self, left_over: &LeftOver) -> Result<()> {
        let id = &left_over.id;
        match left_over.kind {
            IMAGE => ami::deregister(&self.ec2, id).await,
            VOLUME => self.remove_volume(id).await,
            SNAPSHOT => self.delete_snapshot(id).await,
            other => bail!("there is no {other} on AWS that could be deleted"),
        }
    }

    /// Deletes an image, its copies, and the snapshots that they consist of and that are ours.
    pub(super) async fn remove_image(&self, id: &str) -> Result<()> {
        let Some(image) = ami::image(&self.ec2, id).await? else { return Ok(()) };
        for (region, copy) in super::images::record(&image)?.copies {
            self.in_region(&region).remove_one(&copy).await?;
        }
        self.remove_one(id).await
    }

    async fn remove_one(&self, id: &str) -> Result<()> {
        let Some(image) = ami::image(&self.ec2, id).await? else { return Ok(()) };
        let users = self.instances_of(id).await?;
        ensure!(users.is_empty(), InUse { image: id.to_owned(), users });
        let ours = self.going_with(&image).await?;
        // Should this run end before they are deleted, `imager gc` does that.
        self.lease_out(&ours).await?;
        ami::deregister(&self.ec2, id).await?;
        for snapshot in ours {
            self.delete_snapshot(&snapshot).await?;
        }
        Ok(())
    }
}

/// What a thing's tags say of the run that made it.
fn from(tags: &Tags) -> String {
    let said = ["kiln:component", "kiln:version", "kiln:run", EXPIRES].into_iter();
    let said = said.filter_map(|name| Some(format!("{} {}", name.trim_start_matches("kiln:"), tags.get(name)?)));
    said.collect::<Vec<_>>().join(", ")
}
