//! EBS volumes: from an image or a layer to a block device of this machine, and back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_ec2::types::{ResourceType, Volume, VolumeAttachmentState, VolumeState};
use cli::lock::Lock;
use cli::narrate;
use jiff::Timestamp;
use manifest::{Identity, IdentityKind};
use uuid::Uuid;

use super::ami::{self, Ami};
use super::failure::{Explain, code, is_not_found};
use super::holder::Holder;
use super::lease::{self, EXPIRES, HOLDER};
use super::tags::{self, LAYER, SOURCE_IMAGE, filter};
use super::{Aws, devices, wait};
use crate::{Attachment, VolumeRecord, VolumeSpec};

/// `hvm` or `paravirtual`.
const VIRTUALIZATION_TYPE: &str = "kiln:virtualization-type";
/// The partition that has the root, where it is not the one that the type implies.
pub(super) const ROOT_PARTITION: &str = "kiln:root-partition";

/// How long a new volume may be on its way. EC2 takes seconds.
const CREATED: Duration = Duration::from_secs(300);
/// How long attaching and detaching may take. EC2 takes seconds, a busy device longer.
const ATTACHED: Duration = Duration::from_secs(300);
/// How long the kernel may take to have the device of a volume that is attached.
const APPEARED: Duration = Duration::from_secs(60);

impl Aws {
    pub(super) async fn make_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord> {
        let zone = &self.here().await?.zone;
        self.delete_abandoned_volumes().await?;
        let (snapshot, from) = self.bottom(spec).await?;
        let size = size(spec.size, from.size).context("making the root volume")?;
        let mut tags = spec.tags.clone();
        tags.insert(EXPIRES.to_owned(), lease::ending(lease::AT_WORK));
        tags.insert(HOLDER.to_owned(), serde_json::to_string(&Holder::this())?);
        tags.insert(VIRTUALIZATION_TYPE.to_owned(), spec.virtualization_type.clone());
        tags.extend(spec.root_partition.map(|number| (ROOT_PARTITION.to_owned(), number.to_string())));
        tags.extend(spec.source.as_ref().map(|source| (SOURCE_IMAGE.to_owned(), source.id.clone())));
        // One that this process has not asked for before: volumes are never another run's.
        let token = Uuid::new_v4().to_string();
        let kind = spec.medium.kind.as_deref().or(from.kind.as_deref());
        let made = self
            .ec2
            .create_volume()
            .availability_zone(zone)
            .set_snapshot_id(snapshot)
            .size(size)
            .set_volume_type(kind.map(Into::into))
            .set_encrypted(spec.medium.encrypted.then_some(true))
            .set_kms_key_id(spec.medium.key.clone())
            .tag_specifications(tags::specification(ResourceType::Volume, &tags))
            .client_token(token)
            .send()
            .await
            .doing("ec2:CreateVolume", || format!("making a volume of {size} GiB in {zone}"))?;
        let id = made.volume_id().context("CreateVolume has named no volume")?;
        let what = format!("the volume {id} to be created");
        let ready = wait::until(&what, CREATED, async || match self.described(id).await? {
            Some(volume) if volume.state() == Some(&VolumeState::Available) => Ok(Some(volume)),
            Some(volume) if volume.state() == Some(&VolumeState::Error) => {
                bail!("EC2 could not make the volume {id}: is its key there, and may it be used?")
            }
            _ => Ok(None),
        });
        match ready.await {
            Ok(volume) => record(&volume),
            Err(error) => {
                if let Err(left) = self.remove_volume(id).await {
                    narrate::note(&format!("{left:#}; `imager gc` does it later"));
                }
                Err(error)
            }
        }
    }

    /// Deletes the volumes on which processes of this machine worked that have ended: they would keep their device names.
    async fn delete_abandoned_volumes(&self) -> Result<()> {
        for volume in self.volumes_with(HOLDER, None).await? {
            if lease::is_over(&tags::read(volume.tags())) {
                let id = volume.volume_id().unwrap_or_default();
                match self.remove_volume(id).await {
                    Ok(()) => narrate::note(&format!("deleted the volume {id}, which a run left that has ended")),
                    Err(left) => narrate::note(&format!("{left:#}; `imager gc` does it later")),
                }
            }
        }
        Ok(())
    }

    /// What a volume is made from: a snapshot, with what its volume was like.
    async fn bottom(&self, spec: &VolumeSpec) -> Result<(Option<String>, Bottom)> {
        let Some(source) = &spec.source else { return Ok((None, Bottom::default())) };
        ensure!(
            source.virtualization_type == spec.virtualization_type,
            "cannot make a {} volume of {}, which is {}: start from an image of that type",
            spec.virtualization_type,
            source.id,
            source.virtualization_type
        );
        let image = ami::image(&self.ec2, &source.id).await?;
        let image = image.with_context(|| format!("image {} is no longer there", source.id))?;
        let ami = Ami::like(&image)?;
        let root = ami.root().with_context(|| format!("{} has no device {}", source.id, ami.root_device))?;
        let mut bottom =
            Bottom { size: root.volume_size(), kind: root.volume_type().map(|kind| kind.as_str().to_owned()) };
        if let Some(key) = &spec.layer {
            let layer = self.completed_layer(key).await?;
            bottom.size = bottom.size.max(layer.volume_size());
            return Ok((layer.snapshot_id().map(str::to_owned), bottom));
        }
        let snapshot =
            root.snapshot_id().with_context(|| format!("{} of {} has no snapshot", ami.root_device, source.id))?;
        Ok((Some(snapshot.to_owned()), bottom))
    }

    /// The volume with this id, in whatever state; `None` also while EC2 does not know it yet.
    pub(super) async fn described(&self, id: &str) -> Result<Option<Volume>> {
        match self.ec2.describe_volumes().volume_ids(id).send().await {
            Ok(asked) => {
                let there = |volume: &Volume| volume.state() != Some(&VolumeState::Deleted);
                Ok(asked.volumes.unwrap_or_default().pop().filter(there))
            }
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error).doing("ec2:DescribeVolumes", || format!("looking at the volume {id}")),
        }
    }

    /// All volumes that have this tag with this value, or with any.
    pub(super) async fn volumes_with(&self, tag: &str, value: Option<&str>) -> Result<Vec<Volume>> {
        let tagged = match value {
            Some(value) => filter(format!("tag:{tag}"), [value]),
            None => filter("tag-key", [tag]),
        };
        let pages = self.ec2.describe_volumes().filters(tagged).into_paginator().items().send();
        let volumes = pages.collect::<Result<Vec<_>, _>>().await;
        volumes.doing("ec2:DescribeVolumes", || format!("looking for volumes with the tag {tag}"))
    }

    pub(super) async fn attach_volume(&self, volume: &str, wanted: Option<&str>) -> Result<Attachment> {
        let instance = &self.here().await?.instance;
        let names: Vec<_> = wanted.map_or_else(|| devices::names().collect(), |name| vec![name.to_owned()]);
        for name in &names {
            let what = format!("the device {name} of {instance}");
            // It covers choice and attachment: whoever comes next sees the volume in DescribeInstances.
            let place = self.machine.state_dir().join("locks").join(name.replace('/', "_"));
            let Some(_lock) = Lock::take_if_free(&place, &what)? else { continue };
            if self.names_in_use(instance).await?.contains(name) || devices::exists(Path::new("/"), name) {
                continue;
            }
            let attached = self.ec2.attach_volume().volume_id(volume).instance_id(instance).device(name).send().await;
            match attached {
                Ok(_) => {}
                // An answer was lost: the volume is this process's own, so nobody else has attached it.
                Err(error) if code(&error) == Some("VolumeInUse") => {}
                Err(error) if is_taken(code(&error), error.as_service_error().map(ToString::to_string)) => continue,
                Err(error) => return Err(error).doing("ec2:AttachVolume", || format!("attaching {volume} as {name}")),
            }
            self.until_attached(volume, instance).await?;
            let what = format!("the block device of {volume} ({name})");
            let find = async || Ok(devices::find(Path::new("/"), volume, name));
            let device = wait::until(&what, APPEARED, find).await?;
            return Ok(Attachment { device, volume: volume.to_owned(), _guard: None });
        }
        bail!(
            "attaching {volume}: {} of {instance} {} in use: detach what is not needed, or name a free device_path",
            names.join(", "),
            if names.len() == 1 { "is" } else { "are" }
        )
    }

    async fn names_in_use(&self, instance: &str) -> Result<Vec<String>> {
        let asked = self.ec2.describe_instances().instance_ids(instance).send().await;
        let asked = asked.doing("ec2:DescribeInstances", || format!("looking at the devices of {instance}"))?;
        let instances = asked.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances);
        let devices = instances.flat_map(aws_sdk_ec2::types::Instance::block_device_mappings);
        Ok(devices.filter_map(|device| device.device_name().map(str::to_owned)).collect())
    }

    async fn until_attached(&self, volume: &str, instance: &str) -> Result<()> {
        wait::until(&format!("{volume} to be attached to {instance}"), ATTACHED, async || {
            let described = self.described(volume).await?;
            let attachments = described.iter().flat_map(Volume::attachments);
            let mut here = attachments.filter(|attachment| attachment.instance_id() == Some(instance));
            let attached = here.any(|attachment| attachment.state() == Some(&VolumeAttachmentState::Attached));
            Ok(attached.then_some(()))
        })
        .await
    }

    /// Detaches a volume from wherever it is attached, and waits for it.
    pub(super) async fn detach_volume(&self, volume: &str) -> Result<()> {
        match self.ec2.detach_volume().volume_id(volume).send().await {
            // It is not attached, or no longer: the answer to the first request was lost.
            Err(error) if is_not_found(&error) || code(&error) == Some("IncorrectState") => {}
            done => drop(done.doing("ec2:DetachVolume", || format!("detaching {volume}"))?),
        }
        wait::until_in_any_case(&format!("{volume} to be detached"), ATTACHED, async || {
            let volume = self.described(volume).await?;
            Ok(volume.is_none_or(|volume| volume.state() == Some(&VolumeState::Available)).then_some(()))
        })
        .await
    }

    /// Deletes a volume, which may be attached; one that is gone is as it should be.
    pub(super) async fn remove_volume(&self, id: &str) -> Result<()> {
        let Some(volume) = self.described(id).await? else { return Ok(()) };
        if !volume.attachments().is_empty() {
            self.detach_volume(id).await?;
        }
        match self.ec2.delete_volume().volume_id(id).send().await {
            Err(error) if is_not_found(&error) => Ok(()),
            done => done.doing("ec2:DeleteVolume", || format!("deleting the volume {id}")).map(drop),
        }
    }
}

/// What the volume below a snapshot was like.
#[derive(Default)]
struct Bottom {
    /// In GiB.
    size: Option<i32>,
    kind: Option<String>,
}

/// A volume's size in GiB, which is the unit of EBS.
fn size(wanted: Option<u64>, source: Option<i32>) -> Result<i32> {
    let wanted = wanted.map(|bytes| i32::try_from(bytes.div_ceil(1 << 30))).transpose().context("that is too much")?;
    match (wanted, source) {
        (Some(wanted), Some(source)) if wanted < source => {
            bail!("it would lose content: it needs {source} GiB, not {wanted}; change root_volume_size")
        }
        (wanted, source) => wanted.or(source).context("nothing says how large it is to be: set root_volume_size"),
    }
}

/// Whether AttachVolume refuses the name. EC2 has two codes for that, one of which is for other things as well.
fn is_taken(code: Option<&str>, message: Option<String>) -> bool {
    match code {
        Some("InvalidDevice.InUse") => true,
        Some("InvalidParameterValue") => message.is_some_and(|message| message.contains("already in use")),
        _ => false,
    }
}

/// A volume as the stages know it.
pub(super) fn record(volume: &Volume) -> Result<VolumeRecord> {
    let id = volume.volume_id().unwrap_or_default();
    let tags = tags::read(volume.tags());
    let created = volume.create_time().context("DescribeVolumes tells no time")?.secs();
    Ok(VolumeRecord {
        id: id.to_owned(),
        virtualization_type: tags.get(VIRTUALIZATION_TYPE).map_or("hvm", String::as_str).to_owned(),
        root_partition: tags.get(ROOT_PARTITION).and_then(|number| number.parse().ok()),
        source_image: tags.get(SOURCE_IMAGE).map(|id| Identity::new(IdentityKind::AwsImage, id)),
        created: Timestamp::from_second(created)?,
        complete: tags.get(LAYER).cloned(),
        digest: None,
        tags,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_at_least_as_large_as_its_source() {
        assert_eq!(size(None, Some(8)).unwrap(), 8);
        assert_eq!(size(Some(10 << 30), Some(8)).unwrap(), 10);
        assert_eq!(size(Some((10 << 30) + 1), None).unwrap(), 11);
        assert!(size(Some(4 << 30), Some(8)).unwrap_err().to_string().contains("it would lose content"));
        assert!(size(None, None).is_err());
    }

    #[test]
    fn a_name_that_is_taken_is_not_any_wrong_parameter() {
        let taken = "Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is already in use";
        assert!(is_taken(Some("InvalidParameterValue"), Some(taken.to_owned())));
        assert!(is_taken(Some("InvalidDevice.InUse"), None));
        assert!(!is_taken(
            Some("InvalidParameterValue"),
            Some("Value (x) for parameter device is invalid.".to_owned())
        ));
    }
}
