//! Images, the volumes that they are made of, and the layers in between.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use jiff::{SignedDuration, Timestamp};
use manifest::{Account, Identity, IdentityKind, Medium, Publication};
use serde::{Deserialize, Serialize};

/// What a template names as the image to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceImage {
    /// Id, name or alias.
    pub name: String,
}

/// What an image is like, as EC2's DescribeImages has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageFilter {
    /// Values by the filter's name, such as `name` or `tag:component`. One of the values must fit; `*` stands for
    /// any characters in them, `?` for one.
    pub filters: BTreeMap<String, Vec<String>>,
    /// Whose images, where a provider has images of others.
    pub owners: Vec<String>,
}

/// An image that instances can be launched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredImage {
    /// Its id at the provider.
    pub id: String,
    /// Its name, unique among images.
    pub name: String,
    /// Digest of its content.
    pub digest: Identity,
    /// Virtual size of its disk in bytes.
    pub size: u64,
    /// `hvm` (a partitioned disk) or `paravirtual` (a file system on the whole disk).
    pub virtualization_type: String,
    /// The partition that has the root, where it is not the one that the virtualization type implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_partition: Option<u32>,
    /// When it was registered.
    pub created: Timestamp,
    /// The image that it was made from, if any.
    pub source_image: Option<Identity>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What the last test of it found.
    pub verdict: Option<StoredVerdict>,
    /// Its copies in other regions, by region.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub copies: BTreeMap<String, String>,
}

impl RegisteredImage {
    /// The partition that has the root file system; 0 is the whole disk.
    pub fn root_partition(&self) -> u32 {
        root_partition(&self.virtualization_type, self.root_partition)
    }
}

/// The partition that has the root file system; 0 is the whole disk. `given` is one that the virtualization type
/// does not imply.
pub fn root_partition(virtualization_type: &str, given: Option<u32>) -> u32 {
    given.unwrap_or(if virtualization_type == "paravirtual" { 0 } else { 1 })
}

/// What the kernel calls a partition of a disk; 0 is the disk. Where a disk's name ends with a digit, a `p` follows
/// (block/partitions/core.c).
pub fn partition(disk: &Path, number: u32) -> PathBuf {
    let disk = disk.display().to_string();
    match number {
        0 => disk.into(),
        _ if disk.ends_with(|last: char| last.is_ascii_digit()) => format!("{disk}p{number}").into(),
        _ => format!("{disk}{number}").into(),
    }
}

/// The verdict that travels with an image: the deployer trusts no manifest alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredVerdict {
    /// Whether every check passed.
    pub passed: bool,
    /// Digest of the content that was tested.
    pub digest: Identity,
    /// When the test ended.
    pub ended: Timestamp,
}

/// What a volume is made for.
#[derive(Debug, Clone)]
pub struct VolumeSpec {
    /// Image at the bottom of it; without one it is empty.
    pub source: Option<RegisteredImage>,
    /// Key of the layer to start from instead of the image itself.
    pub layer: Option<String>,
    /// `hvm` or `paravirtual`; a volume of another type than its source has its file system moved.
    pub virtualization_type: String,
    /// The partition that has the root, where it is not the one that the virtualization type implies.
    pub root_partition: Option<u32>,
    /// Its size in bytes, if it is not the source's.
    pub size: Option<u64>,
    /// What it is kept on, where a provider has a choice.
    pub medium: Medium,
    /// Tags of the volume.
    pub tags: BTreeMap<String, String>,
}

/// In whose name a builder works, and where. Not `Debug`: it may have secrets.
#[derive(Clone, Default)]
pub struct Access {
    /// What is no secret.
    pub account: Account,
    /// Keys, where they are given.
    pub keys: Option<AccessKeys>,
}

impl Access {
    /// Whether all is as the environment has it.
    pub fn is_none(&self) -> bool {
        self.account.is_none() && self.keys.is_none()
    }
}

/// An access key with what belongs to it.
#[derive(Clone)]
pub struct AccessKeys {
    /// Its id.
    pub id: String,
    /// The secret part.
    pub secret: String,
    /// The session's token, if the key is a temporary one.
    pub token: Option<String>,
}

/// A volume as its provider knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    /// Its id at the provider.
    pub id: String,
    /// `hvm` or `paravirtual`.
    pub virtualization_type: String,
    /// The partition that has the root, where it is not the one that the virtualization type implies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_partition: Option<u32>,
    /// The image at the bottom of it, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image: Option<Identity>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// When it was created.
    pub created: Timestamp,
    /// Key of the layer that it holds, once provisioning is complete.
    pub complete: Option<String>,
    /// Digest of its content, once it is complete and where its provider has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Identity>,
}

impl VolumeRecord {
    /// The partition that has the root file system; 0 is the whole disk.
    pub fn root_partition(&self) -> u32 {
        root_partition(&self.virtualization_type, self.root_partition)
    }
}

/// The state of a volume after a provisioner, kept so that the provisioner need not run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Its key, SHA-256 in hexadecimal.
    pub key: String,
    /// Which provisioner made it, for people.
    pub made_by: String,
    /// When it was made.
    pub created: Timestamp,
    /// Bytes that it takes in the store.
    pub size: u64,
}

/// A volume that is attached to this machine as a block device.
///
/// On the local provider the device goes away by itself when this and the last
/// mount of it are gone, however the process ends.
#[derive(Debug)]
pub struct Attachment {
    /// The block device, as a whole.
    pub device: PathBuf,
    /// The volume's id.
    #[cfg_attr(not(feature = "aws"), expect(dead_code, reason = "a loop device is detached by its handle"))]
    pub(crate) volume: String,
    /// Keeps the device while it lives, where that is the provider's way.
    pub(crate) _guard: Option<std::fs::File>,
}

/// What an image is to be registered as.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Take the name over from an image that has it.
    pub replace: bool,
    /// What else it is to be, where a provider has that.
    pub publication: Publication,
}

/// Something that a run has made and not completed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOver {
    /// What it is, such as `volume`.
    pub kind: &'static str,
    /// Its id.
    pub id: String,
    /// Whose it was, for people.
    pub from: String,
}

/// How long a complete volume is kept for those who want to take it up: as long as a build would (imager's `--max-age`).
pub(crate) const VOLUME_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long a layer is kept: longer than builds take it up by themselves, for those who let them.
pub(crate) const LAYER_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Why an image is not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {image} is in use by {}: destroy them first", users.join(", "))]
pub struct InUse {
    /// Its id.
    pub image: String,
    /// The instances that run it, and what else needs it.
    pub users: Vec<String>,
}

/// Images, volumes and layers.
#[expect(async_fn_in_trait, reason = "callers are generic over the provider and never need Send")]
pub trait Images {
    /// What kind of identity an image of this provider has.
    const IMAGE: IdentityKind;
    /// What kind of identity a volume of this provider has.
    const VOLUME: IdentityKind;
    /// Whether a look into an image and a layer take moments. Where they take minutes, a stage does without the look
    /// and keeps the layers that it is told to.
    const QUICK: bool;
    /// Whether there are several media that a volume can be kept on, see [`Medium`], and accounts to work in.
    const HAS_MEDIA: bool;

    /// Where its images are: a region of AWS, or `local`.
    fn region(&self) -> &str;

    /// The same as a manifest has it: `local`, or such as `aws us-east-1`.
    fn place(&self) -> String;

    /// The same provider in this name and at this place.
    async fn on_behalf_of(&self, access: &Access) -> Result<Self>
    where
        Self: Sized;

    /// Finds an image by id, name or alias.
    async fn find_source(&self, source: &SourceImage) -> Result<Option<RegisteredImage>>;

    /// The images that fit the filter, oldest first. An error names a filter that this provider does not have.
    async fn find_images(&self, filter: &ImageFilter) -> Result<Vec<RegisteredImage>>;

    /// Makes a volume from an image or a layer. It belongs to this process until it is complete:
    /// if the process ends before, [`Images::left_over`] tells of it once its lease is over.
    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord>;

    /// Attaches the volume as a block device of this machine, by this name where a provider has names for that. The
    /// kernel knows at least the partition that has the root, if the volume was not made from scratch.
    async fn attach(&self, volume: &VolumeRecord, name: Option<&str>) -> Result<Attachment>;

    /// Detaches it. An error if something still uses the device.
    async fn detach(&self, attachment: Attachment) -> Result<()>;

    /// Keeps the volume's present content, which must be clean and unmounted, as the layer `key`.
    /// `made_by` says for people which provisioner led to it.
    async fn cut_layer(&self, volume: &VolumeRecord, key: &str, made_by: &str) -> Result<()>;

    /// Whether there is a layer `key` that is no older than `max_age`.
    async fn has_layer(&self, key: &str, max_age: Duration) -> Result<bool>;

    /// All layers, oldest first.
    async fn layers(&self) -> Result<Vec<LayerRecord>>;

    /// Deletes a layer. Volumes that were made from it keep their content.
    async fn delete_layer(&self, key: &str) -> Result<()>;

    /// Marks the volume as complete: it holds the layer `key` and is not changed any more.
    async fn complete_volume(&self, volume: &VolumeRecord, key: &str) -> Result<VolumeRecord>;

    /// The complete volume with this id, if it is still there.
    async fn volume(&self, id: &str) -> Result<Option<VolumeRecord>>;

    /// A complete volume that holds the layer `key` and is no older than `max_age`.
    async fn find_volume(&self, key: &str, max_age: Duration) -> Result<Option<VolumeRecord>>;

    /// Takes the lock under which the layer `key` is made: who waits for it takes what the other made.
    async fn lock_layer(&self, key: &str) -> Result<cli::lock::Lock>;

    /// A directory on this machine for what is needed during this run only. If the process is
    /// killed, the next run removes it.
    fn scratch(&self) -> Result<PathBuf>;

    /// A directory on this machine for what makes later runs quicker and can be lost.
    fn cache(&self) -> PathBuf;

    /// What dead runs have left, and the complete volumes and the layers whose time is past.
    async fn left_over(&self) -> Result<Vec<LeftOver>>;

    /// Deletes what was left.
    async fn delete_left_over(&self, left_over: &LeftOver) -> Result<()>;

    /// Leaves an incomplete volume for people to look at. Where it is and until when, as a sentence for them.
    async fn leave_volume(&self, volume: &VolumeRecord) -> Result<String>;

    /// Deletes a volume, which may still be attached.
    async fn delete_volume(&self, id: &str) -> Result<()>;

    /// Makes an image of a complete volume: snapshot, register and tag.
    async fn register(&self, volume: &VolumeRecord, registration: &Registration) -> Result<RegisteredImage>;

    /// The image with this id, if it is still there.
    async fn image(&self, id: &str) -> Result<Option<RegisteredImage>>;

    /// All images, oldest first.
    async fn list(&self) -> Result<Vec<RegisteredImage>>;

    /// Lets `alias` stand for the image `id`.
    async fn alias(&self, alias: &str, id: &str) -> Result<()>;

    /// All aliases and the ids that they stand for.
    async fn aliases(&self) -> Result<BTreeMap<String, String>>;

    /// Deletes an image. [`InUse`] if instances run from it.
    async fn remove(&self, id: &str) -> Result<()>;

    /// Computes the digest of the image's content anew.
    async fn digest(&self, id: &str) -> Result<Identity>;

    /// Stores the verdict with the image.
    async fn record_verdict(&self, id: &str, verdict: &StoredVerdict) -> Result<()>;

    /// Puts a document that tells of the image beside it, in place of one with the same name.
    async fn attach_document(&self, id: &str, name: &str, content: &[u8]) -> Result<()>;

    /// The document `name` of the image, if it has one.
    async fn document(&self, id: &str, name: &str) -> Result<Option<Vec<u8>>>;

    /// Why [`Images::with_roots`] cannot be had on this machine; `None` where it can.
    async fn roots_out_of_reach(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Runs `look` on the images' root file systems, mounted read-only where no other process sees them.
    async fn with_roots<T: Send, const N: usize>(
        &self,
        ids: [&str; N],
        look: impl FnOnce([&Path; N]) -> Result<T> + Send,
    ) -> Result<T>;

    /// Runs `look` on one image's root file system; see [`Images::with_roots`].
    async fn with_root<T: Send>(&self, id: &str, look: impl FnOnce(&Path) -> Result<T> + Send) -> Result<T> {
        self.with_roots([id], |[root]| look(root)).await
    }
}
