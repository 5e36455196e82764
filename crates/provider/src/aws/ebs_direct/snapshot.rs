//! A snapshot from start to completion.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_sdk_ebs::types::{ChecksumAggregationMethod, ChecksumAlgorithm, Tag};
use aws_sdk_ec2::types::{Snapshot, SnapshotState};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cli::{BadInput, interrupt, narrate};
use manifest::Medium;
use sha2::{Digest, Sha256};

use super::Source;
use super::blocks::Below;
use super::journal::{Journal, Request};
use super::parent::{Parent, holds};
use super::put::Puts;
use crate::aws::Aws;
use crate::aws::failure::Explain;
use crate::aws::lease::{self, EXPIRES};
use crate::aws::publication::snapshot_tags;
use crate::aws::tags::{self, DIGEST, Tags};
use crate::local::Local;
use crate::{PublishSpec, RegisteredImage, Registration};

/// What is being uploaded over which parent, as a digest: a later run finds the snapshot by it.
const UPLOAD: &str = "kiln:upload";
/// How long an answer to CompleteSnapshot is believed to have been lost.
const LOST: Duration = Duration::from_secs(60);

/// How a snapshot is to be encrypted.
pub(super) struct Encryption {
    pub encrypted: bool,
    /// The key, if it is not to be whichever the account has.
    key: Option<String>,
    /// Whether StartSnapshot has to be told.
    asked: bool,
}

impl Encryption {
    /// Whether the snapshot is encrypted in this way.
    pub fn is_that_of(&self, snapshot: &Snapshot) -> bool {
        snapshot.encrypted().unwrap_or(false) == self.encrypted
            && (self.key.is_none() || self.key.as_deref() == snapshot.kms_key_id())
    }
}

/// A pending snapshot.
struct Begun {
    id: String,
    /// Whether it is encrypted, by AWS's own word.
    encrypted: bool,
}

impl Aws {
    /// How a snapshot is to be encrypted: as was asked, and otherwise as the account has it.
    pub(super) async fn encryption(&self, medium: &Medium) -> Result<Encryption> {
        let asked = medium.encrypted || medium.key.is_some();
        // A volume takes its key by other names, too (EBS API reference, StartSnapshot, `KmsKeyArn`).
        if let Some(key) = medium.key.as_ref().filter(|key| !(key.starts_with("arn:") && key.contains(":key/"))) {
            let why = format!("'{key}' is not the ARN of a key, and a snapshot that is uploaded takes nothing else");
            let remedy =
                "write kms_key_id as arn:aws:kms:REGION:ACCOUNT:key/ID and build again, or name it with --kms-key";
            return Err(BadInput::new("choosing the key that the image is encrypted with", why, remedy).into());
        }
        let encrypted = asked || {
            let account = self.ec2.get_ebs_encryption_by_default().send().await;
            let account = account.doing("ec2:GetEbsEncryptionByDefault", || "looking at the account".to_owned())?;
            account.ebs_encryption_by_default().unwrap_or(false)
        };
        Ok(Encryption { encrypted, key: medium.key.clone(), asked })
    }

    /// The snapshots that hold this image and are complete.
    pub(super) async fn complete_snapshots_of(
        &self,
        image: &RegisteredImage,
        encryption: &Encryption,
    ) -> Result<Vec<String>> {
        let found = self.snapshots_with([tags::filter(format!("tag:{DIGEST}"), [&image.digest.value])]).await?;
        let fits = |snapshot: &Snapshot| {
            snapshot.state() == Some(&SnapshotState::Completed)
                && holds(snapshot, image)
                && encryption.is_that_of(snapshot)
        };
        let found = found.into_iter().filter(fits);
        Ok(found.filter_map(|snapshot| snapshot.snapshot_id).collect())
    }

    /// Uploads the disk and returns the snapshot that holds it.
    pub(super) async fn upload(
        &self,
        source: &Source<'_>,
        from: &Local,
        spec: &PublishSpec,
        encryption: &Encryption,
        journal: &Journal,
    ) -> Result<String> {
        let parent = self.parent(source, from, encryption).await?;
        let key = self.key(source, parent.as_ref(), encryption);
        let begun = match self.pending(&key).await? {
            Some(begun) => self.prolong(begun).await?,
            None => {
                let request = journal.request(&key, upload_tags(source, &spec.registration, &key))?;
                self.start(source, parent.as_ref(), encryption, request).await?
            }
        };
        let below = Below {
            parent: parent.as_ref().map(|parent| (&parent.content, parent.blocks)),
            encrypted: begun.encrypted,
        };
        let blocks = source.content.unlike(&below, source.blocks());
        let over = parent.as_ref().map_or_else(String::new, |parent| format!(" over {}", parent.id));
        narrate::step(&format!("Uploading {} of {} blocks to {}{over}...", blocks.len(), source.blocks(), begun.id));
        let mut progress = journal.progress(&begun.id)?;
        let puts = Puts { ebs: &self.ebs, snapshot: &begun.id, source, since: Instant::now() };
        if let Err(error) = puts.all(&blocks, &mut progress).await {
            let until = lease::ending(lease::AT_WORK);
            let kept = format!("{} waits until {until} for a run that goes on from here", begun.id);
            return Err(if interrupt::requested() { error.context(kept) } else { error });
        }
        if !progress.is_complete {
            self.complete(source, &blocks, &begun.id).await?;
            progress.complete()?;
        }
        self.completed(&begun.id).await?;
        Ok(begun.id)
    }

    /// The upload's name: what goes over what. Two runs with the same one can work on one snapshot.
    fn key(&self, source: &Source, parent: Option<&Parent>, encryption: &Encryption) -> String {
        let parts = [
            self.region.as_str(),
            &source.image.digest.value,
            &source.gib.to_string(),
            parent.map_or("", |parent| &parent.id),
            if encryption.encrypted { "encrypted" } else { "" },
            encryption.key.as_deref().unwrap_or_default(),
        ];
        hex::encode(Sha256::digest(parts.join("\n")))
    }

    /// The snapshot that an earlier run has begun and not completed.
    async fn pending(&self, key: &str) -> Result<Option<Begun>> {
        let wanted = [tags::filter(format!("tag:{UPLOAD}"), [key]), tags::filter("status", ["pending"])];
        let found = self.snapshots_with(wanted).await?;
        Ok(found.first().and_then(|snapshot| {
            let encrypted = snapshot.encrypted().unwrap_or(false);
            Some(Begun { id: snapshot.snapshot_id()?.to_owned(), encrypted })
        }))
    }

    /// Renews the lease of a snapshot that is gone on with.
    async fn prolong(&self, begun: Begun) -> Result<Begun> {
        narrate::detail(&format!("going on with {}, which an earlier run has begun", begun.id));
        self.tag(&begun.id, EXPIRES, &lease::ending(lease::AT_WORK)).await?;
        Ok(begun)
    }

    async fn start(
        &self,
        source: &Source<'_>,
        parent: Option<&Parent>,
        encryption: &Encryption,
        request: Request,
    ) -> Result<Begun> {
        let tag = |(name, value): (String, String)| Tag::builder().key(name).value(value).build();
        let explicit = encryption.asked && parent.is_none();
        let started = self
            .ebs
            .start_snapshot()
            .volume_size(i64::try_from(source.gib)?)
            .set_parent_snapshot_id(parent.map(|parent| parent.id.clone()))
            .set_encrypted(explicit.then_some(true))
            .set_kms_key_arn(encryption.key.clone().filter(|_| explicit))
            .description(format!("{} ({})", source.image.name, source.image.id))
            .client_token(request.token)
            // In minutes, at most 3 days: AWS cancels what gets no block for that long.
            .timeout(i32::try_from(lease::AT_WORK.as_mins())?)
            .set_tags(Some(request.tags.into_iter().map(tag).collect()))
            .send()
            .await;
        let started = started.doing("ebs:StartSnapshot", || format!("beginning a snapshot of {}", source.image.id))?;
        let id = started.snapshot_id().context("beginning a snapshot (ebs:StartSnapshot): the answer has no id")?;
        Ok(Begun { id: id.to_owned(), encrypted: started.kms_key_arn().is_some() })
    }

    /// Says that all blocks are there. An answer that was lost shows by the snapshot's state.
    async fn complete(&self, source: &Source<'_>, blocks: &[usize], snapshot: &str) -> Result<()> {
        let completed = self
            .ebs
            .complete_snapshot()
            .snapshot_id(snapshot)
            .changed_blocks_count(i32::try_from(blocks.len())?)
            .checksum(BASE64_STANDARD.encode(source.content.linear(blocks)))
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .checksum_aggregation_method(ChecksumAggregationMethod::ChecksumAggregationLinear)
            .send()
            .await;
        match completed.doing("ebs:CompleteSnapshot", || format!("completing {snapshot}")) {
            Ok(_) => Ok(()),
            Err(error) => match tokio::time::timeout(LOST, self.completed(snapshot)).await {
                Ok(Ok(_)) => Ok(()),
                _ => Err(error),
            },
        }
    }
}

fn upload_tags(source: &Source, registration: &Registration, key: &str) -> Tags {
    let mut tags = snapshot_tags(registration);
    tags.insert(DIGEST.to_owned(), source.image.digest.value.clone());
    tags.insert(UPLOAD.to_owned(), key.to_owned());
    tags.insert(EXPIRES.to_owned(), lease::ending(lease::AT_WORK));
    tags
}
