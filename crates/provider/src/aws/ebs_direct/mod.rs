//! Images of this machine as images of EC2, without an instance that builds: the disk goes into a snapshot by the
//! EBS direct API, and only where it differs from a snapshot that is there.
//!
//! A snapshot that this makes carries the digest of its content as the tag `kiln:digest`. So it is known what is
//! published, and what a parent holds: exactly what the image of this machine with that digest holds.

mod blocks;
mod journal;
mod parent;
mod put;
mod snapshot;
mod window;

use std::fs::File;

use anyhow::{Context, Result};
use aws_sdk_ec2::types::{Image, VolumeType};
use cli::{BadInput, narrate};
use manifest::{Identity, IdentityKind, Medium};

use super::Aws;
use super::ami::{self, Ami};
use super::images::place;
use super::registration::{architecture, check_type, rooted, with};
use super::tags::{self, DIGEST};
use super::volumes::ROOT_PARTITION;
use crate::local::{BLOCK, Local};
use crate::{Images, PublishSpec, Published, RegisteredImage, Registration};
use blocks::Content;
use journal::Journal;

/// The verdict that an image had earned before it was published, when, and at which provider, such as
/// `passed 2026-01-02T03:04:05Z local`. It is not the verdict of a test on AWS.
const EARNED: &str = "kiln:earned";

/// What is uploaded.
struct Source<'a> {
    image: &'a RegisteredImage,
    disk: File,
    content: Content,
    /// Size of the volume, which EBS has in whole GiB.
    gib: u64,
}

impl<'a> Source<'a> {
    fn of(from: &Local, image: &'a RegisteredImage) -> Result<Self> {
        let path = from.image_disk(&image.id);
        let disk = File::open(&path).with_context(|| format!("opening the disk {}", path.display()))?;
        let content = Content::of(&path, &from.image_digests(image)?)?;
        Ok(Self { image, disk, content, gib: gib_of(image) })
    }

    /// How many blocks the volume has.
    fn blocks(&self) -> usize {
        blocks_of(self.gib)
    }
}

fn gib_of(image: &RegisteredImage) -> u64 {
    image.size.div_ceil(1 << 30).max(1)
}

fn blocks_of(gib: u64) -> usize {
    usize::try_from((gib << 30) / BLOCK).unwrap_or(usize::MAX)
}

impl Aws {
    /// Publishes an image of this machine: snapshot, register and tag. What is there already is not made again.
    pub async fn publish(&self, from: &Local, image: &RegisteredImage, spec: &PublishSpec) -> Result<Published> {
        check_type(&image.virtualization_type, &spec.registration.publication)?;
        let lock = format!("publish-{}-{}", self.region, image.digest.value);
        let _lock = from.lock(&lock, &format!("the publication of {} to {}", image.id, self.region))?;
        let journal = Journal::of(&from.cache(), &self.region, &image.digest.value);
        let encryption = self.encryption(&spec.medium).await?;
        let complete = self.complete_snapshots_of(image, &encryption).await?;
        let registration = &told(image, &spec.registration);
        let there = ami::named(&self.ec2, &registration.name).await?;
        let known = there.as_ref().and_then(|there| {
            let snapshots = ami::snapshots(there);
            Some((there, complete.iter().find(|snapshot| snapshots.contains(snapshot))?))
        });
        if let Some((there, snapshot)) = known {
            let id = there.image_id().unwrap_or_default();
            ami::available(&self.ec2, id).await?;
            self.tell(there, registration).await?;
            let unlike = Ami::like(there)?.unlike(&described(image, registration, snapshot, &spec.medium)?);
            if !unlike.is_empty() {
                narrate::note(&format!(
                    "{id} is registered with another {}, which cannot be changed: choose another --name, or `imager remove \
                     --provider aws {id}` first",
                    unlike.join(", ")
                ));
            }
            return self.finish_publication(id, registration, snapshot, journal, true).await;
        }
        if let Some(other) = there.as_ref().filter(|_| !registration.replace) {
            let doing = format!("publishing the image {} to {}", image.id, self.region);
            let id = other.image_id().unwrap_or_default();
            let why = format!(
                "the name '{}' is taken there by {id}, which has other content or is encrypted otherwise",
                registration.name
            );
            return Err(BadInput::new(doing, why, "choose another with --name, or take it over with --force").into());
        }
        let snapshot = match complete.into_iter().next() {
            Some(snapshot) => snapshot,
            None => self.upload(&Source::of(from, image)?, from, spec, &encryption, &journal).await?,
        };
        narrate::step(&format!("Registering the image '{}' of {snapshot}...", registration.name));
        let ami = described(image, registration, &snapshot, &spec.medium)?;
        let id = self.register_over(there.as_ref(), &ami, registration).await?;
        self.finish_publication(&id, registration, &snapshot, journal, false).await
    }

    /// What follows once the image is there.
    async fn finish_publication(
        &self,
        id: &str,
        registration: &Registration,
        snapshot: &str,
        journal: Journal,
        unchanged: bool,
    ) -> Result<Published> {
        let images = self.publish_image(id, registration).await?;
        self.end_lease(&[snapshot.to_owned()]).await?;
        journal.remove()?;
        let identity = |id: &str| Identity::new(IdentityKind::AwsImage, id);
        let places = images.iter().map(|(region, id)| (place(region), identity(id))).collect();
        Ok(Published { identity: identity(id), places, unchanged })
    }

    /// Tags an image with what is to be said of it by now, such as a verdict that was earned after it was published.
    async fn tell(&self, there: &Image, told: &Registration) -> Result<()> {
        let said = tags::read(there.tags());
        let news = [DIGEST, EARNED].into_iter().filter_map(|name| Some((name, told.tags.get(name)?)));
        for (name, value) in news.filter(|(name, value)| said.get(*name) != Some(value)) {
            self.tag(there.image_id().unwrap_or_default(), name, value).await?;
        }
        Ok(())
    }
}

/// The same with tags that say what the image is.
fn told(image: &RegisteredImage, registration: &Registration) -> Registration {
    let mut told = registration.clone();
    told.tags.insert(DIGEST.to_owned(), image.digest.value.clone());
    told.tags.extend(earned(image).map(|earned| (EARNED.to_owned(), earned)));
    told.tags.extend(image.root_partition.map(|number| (ROOT_PARTITION.to_owned(), number.to_string())));
    told
}

/// What the image is registered as.
fn described(image: &RegisteredImage, registration: &Registration, snapshot: &str, medium: &Medium) -> Result<Ami> {
    let gib = i32::try_from(gib_of(image)).context("the size of a volume")?;
    let ami = Ami::of_disk(&registration.name, snapshot, gib, architecture()?);
    let mut ami = Ami { virtualization_type: image.virtualization_type.clone(), ..ami };
    ami.tags.clone_from(&registration.tags);
    let ami = with(ami, &registration.publication)?;
    let kind = medium.kind.as_deref().map(VolumeType::from);
    let kind = kind.or_else(|| ami.root()?.volume_type().cloned()).unwrap_or(VolumeType::Gp3);
    Ok(rooted(ami, snapshot, gib, Some(kind)))
}

/// The verdict that the image has earned here, as a tag.
fn earned(image: &RegisteredImage) -> Option<String> {
    let verdict = image.verdict.as_ref().filter(|verdict| verdict.digest == image.digest)?;
    Some(format!("{} {:.0} local", if verdict.passed { "passed" } else { "failed" }, verdict.ended))
}
