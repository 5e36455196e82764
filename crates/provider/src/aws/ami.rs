//! Images by their registration: what RegisterImage is told, and what becomes of an image that has the name already.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, BootModeValues, DeviceType, EbsBlockDevice, Image, ImageState,
    ImdsSupportValues, ResourceType, TpmSupportValues, VolumeType,
};

use super::failure::{Explain, code, is_not_found};
use super::lease::{self, EXPIRES};
use super::tags::{self, Tags, filter};
use super::wait::{self, KNOWN_EVERYWHERE};

/// How long an image may be pending. It is of one snapshot that is complete, so this is a matter of seconds.
const AVAILABLE: Duration = Duration::from_secs(600);

/// What an image is registered as.
#[derive(Debug, Clone)]
pub(super) struct Ami {
    /// Unique among the account's images of the region.
    pub(super) name: String,
    pub(super) description: Option<String>,
    pub(super) architecture: ArchitectureValues,
    /// `hvm` or `paravirtual`.
    pub(super) virtualization_type: String,
    /// Kernel and ramdisk of a paravirtual image.
    pub(super) kernel: Option<String>,
    pub(super) ramdisk: Option<String>,
    /// What firmware starts it; `None` is what the instance type prefers.
    pub(super) boot_mode: Option<BootModeValues>,
    /// The non-volatile UEFI variable store, as GetInstanceUefiData has it.
    pub(super) uefi_data: Option<String>,
    pub(super) tpm: Option<TpmSupportValues>,
    /// `v2.0` has its instances refuse metadata requests without a token.
    pub(super) imds: Option<ImdsSupportValues>,
    /// Whether its drivers know the Elastic Network Adapter.
    pub(super) ena: bool,
    /// Whether its drivers know the Intel 82599 virtual function.
    pub(super) sriov: bool,
    /// The device that has the root, such as `/dev/xvda`.
    pub(super) root_device: String,
    pub(super) devices: Vec<BlockDeviceMapping>,
    pub(super) tags: Tags,
}

impl Ami {
    /// One of a partitioned disk that is in `snapshot` and has `gib` GiB: hvm, ENA, and metadata with a token only.
    pub(super) fn of_disk(name: &str, snapshot: &str, gib: i32, architecture: ArchitectureValues) -> Self {
        const ROOT: &str = "/dev/xvda";
        Self {
            name: name.to_owned(),
            description: None,
            architecture,
            virtualization_type: "hvm".to_owned(),
            kernel: None,
            ramdisk: None,
            boot_mode: None,
            uefi_data: None,
            tpm: None,
            imds: Some(ImdsSupportValues::V20),
            ena: true,
            sriov: false,
            root_device: ROOT.to_owned(),
            devices: vec![device(ROOT, snapshot, gib, VolumeType::Gp3)],
            tags: Tags::new(),
        }
    }

    /// The same as an image that there is, as far as DescribeImages tells: UEFI variables it does not.
    pub(super) fn like(image: &Image) -> Result<Self> {
        let id = image.image_id().unwrap_or_default();
        ensure!(
            image.root_device_type() == Some(&DeviceType::Ebs),
            "the root device of {id} is not on EBS: choose an image whose root-device-type is ebs"
        );
        let root_device = image.root_device_name().with_context(|| format!("{id} names no root device"))?;
        Ok(Self {
            name: image.name().unwrap_or_default().to_owned(),
            description: image.description().map(str::to_owned),
            architecture: image.architecture().cloned().with_context(|| format!("{id} has no architecture"))?,
            virtualization_type: image.virtualization_type().map_or("hvm", |kind| kind.as_str()).to_owned(),
            kernel: image.kernel_id().map(str::to_owned),
            ramdisk: image.ramdisk_id().map(str::to_owned),
            boot_mode: image.boot_mode().cloned(),
            uefi_data: None,
            tpm: image.tpm_support().cloned(),
            imds: image.imds_support().cloned(),
            ena: image.ena_support().unwrap_or(false),
            sriov: image.sriov_net_support() == Some("simple"),
            root_device: root_device.to_owned(),
            devices: image.block_device_mappings().iter().cloned().map(as_registered).collect(),
            tags: tags::read(image.tags()),
        })
    }

    /// The template's options that this image and `other` differ in, as far as DescribeImages tells of both.
    pub(super) fn unlike(&self, other: &Self) -> Vec<&'static str> {
        let devices = |ami: &Self| {
            let mut names: Vec<_> = ami.devices.iter().map(|device| device.device_name.clone()).collect();
            names.sort();
            names
        };
        let differs = [
            ("ami_description", self.description != other.description),
            ("boot_mode", self.boot_mode != other.boot_mode),
            ("ena_support", self.ena != other.ena),
            ("imds_support", self.imds != other.imds),
            ("root_device_name", self.root_device != other.root_device),
            ("ami_block_device_mappings", devices(self) != devices(other)),
        ];
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }

    /// The device that has the root.
    pub(super) fn root(&self) -> Option<&EbsBlockDevice> {
        self.devices.iter().find(|device| device.device_name() == Some(&self.root_device))?.ebs()
    }

    fn root_snapshot(&self) -> Option<&str> {
        self.root()?.snapshot_id()
    }

    /// One call, without what to do about refusals.
    async fn register_once(
        &self,
        ec2: &Client,
    ) -> Result<String, aws_sdk_ec2::error::SdkError<aws_sdk_ec2::operation::register_image::RegisterImageError>> {
        // What only hvm has, RegisterImage refuses for the other (its own documentation, EnaSupport and SriovNetSupport).
        let hvm = self.virtualization_type == "hvm";
        let registered = ec2
            .register_image()
            .name(&self.name)
            .set_description(self.description.clone())
            .architecture(self.architecture.clone())
            .virtualization_type(&self.virtualization_type)
            .set_kernel_id(self.kernel.clone().filter(|_| !hvm))
            .set_ramdisk_id(self.ramdisk.clone().filter(|_| !hvm))
            .set_boot_mode(self.boot_mode.clone().filter(|_| hvm))
            .set_uefi_data(self.uefi_data.clone())
            .set_tpm_support(self.tpm.clone())
            .set_imds_support(self.imds.clone())
            .set_ena_support((hvm && self.ena).then_some(true))
            .set_sriov_net_support((hvm && self.sriov).then(|| "simple".to_owned()))
            .root_device_name(&self.root_device)
            .set_block_device_mappings(Some(self.devices.clone()))
            .tag_specifications(tags::specification(ResourceType::Image, &self.tags))
            .send()
            .await?;
        Ok(registered.image_id().unwrap_or_default().to_owned())
    }
}

/// What an image is called while another one has its name.
fn interim_name(name: &str) -> String {
    // 128 characters are allowed.
    format!("{} (interim)", name.chars().take(100).collect::<String>())
}

/// A device of an image that is a snapshot's content and goes when its instance goes.
pub(super) fn device(name: &str, snapshot: &str, gib: i32, kind: VolumeType) -> BlockDeviceMapping {
    let ebs = EbsBlockDevice::builder().snapshot_id(snapshot).volume_size(gib).volume_type(kind);
    BlockDeviceMapping::builder().device_name(name).ebs(ebs.delete_on_termination(true).build()).build()
}

/// DescribeImages tells of a snapshot whether it is encrypted; RegisterImage refuses to be told.
fn as_registered(mut device: BlockDeviceMapping) -> BlockDeviceMapping {
    if let Some(ebs) = device.ebs.as_mut().filter(|ebs| ebs.snapshot_id.is_some()) {
        (ebs.encrypted, ebs.kms_key_id) = (None, None);
    }
    device
}

/// Registers an image whose snapshots are complete, waits until it is available, and returns its id.
///
/// An image of this name with the same root snapshot is this image: an earlier run made it, or an answer was lost.
/// Another one that has the name is given up if it `replaces` that.
pub(super) async fn register(ec2: &Client, ami: &Ami, replaces: bool) -> Result<String> {
    let id = match claim(ec2, ami).await? {
        Ok(id) => id,
        Err(old) if replaces => replace(ec2, old.image_id().unwrap_or_default(), ami).await?,
        Err(old) => bail!(
            "registering the image '{}': the name is taken by {}; choose another ami_name (it may hold {{{{timestamp}}}}), \
             or set force_deregister to true",
            ami.name,
            old.image_id().unwrap_or_default()
        ),
    };
    available(ec2, &id).await?;
    Ok(id)
}

/// Registers the image or finds that it is registered; or finds the other one that has the name.
async fn claim(ec2: &Client, ami: &Ami) -> Result<Result<String, Box<Image>>> {
    let what = || format!("registering the image '{}'", ami.name);
    let known = format!("the snapshot and the name of the image '{}' to be known", ami.name);
    wait::until(&known, KNOWN_EVERYWHERE, async || match ami.register_once(ec2).await {
        Ok(id) => Ok(Some(Ok(id))),
        Err(error) if code(&error) == Some("InvalidAMIName.Duplicate") => {
            // Of an image that has just come or gone not everybody knows.
            let taken = named(ec2, &ami.name).await?;
            Ok(taken.map(|it| match it.image_id() {
                Some(id) if is_of(&it, ami.root_snapshot()) => Ok(id.to_owned()),
                _ => Err(Box::new(it)),
            }))
        }
        Err(error) if is_not_found(&error) => Ok(None),
        Err(error) => Err(error).doing("ec2:RegisterImage", what),
    })
    .await
}

/// Gives up the image that has the name for the new one.
///
/// Names are unique and cannot be changed, so the new one is registered under another name before that. From then on it
/// is there, whatever becomes of this run; it has a lease, for it goes when the new one has its name.
async fn replace(ec2: &Client, old: &str, ami: &Ami) -> Result<String> {
    let claimed = async |ami: &Ami| {
        let free = format!("the name '{}' to be free", ami.name);
        wait::until(&free, KNOWN_EVERYWHERE, async || Ok(claim(ec2, ami).await?.ok())).await
    };
    let mut interim = Ami { name: interim_name(&ami.name), ..ami.clone() };
    interim.tags.insert(EXPIRES.to_owned(), lease::ending(lease::AT_WORK));
    let standing_in = match claim(ec2, &interim).await? {
        Ok(id) => id,
        Err(earlier) => {
            ensure!(
                tags::read(earlier.tags()).contains_key(EXPIRES),
                "{} is called '{}', which is what an image is called for the time being: remove it",
                earlier.image_id().unwrap_or_default(),
                interim.name
            );
            give_up_interim(ec2, &ami.name).await?;
            claimed(&interim).await?
        }
    };
    available(ec2, &standing_in).await?;
    deregister(ec2, old).await?;
    claimed(ami).await.with_context(|| {
        format!(
            "{old} is given up, and the new image is {standing_in}, called '{}', until it has its name",
            interim.name
        )
    })
}

/// Ends the registration of an image under its interim name, if there is one: it has its own name, or is out of date.
pub(super) async fn give_up_interim(ec2: &Client, name: &str) -> Result<()> {
    match named(ec2, &interim_name(name)).await? {
        Some(interim) if tags::read(interim.tags()).contains_key(EXPIRES) => {
            deregister(ec2, interim.image_id().unwrap_or_default()).await
        }
        _ => Ok(()),
    }
}

/// Ends an image's registration. One that is gone already is as it should be.
pub(super) async fn deregister(ec2: &Client, id: &str) -> Result<()> {
    match ec2.deregister_image().image_id(id).send().await {
        Err(error) if is_not_found(&error) || code(&error) == Some("InvalidAMIID.Unavailable") => Ok(()),
        done => done.doing("ec2:DeregisterImage", || format!("giving up the image {id}")).map(drop),
    }
}

/// The account's image of this name.
pub(super) async fn named(ec2: &Client, name: &str) -> Result<Option<Image>> {
    let asked = ec2.describe_images().owners("self").filters(filter("name", [name])).send().await;
    let asked = asked.doing("ec2:DescribeImages", || format!("looking for the image '{name}'"))?;
    Ok(asked.images.unwrap_or_default().pop())
}

/// The image with this id, whoever's it is, in whatever state.
pub(super) async fn image(ec2: &Client, id: &str) -> Result<Option<Image>> {
    match ec2.describe_images().image_ids(id).send().await {
        Ok(asked) => Ok(asked.images.unwrap_or_default().pop()),
        Err(error) if is_not_found(&error) || code(&error) == Some("InvalidAMIID.Unavailable") => Ok(None),
        Err(error) => Err(error).doing("ec2:DescribeImages", || format!("looking at the image {id}")),
    }
}

/// Waits until instances can be launched from it.
pub(super) async fn available(ec2: &Client, id: &str) -> Result<()> {
    wait::until(&format!("the image {id} to be available"), AVAILABLE, async || {
        let Some(image) = image(ec2, id).await? else { return Ok(None) };
        match image.state() {
            Some(ImageState::Available) => Ok(Some(())),
            Some(ImageState::Pending | ImageState::Transient) | None => Ok(None),
            Some(other) => {
                let why = image.state_reason().and_then(|reason| reason.message()).unwrap_or("AWS gives no reason");
                Err(anyhow!("the image {id} is {}: {why}", other.as_str()))
            }
        }
    })
    .await
}

/// The snapshots that an image consists of.
pub(super) fn snapshots(image: &Image) -> Vec<String> {
    let devices = image.block_device_mappings().iter();
    devices.filter_map(|device| Some(device.ebs()?.snapshot_id()?.to_owned())).collect()
}

fn is_of(image: &Image, root_snapshot: Option<&str>) -> bool {
    root_snapshot.is_some_and(|root| snapshots(image).iter().any(|snapshot| snapshot == root))
}
