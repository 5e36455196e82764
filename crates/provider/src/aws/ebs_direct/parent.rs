//! The snapshot that an upload has least to add to.

use anyhow::Result;
use aws_sdk_ec2::types::{Snapshot, SnapshotState};

use super::blocks::{Below, Content};
use super::snapshot::Encryption;
use super::{Source, blocks_of};
use crate::aws::Aws;
use crate::aws::tags::{self, DIGEST};
use crate::local::Local;
use crate::{Images, RegisteredImage};

/// A snapshot, and what it holds.
pub(super) struct Parent {
    pub id: String,
    pub content: Content,
    /// How many blocks its volume has.
    pub blocks: usize,
}

impl Aws {
    /// The parent that leaves the fewest blocks to write; `None` if it is as many without one.
    ///
    /// It is one whose content an image of this machine has: to compare two lists of digests is exact and costs
    /// nothing, where ListChangedBlocks tells of snapshots only and a block token is no digest.
    pub(super) async fn parent(
        &self,
        source: &Source<'_>,
        from: &Local,
        encryption: &Encryption,
    ) -> Result<Option<Parent>> {
        let published = self.snapshots_with([tags::filter("tag-key", [DIGEST])]).await?;
        let images = from.list().await?;
        let alone = Below { parent: None, encrypted: encryption.encrypted };
        let mut best = (source.content.unlike(&alone, source.blocks()).len(), None);
        for snapshot in published.iter().filter(|snapshot| can_be_parent(snapshot, source, encryption)) {
            let Some(image) = images.iter().find(|image| holds(snapshot, image)) else { continue };
            // An image that has been damaged is no reason not to publish another.
            let Ok(digests) = from.image_digests(image) else { continue };
            let parent = Parent {
                id: snapshot.snapshot_id().unwrap_or_default().to_owned(),
                content: Content::of(&from.image_disk(&image.id), &digests)?,
                blocks: blocks_of(volume_gib(snapshot)),
            };
            let below = Below { parent: Some((&parent.content, parent.blocks)), encrypted: encryption.encrypted };
            let unlike = source.content.unlike(&below, source.blocks()).len();
            if unlike < best.0 {
                best = (unlike, Some(parent));
            }
        }
        Ok(best.1)
    }
}

/// Whether the snapshot is complete, no larger, and encrypted as the new one is to be: a parent decides over that.
fn can_be_parent(snapshot: &Snapshot, source: &Source, encryption: &Encryption) -> bool {
    snapshot.state() == Some(&SnapshotState::Completed)
        && volume_gib(snapshot) <= source.gib
        && encryption.is_that_of(snapshot)
}

/// Whether the snapshot holds the disk of this image.
pub(super) fn holds(snapshot: &Snapshot, image: &RegisteredImage) -> bool {
    tags::read(snapshot.tags()).get(DIGEST) == Some(&image.digest.value)
}

fn volume_gib(snapshot: &Snapshot) -> u64 {
    snapshot.volume_size().and_then(|gib| u64::try_from(gib).ok()).unwrap_or_default()
}
