//! Images, volumes and layers: AMIs, EBS volumes and snapshots.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_ec2::types::{Image, Tag, VolumeState};
use cli::BadInput;
use cli::lock::Lock;
use jiff::{SignedDuration, Timestamp};
use manifest::{Identity, IdentityKind};

use super::failure::Explain;
use super::lease::{self, EXPIRES, HOLDER};
use super::publication::COPY;
use super::tags::{self, DIGEST, LAYER, SOURCE_IMAGE, filter};
use super::volumes::{self, ROOT_PARTITION};
use super::{Aws, ami, snapshots};
use crate::images::VOLUME_KEPT;
use crate::{
    Access, Attachment, ImageFilter, LayerRecord, LeftOver, RegisteredImage, Registration, SourceImage, StoredVerdict,
    VolumeRecord, VolumeSpec,
};

/// How the names of tags begin that let a name stand for an image.
const ALIAS: &str = "kiln:alias:";
/// What the last test found, as `passed|failed DIGEST TIME`.
const VERDICT: &str = "kiln:verdict";
/// How the digest of a content begins there. An image without one has its id in that place.
const SHA256: &str = "sha256:";

/// An image as the stages know it. An AMI's content never changes: of a published one the digest is known, and of any
/// other the id stands for it.
pub(super) fn record(image: &Image) -> Result<RegisteredImage> {
    let id = image.image_id().unwrap_or_default();
    let tags = tags::read(image.tags());
    let root = image.block_device_mappings().iter().find(|device| device.device_name() == image.root_device_name());
    let size = root.and_then(|root| root.ebs()?.volume_size()).unwrap_or_default();
    Ok(RegisteredImage {
        id: id.to_owned(),
        name: image.name().unwrap_or_default().to_owned(),
        digest: tags.get(DIGEST).map_or_else(|| Identity::new(IdentityKind::AwsImage, id), Identity::sha256),
        size: u64::try_from(size)? << 30,
        virtualization_type: image.virtualization_type().map_or("hvm", |kind| kind.as_str()).to_owned(),
        root_partition: tags.get(ROOT_PARTITION).and_then(|number| number.parse().ok()),
        created: image.creation_date().unwrap_or_default().parse().with_context(|| format!("when {id} was made"))?,
        source_image: tags.get(SOURCE_IMAGE).map(|id| Identity::new(IdentityKind::AwsImage, id)),
        copies: tags.iter().filter_map(|(name, id)| Some((name.strip_prefix(COPY)?.to_owned(), id.clone()))).collect(),
        verdict: tags.get(VERDICT).and_then(|text| read_verdict(text)),
        tags,
    })
}

/// A region as manifests have it.
pub(super) fn place(region: &str) -> String {
    format!("aws {region}")
}

fn read_verdict(text: &str) -> Option<StoredVerdict> {
    let [found, digest, ended] = text.split(' ').collect::<Vec<_>>()[..] else { return None };
    Some(StoredVerdict {
        passed: found == "passed",
        digest: match digest.strip_prefix(SHA256) {
            Some(digest) => Identity::sha256(digest),
            None => Identity::new(IdentityKind::AwsImage, digest),
        },
        ended: ended.parse().ok()?,
    })
}

impl Aws {
    async fn describe_images(&self, filter: &ImageFilter) -> Result<Vec<RegisteredImage>> {
        let filters = filter.filters.iter().map(|(name, values)| tags::filter(name, values)).collect();
        let asking = self.ec2.describe_images().set_owners(Some(filter.owners.clone())).set_filters(Some(filters));
        let found = asking.into_paginator().items().send().collect::<Result<Vec<_>, _>>().await;
        let found = found.doing("ec2:DescribeImages", || "looking for images".to_owned())?;
        let mut found = found.iter().map(record).collect::<Result<Vec<_>>>()?;
        found.sort_by_key(|image| image.created);
        Ok(found)
    }

    /// The account's own images with this tag, or name, oldest first.
    async fn own_images(&self, name: &str, value: &str) -> Result<Vec<RegisteredImage>> {
        let filters = [(name.to_owned(), vec![value.to_owned()])].into();
        self.describe_images(&ImageFilter { filters, owners: vec!["self".to_owned()] }).await
    }

    /// Ids of the instances that run the image `id`.
    pub(super) async fn instances_of(&self, id: &str) -> Result<Vec<String>> {
        let running = filter("instance-state-name", ["pending", "running", "stopping", "stopped", "shutting-down"]);
        let asked = self.ec2.describe_instances().filters(filter("image-id", [id])).filters(running).send().await;
        let asked = asked.doing("ec2:DescribeInstances", || format!("looking for instances of {id}"))?;
        let instances = asked.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances);
        Ok(instances.filter_map(|instance| instance.instance_id().map(str::to_owned)).collect())
    }

    pub(super) async fn tag(&self, id: &str, name: &str, value: &str) -> Result<()> {
        let tag = Tag::builder().key(name).value(value).build();
        let asked = self.ec2.create_tags().resources(id).tags(tag).send().await;
        asked.doing("ec2:CreateTags", || format!("tagging {id} with {name}")).map(drop)
    }
}

impl crate::Images for Aws {
    const IMAGE: IdentityKind = IdentityKind::AwsImage;
    const VOLUME: IdentityKind = IdentityKind::AwsVolume;
    const QUICK: bool = false;
    const HAS_MEDIA: bool = true;

    fn region(&self) -> &str {
        &self.region
    }

    fn place(&self) -> String {
        place(&self.region)
    }

    async fn on_behalf_of(&self, access: &Access) -> Result<Self> {
        if access.is_none() { Ok(self.clone()) } else { Self::of(access, self.machine.clone()).await }
    }

    async fn find_source(&self, source: &SourceImage) -> Result<Option<RegisteredImage>> {
        let name = &source.name;
        if name.starts_with("ami-") {
            return self.image(name).await;
        }
        let mut found = self.own_images("name", name).await?;
        found.extend(self.own_images("tag-key", &format!("{ALIAS}{name}")).await?);
        Ok(found.pop())
    }

    async fn find_images(&self, filter: &ImageFilter) -> Result<Vec<RegisteredImage>> {
        ensure!(
            !filter.owners.is_empty(),
            "on AWS anybody's image can have a name: say in 'owners' whose are meant, such as \"self\" or an account's number"
        );
        self.describe_images(filter).await
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord> {
        self.make_volume(spec).await
    }

    async fn attach(&self, volume: &VolumeRecord, name: Option<&str>) -> Result<Attachment> {
        ensure!(volume.complete.is_none(), "volume {} is complete: images and layers rest on its content", volume.id);
        self.attach_volume(&volume.id, name).await
    }

    async fn detach(&self, attachment: Attachment) -> Result<()> {
        // What is still in the device's own cache belongs to the disk.
        let written = std::fs::File::open(&attachment.device).and_then(|device| device.sync_all());
        written.with_context(|| format!("writing out {}", attachment.device.display()))?;
        self.detach_volume(&attachment.volume).await
    }

    async fn cut_layer(&self, volume: &VolumeRecord, key: &str, made_by: &str) -> Result<()> {
        let mut tags = volume.tags.clone();
        tags.extend(volume.source_image.as_ref().map(|source| (SOURCE_IMAGE.to_owned(), source.value.clone())));
        self.begin_layer(&volume.id, key, made_by, &tags).await
    }

    async fn has_layer(&self, key: &str, max_age: Duration) -> Result<bool> {
        let newest = self.layer_snapshots(Some(key)).await?.pop();
        let oldest = Timestamp::now() - SignedDuration::try_from(max_age)?;
        Ok(newest.as_ref().map(snapshots::begun).transpose()?.is_some_and(|begun| begun >= oldest))
    }

    async fn layers(&self) -> Result<Vec<LayerRecord>> {
        self.layer_snapshots(None).await?.iter().map(snapshots::layer).collect()
    }

    async fn delete_layer(&self, key: &str) -> Result<()> {
        for snapshot in self.layer_snapshots(Some(key)).await? {
            self.delete_snapshot(snapshot.snapshot_id().unwrap_or_default()).await?;
        }
        Ok(())
    }

    async fn complete_volume(&self, volume: &VolumeRecord, key: &str) -> Result<VolumeRecord> {
        let tags = [(LAYER.to_owned(), key.to_owned()), (EXPIRES.to_owned(), lease::ending(VOLUME_KEPT))].into();
        let asked = self.ec2.create_tags().resources(&volume.id).set_tags(Some(tags::list(&tags))).send().await;
        asked.doing("ec2:CreateTags", || format!("completing the volume {}", volume.id))?;
        Ok(VolumeRecord { complete: Some(key.to_owned()), ..volume.clone() })
    }

    async fn volume(&self, id: &str) -> Result<Option<VolumeRecord>> {
        let volume = self.described(id).await?.as_ref().map(volumes::record).transpose()?;
        Ok(volume.filter(|volume| volume.complete.is_some()))
    }

    async fn find_volume(&self, key: &str, max_age: Duration) -> Result<Option<VolumeRecord>> {
        let oldest = Timestamp::now() - SignedDuration::try_from(max_age)?;
        let mut found = self.volumes_with(LAYER, Some(key)).await?;
        found.retain(|volume| volume.state() == Some(&VolumeState::Available));
        let records = found.iter().map(volumes::record).collect::<Result<Vec<_>>>()?;
        Ok(records.into_iter().find(|volume| volume.created >= oldest))
    }

    /// Among the builds of this machine: another one may make the same layer, which costs its time and nothing else.
    async fn lock_layer(&self, key: &str) -> Result<Lock> {
        crate::Images::lock_layer(&self.machine, key).await
    }

    fn scratch(&self) -> Result<PathBuf> {
        self.machine.scratch()
    }

    fn cache(&self) -> PathBuf {
        self.machine.cache()
    }

    async fn left_over(&self) -> Result<Vec<LeftOver>> {
        self.expired().await
    }

    async fn delete_left_over(&self, left_over: &LeftOver) -> Result<()> {
        self.delete_expired(left_over).await
    }

    async fn leave_volume(&self, volume: &VolumeRecord) -> Result<String> {
        let asked = self.ec2.delete_tags().resources(&volume.id).tags(Tag::builder().key(HOLDER).build()).send().await;
        asked.doing("ec2:DeleteTags", || format!("keeping the volume {} from the next build", volume.id))?;
        let expires = volume.tags.get(EXPIRES).map_or("some time", String::as_str);
        Ok(format!("the volume {} stays in {}, and `imager gc` deletes it after {expires}", volume.id, self.region))
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        self.remove_volume(id).await
    }

    async fn register(&self, volume: &VolumeRecord, registration: &Registration) -> Result<RegisteredImage> {
        self.register_volume(volume, registration).await
    }

    async fn image(&self, id: &str) -> Result<Option<RegisteredImage>> {
        ami::image(&self.ec2, id).await?.as_ref().map(record).transpose()
    }

    async fn list(&self) -> Result<Vec<RegisteredImage>> {
        self.describe_images(&ImageFilter { filters: BTreeMap::new(), owners: vec!["self".to_owned()] }).await
    }

    async fn alias(&self, alias: &str, id: &str) -> Result<()> {
        let name = format!("{ALIAS}{alias}");
        let before = self.own_images("tag-key", &name).await?;
        self.tag(id, &name, "").await?;
        for other in before.iter().filter(|image| image.id != id) {
            let asked =
                self.ec2.delete_tags().resources(&other.id).tags(Tag::builder().key(&name).build()).send().await;
            asked.doing("ec2:DeleteTags", || format!("taking the alias {alias} from {}", other.id))?;
        }
        Ok(())
    }

    async fn aliases(&self) -> Result<BTreeMap<String, String>> {
        let images = self.list().await?;
        let aliases = images.into_iter().flat_map(|image| {
            let names = image.tags.into_keys().filter_map(|name| Some(name.strip_prefix(ALIAS)?.to_owned()));
            names.map(|alias| (alias, image.id.clone())).collect::<Vec<_>>()
        });
        Ok(aliases.collect())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.remove_image(id).await
    }

    async fn digest(&self, id: &str) -> Result<Identity> {
        let image = crate::Images::image(self, id).await?;
        Ok(image.with_context(|| format!("image {id} is no longer there"))?.digest)
    }

    async fn record_verdict(&self, id: &str, verdict: &StoredVerdict) -> Result<()> {
        let found = if verdict.passed { "passed" } else { "failed" };
        self.tag(id, VERDICT, &format!("{found} {} {:.0}", verdict.digest, verdict.ended)).await
    }

    async fn attach_document(&self, id: &str, name: &str, _: &[u8]) -> Result<()> {
        let why = format!("EC2 has no place for documents such as {name}");
        Err(BadInput::new(format!("putting a document beside {id}"), why, "keep it in a file of your own").into())
    }

    async fn document(&self, _: &str, _: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    async fn roots_out_of_reach(&self) -> Result<Option<String>> {
        Ok(self.here().await.err().map(|why| format!("{why:#}")))
    }

    async fn with_roots<T: Send, const N: usize>(
        &self,
        ids: [&str; N],
        look: impl FnOnce([&Path; N]) -> Result<T> + Send,
    ) -> Result<T> {
        self.look_into(ids, look).await
    }
}
