//! From a complete volume to an image: snapshot, register, publish, and give up the lease.

use anyhow::{Context, Result, anyhow, bail};
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, EbsBlockDevice, Image, ImdsSupportValues, Snapshot, Tag,
    VolumeType,
};
use cli::BadInput;
use manifest::{BlockDevice, Publication};

use super::ami::{self, Ami};
use super::failure::Explain;
use super::lease::{self, EXPIRES};
use super::publication::snapshot_tags;
use super::tags::{LAYER, SOURCE_IMAGE, filter};
use super::volumes::ROOT_PARTITION;
use super::{Aws, wait};
use crate::{RegisteredImage, Registration, VolumeRecord};

/// The name of the image that a snapshot was made for.
const IMAGE_NAME: &str = "kiln:image-name";

impl Aws {
    /// The sequence. Each step finds what an earlier run has done of it.
    pub(super) async fn register_volume(
        &self,
        volume: &VolumeRecord,
        registration: &Registration,
    ) -> Result<RegisteredImage> {
        let key = volume.complete.as_ref();
        let key = key.with_context(|| format!("volume {} is not complete: provision it first", volume.id))?;
        check_type(&volume.virtualization_type, &registration.publication)?;
        let mut registration = registration.clone();
        registration.tags.insert(LAYER.to_owned(), key.clone());
        registration.tags.extend(volume.source_image.as_ref().map(|id| (SOURCE_IMAGE.to_owned(), id.value.clone())));
        registration.tags.extend(volume.root_partition.map(|number| (ROOT_PARTITION.to_owned(), number.to_string())));
        let (id, snapshots) = match self.known(volume, &registration).await? {
            Known::Done(image) => (image.image_id().unwrap_or_default().to_owned(), ami::snapshots(&image)),
            Known::Taken(image) if !registration.replace => bail!(
                "the image name '{}' is taken by {id}: choose another name, set \"force_deregister\": true in the builder, or \
                 run `imager remove {id}`",
                registration.name,
                id = image.image_id().unwrap_or_default()
            ),
            Known::Taken(image) => self.make_image(volume, &registration, Some(&image)).await?,
            Known::Nothing => self.make_image(volume, &registration, None).await?,
        };
        self.publish_image(&id, &registration).await?;
        self.end_lease(&[std::slice::from_ref(&id), &snapshots].concat()).await?;
        wait::until(&format!("the image {id} to be known"), wait::KNOWN_EVERYWHERE, async || {
            ami::image(&self.ec2, &id).await?.as_ref().map(super::images::record).transpose()
        })
        .await
    }

    async fn known(&self, volume: &VolumeRecord, registration: &Registration) -> Result<Known> {
        let Some(image) = ami::named(&self.ec2, &registration.name).await? else { return Ok(Known::Nothing) };
        let marked = filter(format!("tag:{IMAGE_NAME}"), [&registration.name]);
        let ours = self.snapshots_with([filter("volume-id", [&volume.id]), marked]).await?;
        let of_image = ami::snapshots(&image);
        let is_of = |snapshot: &Snapshot| of_image.iter().any(|id| Some(id.as_str()) == snapshot.snapshot_id());
        Ok(if ours.iter().any(is_of) { Known::Done(image) } else { Known::Taken(image) })
    }

    /// Returns the ids of the image and of its snapshots of ours.
    async fn make_image(
        &self,
        volume: &VolumeRecord,
        registration: &Registration,
        replaced: Option<&Image>,
    ) -> Result<(String, Vec<String>)> {
        let lease = (EXPIRES.to_owned(), lease::ending(lease::AT_WORK));
        let mut tags = snapshot_tags(registration);
        tags.insert(IMAGE_NAME.to_owned(), registration.name.clone());
        tags.extend([lease.clone()]);
        // A layer's snapshot is another thing.
        tags.remove(LAYER);
        let snapshot = self.begin_snapshot(&volume.id, IMAGE_NAME, &tags).await?;
        let snapshot = self.completed(&snapshot).await?;
        let mut ami = self.ami(volume, registration, &snapshot).await?;
        ami.tags.extend([lease]);
        let id = self.register_over(replaced, &ami, registration).await?;
        Ok((id, vec![snapshot.snapshot_id().unwrap_or_default().to_owned()]))
    }

    /// Registers the image. Snapshots of the one whose name it takes over are deleted, if that is asked for.
    pub(super) async fn register_over(
        &self,
        replaced: Option<&Image>,
        ami: &Ami,
        registration: &Registration,
    ) -> Result<String> {
        let going = match replaced.filter(|_| registration.publication.delete_replaced_snapshots) {
            Some(replaced) => self.going_with(replaced).await?,
            None => Vec::new(),
        };
        // Should this run end before it has deleted them, `imager gc` does.
        self.lease_out(&going).await?;
        let id = ami::register(&self.ec2, ami, registration.replace).await?;
        for snapshot in &going {
            self.delete_snapshot(snapshot).await?;
        }
        Ok(id)
    }

    /// What the image is registered as: as its source is, with what the template says otherwise.
    async fn ami(&self, volume: &VolumeRecord, registration: &Registration, snapshot: &Snapshot) -> Result<Ami> {
        let publication = &registration.publication;
        let kind = self.described(&volume.id).await?.and_then(|volume| volume.volume_type);
        let id = snapshot.snapshot_id().unwrap_or_default();
        let size = snapshot.volume_size().context("DescribeSnapshots tells no size")?;
        let source = match &volume.source_image {
            None => Ami::of_disk(&registration.name, id, size, architecture()?),
            Some(source) => {
                let image = ami::image(&self.ec2, &source.value).await?;
                let gone = || anyhow!("its source image {source} is gone, whose devices and boot mode it would have");
                Ami::like(&image.ok_or_else(gone)?)?
            }
        };
        let mut ami = with(source, publication)?;
        ami.name.clone_from(&registration.name);
        ami.tags.clone_from(&registration.tags);
        ami.virtualization_type.clone_from(&volume.virtualization_type);
        // The volume is what its medium was to be.
        Ok(rooted(ami, id, size, kind))
    }

    /// Has `imager gc` delete these snapshots from now on.
    pub(super) async fn lease_out(&self, snapshots: &[String]) -> Result<()> {
        if snapshots.is_empty() {
            return Ok(());
        }
        let over = Tag::builder().key(EXPIRES).value(lease::ending(jiff::SignedDuration::ZERO)).build();
        let asked = self.ec2.create_tags().set_resources(Some(snapshots.to_vec())).tags(over).send().await;
        asked.doing("ec2:CreateTags", || format!("tagging {}", snapshots.join(", "))).map(drop)
    }

    /// What is complete is kept.
    pub(super) async fn end_lease(&self, ids: &[String]) -> Result<()> {
        let asked = self.ec2.delete_tags().set_resources(Some(ids.to_vec()));
        let asked = asked.tags(Tag::builder().key(EXPIRES).build()).send().await;
        asked.doing("ec2:DeleteTags", || format!("ending the lease of {}", ids.join(", "))).map(drop)
    }
}

/// Refuses what the template says and an image of this type cannot have (EC2 API reference, RegisterImage).
pub(super) fn check_type(virtualization_type: &str, publication: &Publication) -> Result<(), BadInput> {
    let hvm = [
        ("ena_support", publication.ena == Some(true)),
        ("sriov_support", publication.sriov == Some(true)),
        ("boot_mode", publication.boot_mode.is_some()),
        ("tpm_support", publication.tpm.is_some()),
        ("uefi_data", publication.uefi_data.is_some()),
    ];
    let said: Vec<_> = hvm.into_iter().filter_map(|(name, said)| said.then_some(name)).collect();
    if virtualization_type == "hvm" || said.is_empty() {
        return Ok(());
    }
    let why = format!("the template says {}, and only hvm images have that", said.join(", "));
    Err(BadInput::new(format!("registering a {virtualization_type} image"), why, "remove it from the builder"))
}

/// What there is of an image's name.
enum Known {
    Nothing,
    /// An image of this volume.
    Done(Image),
    /// Another image.
    Taken(Image),
}

/// The same with this snapshot as its root, on a volume of at least this size.
pub(super) fn rooted(mut ami: Ami, snapshot: &str, gib: i32, kind: Option<VolumeType>) -> Ami {
    let root = ami.root_device.clone();
    let at = ami.devices.iter().position(|device| device.device_name() == Some(&root));
    let ebs = at.and_then(|at| ami.devices.remove(at).ebs);
    let mut ebs = ebs.unwrap_or_else(|| EbsBlockDevice::builder().build());
    ebs.snapshot_id = Some(snapshot.to_owned());
    ebs.volume_size = ebs.volume_size.max(Some(gib));
    ebs.volume_type = kind.or(ebs.volume_type);
    (ebs.encrypted, ebs.kms_key_id) = (None, None);
    ebs.delete_on_termination.get_or_insert(true);
    ami.devices.insert(0, BlockDeviceMapping::builder().device_name(root).ebs(ebs).build());
    ami
}

/// The same with what a template says otherwise.
pub(super) fn with(mut ami: Ami, publication: &Publication) -> Result<Ami> {
    ami.description.clone_from(&publication.description);
    ami.ena = publication.ena.unwrap_or(ami.ena);
    ami.sriov = publication.sriov.unwrap_or(ami.sriov);
    ami.imds = (!publication.metadata_without_token).then_some(ImdsSupportValues::V20);
    ami.boot_mode = publication.boot_mode.as_deref().map(BootModeValues::from).or(ami.boot_mode);
    ami.uefi_data.clone_from(&publication.uefi_data);
    ami.tpm = publication.tpm.as_deref().map(Into::into).or(ami.tpm);
    if !publication.devices.is_empty() {
        ami.devices = publication.devices.iter().map(mapping).collect::<Result<_>>()?;
    }
    if let Some(root) = &publication.root_device {
        ami.root_device.clone_from(root);
    }
    Ok(ami)
}

/// A device of the template's as RegisterImage has it.
fn mapping(device: &BlockDevice) -> Result<BlockDeviceMapping> {
    let number = |number: Option<u32>| number.map(i32::try_from).transpose().context("a device's number is too large");
    let mapping = BlockDeviceMapping::builder().device_name(&device.name);
    if device.absent {
        return Ok(mapping.no_device("").build());
    }
    if let Some(name) = &device.virtual_name {
        return Ok(mapping.virtual_name(name).build());
    }
    let ebs = EbsBlockDevice::builder()
        .set_snapshot_id(device.snapshot.clone())
        .set_volume_size(number(device.size)?)
        .set_volume_type(device.kind.as_deref().map(Into::into))
        .set_iops(number(device.iops)?)
        .set_throughput(number(device.throughput)?)
        .set_encrypted(device.encrypted)
        .set_kms_key_id(device.key.clone())
        .delete_on_termination(device.delete_on_termination);
    Ok(mapping.ebs(ebs.build()).build())
}

/// That of this machine: what was provisioned in a chroot runs on it.
pub(super) fn architecture() -> Result<ArchitectureValues> {
    match std::env::consts::ARCH {
        "x86_64" => Ok(ArchitectureValues::X8664),
        "aarch64" => Ok(ArchitectureValues::Arm64),
        other => bail!("EC2 has no images for {other}"),
    }
}
