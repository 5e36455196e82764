//! Images, volumes and layers as directories with a raw disk in each.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cli::lock::Lock;
use jiff::Timestamp;
use manifest::{Identity, IdentityKind};
use uuid::Uuid;

use super::digests::BlockDigests;
use super::disk;
use super::loop_device::LoopDevice;
use super::records::{names_in, read_json, remove_dir, write_atomically, write_json};
use super::{Local, filter, private_mount};
use crate::{
    Access, Attachment, ImageFilter, Images, InUse, LayerRecord, LeftOver, RegisteredImage, Registration, SourceImage,
    StoredVerdict, VolumeRecord, VolumeSpec,
};

/// The disk in the directory of an image, a volume or a layer that shares its content.
pub(super) const DISK: &str = "disk.raw";

/// The digests of its blocks, beside the disk of an image or a complete volume.
pub(super) const DIGESTS: &str = "blocks.sha256";

impl Local {
    fn images_dir(&self) -> PathBuf {
        self.state.join("images")
    }

    /// The image's disk: `locald` boots it, read-only.
    pub fn image_disk(&self, id: &str) -> PathBuf {
        self.images_dir().join(id).join(DISK)
    }

    /// The digests of the blocks of an image's disk. An error if it is not what was registered any more.
    pub fn image_digests(&self, image: &RegisteredImage) -> Result<BlockDigests> {
        let disk = self.image_disk(&image.id);
        let stored = BlockDigests::read(&disk.with_file_name(DIGESTS));
        if let Some(stored) = stored.filter(|stored| stored.whole() == image.digest) {
            return Ok(stored);
        }
        let digests = BlockDigests::of(&disk, None, &self.contents)?;
        let found = digests.whole();
        ensure!(
            found == image.digest,
            "the disk {} is damaged: its digest is {found}, and {} was registered with {}; build the image again",
            disk.display(),
            image.id,
            image.digest
        );
        Ok(digests)
    }

    pub(super) fn read_image(&self, id: &str) -> Result<Option<RegisteredImage>> {
        read_json(&self.images_dir().join(id).join("image.json"))
    }

    fn write_image(&self, image: &RegisteredImage) -> Result<()> {
        write_json(&self.images_dir().join(&image.id).join("image.json"), image)
    }

    fn document_path(&self, id: &str, name: &str) -> PathBuf {
        self.images_dir().join(id).join("documents").join(name)
    }

    fn volume_dir(&self, id: &str) -> PathBuf {
        self.state.join("volumes").join(id)
    }

    /// An incomplete volume is a temporary of this process, so that it goes when the process has gone.
    fn volume_disk(&self, volume: &VolumeRecord) -> Result<PathBuf> {
        let directory = match volume.complete {
            Some(_) => self.volume_dir(&volume.id),
            None => self.temporary()?.join(&volume.id),
        };
        Ok(directory.join(DISK))
    }

    pub(super) fn layers_dir(&self) -> PathBuf {
        self.state.join("layers")
    }

    /// Makes an image of a disk that is a temporary of this process: the way in for base images.
    pub fn adopt_disk(
        &self,
        disk: &Path,
        virtualization_type: &str,
        registration: &Registration,
    ) -> Result<RegisteredImage> {
        // The digest, and with it the image, must not outrun the disk's content.
        File::open(disk).and_then(|disk| disk.sync_all()).with_context(|| format!("disk {}", disk.display()))?;
        let digests = BlockDigests::of(disk, None, &self.contents)?;
        write_atomically(&disk.with_file_name(DIGESTS), digests.as_bytes())?;
        self.register_disk(disk, registration, |id| {
            Ok(RegisteredImage {
                id,
                name: registration.name.clone(),
                digest: digests.whole(),
                size: disk.metadata()?.len(),
                virtualization_type: virtualization_type.to_owned(),
                root_partition: None,
                created: Timestamp::now(),
                source_image: None,
                tags: registration.tags.clone(),
                verdict: None,
                copies: BTreeMap::new(),
            })
        })
    }

    fn register_disk(
        &self,
        disk: &Path,
        registration: &Registration,
        image: impl FnOnce(String) -> Result<RegisteredImage>,
    ) -> Result<RegisteredImage> {
        let _lock = self.lock(
            &format!("image-name-{}", registration.name.replace('/', "_")),
            &format!("the image name {}", registration.name),
        )?;
        let image = image(new_id("img"))?;
        let taken = self.all_images()?.into_iter().find(|image| image.name == registration.name);
        if let Some(taken) = &taken {
            // A run that was killed after it had registered the image finds it here.
            if taken.digest == image.digest && taken.virtualization_type == image.virtualization_type {
                return Ok(taken.clone());
            }
            ensure!(
                registration.replace,
                "the image name '{}' is taken by {}: choose another name, set \"force_deregister\": true in the builder, or run `imager remove {}`",
                registration.name,
                taken.id,
                taken.id
            );
        }
        let directory = self.temporary()?.join(&image.id);
        fs::create_dir_all(&directory)?;
        // The disk is never written again, so volume and image can be one file.
        fs::hard_link(disk, directory.join(DISK)).or_else(|_| disk_copy(disk, &directory.join(DISK)))?;
        fs::set_permissions(directory.join(DISK), Permissions::from_mode(0o444))?;
        // Without them, what is made of this image is hashed as a whole.
        let _ = fs::copy(disk.with_file_name(DIGESTS), directory.join(DIGESTS));
        write_json(&directory.join("image.json"), &image)?;
        fs::create_dir_all(self.images_dir())?;
        fs::rename(&directory, self.images_dir().join(&image.id))?;
        if let Some(mut old) = taken {
            old.name = format!("{} (replaced by {})", old.name, image.id);
            self.write_image(&old)?;
        }
        Ok(image)
    }

    fn all_images(&self) -> Result<Vec<RegisteredImage>> {
        let mut images = Vec::new();
        for id in names_in(&self.images_dir())? {
            images.extend(self.read_image(&id)?);
        }
        images.sort_by_key(|image| image.created);
        Ok(images)
    }
}

impl Images for Local {
    const IMAGE: IdentityKind = IdentityKind::LocalImage;
    const VOLUME: IdentityKind = IdentityKind::LocalVolume;
    const QUICK: bool = true;
    const HAS_MEDIA: bool = false;

    fn region(&self) -> &'static str {
        "local"
    }

    fn place(&self) -> String {
        self.region().to_owned()
    }

    async fn on_behalf_of(&self, _: &Access) -> Result<Self> {
        Ok(self.clone())
    }

    async fn find_source(&self, source: &SourceImage) -> Result<Option<RegisteredImage>> {
        let aliases = self.aliases().await?;
        let wanted = aliases.get(&source.name).unwrap_or(&source.name);
        Ok(self.all_images()?.into_iter().find(|image| image.id == *wanted || image.name == *wanted))
    }

    async fn find_images(&self, filter: &ImageFilter) -> Result<Vec<RegisteredImage>> {
        let mut found = Vec::new();
        for image in self.all_images()? {
            if filter::fits(filter, &image)? {
                found.push(image);
            }
        }
        Ok(found)
    }

    async fn create_volume(&self, spec: &VolumeSpec) -> Result<VolumeRecord> {
        let volume = VolumeRecord {
            id: new_id("vol"),
            virtualization_type: spec.virtualization_type.clone(),
            root_partition: spec.root_partition,
            source_image: spec.source.as_ref().map(|source| Identity::new(Self::IMAGE, &source.id)),
            tags: spec.tags.clone(),
            created: Timestamp::now(),
            complete: None,
            digest: None,
        };
        let directory = self.temporary()?.join(&volume.id);
        fs::create_dir_all(&directory).with_context(|| format!("creating {}", directory.display()))?;
        if let Err(error) = self.fill_volume(&volume.id, spec, &directory.join(DISK)) {
            remove_dir(&directory)?;
            return Err(error);
        }
        Ok(volume)
    }

    async fn attach(&self, volume: &VolumeRecord, _: Option<&str>) -> Result<Attachment> {
        ensure!(volume.complete.is_none(), "volume {} is complete: images and layers rest on its content", volume.id);
        let disk = self.volume_disk(volume)?;
        let LoopDevice { path, handle } = self.take_device(&volume.id, &disk)?;
        let root = volume.root_partition();
        if root > 0 {
            match disk::root_range(&disk, root) {
                Ok(range) => disk::add_partition(&path, root, &range)?,
                // A new one from scratch has no partitions yet.
                Err(_) if volume.source_image.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Attachment { device: path, volume: volume.id.clone(), _guard: Some(handle) })
    }

    async fn detach(&self, attachment: Attachment) -> Result<()> {
        let Attachment { device, _guard, .. } = attachment;
        if let Some(handle) = _guard {
            // What is still in the device's own cache belongs to the disk.
            handle.sync_all().with_context(|| format!("writing out {}", device.display()))?;
        }
        Ok(())
    }

    async fn cut_layer(&self, volume: &VolumeRecord, key: &str, made_by: &str) -> Result<()> {
        self.delete_layer(key).await?;
        let directory = self.temporary()?.join(format!("layer-{key}"));
        fs::create_dir_all(&directory)?;
        if let Err(error) = self.store_layer(volume, &self.volume_disk(volume)?, &directory) {
            remove_dir(&directory)?;
            return Err(error);
        }
        let record = LayerRecord {
            key: key.to_owned(),
            made_by: made_by.to_owned(),
            created: Timestamp::now(),
            size: Self::layer_size(&directory),
        };
        write_json(&directory.join("layer.json"), &record)?;
        fs::create_dir_all(self.layers_dir())?;
        let target = self.layers_dir().join(key);
        fs::rename(&directory, &target).with_context(|| format!("storing the layer {}", target.display()))
    }

    async fn layers(&self) -> Result<Vec<LayerRecord>> {
        let mut layers = Vec::new();
        for key in names_in(&self.layers_dir())? {
            layers.extend(read_json::<LayerRecord>(&self.layers_dir().join(key).join("layer.json"))?);
        }
        layers.sort_by_key(|layer| layer.created);
        Ok(layers)
    }

    async fn delete_layer(&self, key: &str) -> Result<()> {
        remove_dir(&self.layers_dir().join(key))
    }

    async fn has_layer(&self, key: &str, max_age: Duration) -> Result<bool> {
        let layer: Option<LayerRecord> = read_json(&self.layers_dir().join(key).join("layer.json"))?;
        let oldest = Timestamp::now() - jiff::SignedDuration::try_from(max_age)?;
        Ok(layer.is_some_and(|layer| layer.created >= oldest))
    }

    async fn complete_volume(&self, volume: &VolumeRecord, key: &str) -> Result<VolumeRecord> {
        let directory = self.temporary()?.join(&volume.id);
        let disk = directory.join(DISK);
        disk::check(&disk, volume.root_partition())?;
        File::open(&disk).and_then(|disk| disk.sync_all())?;
        let digests = BlockDigests::of(&disk, self.known(volume)?.as_ref(), &self.contents)?;
        self.contents.forget(&directory);
        write_atomically(&directory.join(DIGESTS), digests.as_bytes())?;
        let digest = Some(digests.whole());
        let complete = VolumeRecord { complete: Some(key.to_owned()), digest, ..volume.clone() };
        write_json(&directory.join("volume.json"), &complete)?;
        fs::create_dir_all(self.state.join("volumes"))?;
        let target = self.volume_dir(&volume.id);
        fs::rename(&directory, &target).with_context(|| format!("storing the volume {}", target.display()))?;
        Ok(complete)
    }

    async fn volume(&self, id: &str) -> Result<Option<VolumeRecord>> {
        read_json(&self.volume_dir(id).join("volume.json"))
    }

    async fn find_volume(&self, key: &str, max_age: Duration) -> Result<Option<VolumeRecord>> {
        let oldest = Timestamp::now() - jiff::SignedDuration::try_from(max_age)?;
        for id in names_in(&self.state.join("volumes"))? {
            let volume: Option<VolumeRecord> = read_json(&self.volume_dir(&id).join("volume.json"))?;
            let fits = |volume: &VolumeRecord| volume.complete.as_deref() == Some(key) && volume.created >= oldest;
            if let Some(volume) = volume.filter(fits) {
                return Ok(Some(volume));
            }
        }
        Ok(None)
    }

    async fn lock_layer(&self, key: &str) -> Result<Lock> {
        self.lock(&format!("layer-{key}"), &format!("the layer {}", &key[..12.min(key.len())]))
    }

    fn scratch(&self) -> Result<PathBuf> {
        self.temporary()
    }

    fn cache(&self) -> PathBuf {
        self.state.join("cache")
    }

    async fn left_over(&self) -> Result<Vec<LeftOver>> {
        self.expired().await
    }

    async fn delete_left_over(&self, left_over: &LeftOver) -> Result<()> {
        self.delete_expired(left_over).await
    }

    async fn leave_volume(&self, volume: &VolumeRecord) -> Result<String> {
        Ok(format!("the next run removes the volume {} from {}", volume.id, self.temporary()?.display()))
    }

    async fn delete_volume(&self, id: &str) -> Result<()> {
        drop(self.devices().remove(id));
        for directory in [self.volume_dir(id), self.temporary()?.join(id)] {
            self.contents.forget(&directory);
            remove_dir(&directory)?;
        }
        Ok(())
    }

    async fn register(&self, volume: &VolumeRecord, registration: &Registration) -> Result<RegisteredImage> {
        ensure!(volume.complete.is_some(), "volume {} is not complete: provision it first", volume.id);
        let disk = self.volume_disk(volume)?;
        self.register_disk(&disk, registration, |id| {
            Ok(RegisteredImage {
                id,
                name: registration.name.clone(),
                digest: match &volume.digest {
                    Some(digest) => digest.clone(),
                    None => BlockDigests::of(&disk, None, &self.contents)?.whole(),
                },
                size: disk.metadata()?.len(),
                virtualization_type: volume.virtualization_type.clone(),
                root_partition: volume.root_partition,
                created: Timestamp::now(),
                source_image: volume.source_image.clone(),
                tags: registration.tags.clone(),
                verdict: None,
                copies: BTreeMap::new(),
            })
        })
    }

    async fn image(&self, id: &str) -> Result<Option<RegisteredImage>> {
        self.read_image(id)
    }

    async fn list(&self) -> Result<Vec<RegisteredImage>> {
        self.all_images()
    }

    async fn alias(&self, alias: &str, id: &str) -> Result<()> {
        ensure!(
            !alias.is_empty() && !alias.contains('/') && !alias.starts_with('.'),
            "'{alias}' cannot be an alias: it must be a plain name without '/'"
        );
        write_atomically(&self.state.join("aliases").join(alias), id.as_bytes())
    }

    async fn aliases(&self) -> Result<BTreeMap<String, String>> {
        let directory = self.state.join("aliases");
        names_in(&directory)?
            .into_iter()
            .map(|alias| {
                let id = fs::read_to_string(directory.join(&alias)).with_context(|| format!("alias {alias}"))?;
                Ok((alias, id))
            })
            .collect()
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let users = self.users_of(id)?;
        ensure!(users.is_empty(), InUse { image: id.to_owned(), users });
        for (alias, target) in self.aliases().await? {
            if target == id {
                fs::remove_file(self.state.join("aliases").join(alias))?;
            }
        }
        remove_dir(&self.images_dir().join(id))
    }

    async fn digest(&self, id: &str) -> Result<Identity> {
        // Half a second or more, in which other tasks of this thread have something to answer.
        let disk = self.image_disk(id);
        let contents = self.contents.clone();
        let digests = tokio::task::spawn_blocking(move || BlockDigests::of(&disk, None, &contents));
        Ok(digests.await.context("hashing a disk")??.whole())
    }

    async fn record_verdict(&self, id: &str, verdict: &StoredVerdict) -> Result<()> {
        let mut image = self.read_image(id)?.with_context(|| format!("image {id} is no longer there"))?;
        image.verdict = Some(verdict.clone());
        self.write_image(&image)
    }

    async fn attach_document(&self, id: &str, name: &str, content: &[u8]) -> Result<()> {
        ensure!(self.read_image(id)?.is_some(), "image {id} is no longer there");
        write_atomically(&self.document_path(id, name), content)
    }

    async fn document(&self, id: &str, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.document_path(id, name);
        match fs::read(&path) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    async fn with_roots<T: Send, const N: usize>(
        &self,
        ids: [&str; N],
        look: impl FnOnce([&Path; N]) -> Result<T> + Send,
    ) -> Result<T> {
        let mut devices = Vec::new();
        for id in ids {
            let image = self.read_image(id)?.with_context(|| format!("image {id} is no longer there"))?;
            let disk = self.image_disk(id);
            let root = disk::root_range(&disk, image.root_partition())?;
            devices.push(LoopDevice::attach(&disk, Some(&root), true)?);
        }
        private_mount::with(std::array::from_fn(|at| devices[at].path.as_path()), look)
    }
}

fn disk_copy(from: &Path, to: &Path) -> io::Result<()> {
    disk::clone(from, to).map_err(io::Error::other)
}

/// An id such as `img-3f9a0c61d2b4`.
fn new_id(kind: &str) -> String {
    format!("{kind}-{}", &Uuid::new_v4().simple().to_string()[..12])
}
