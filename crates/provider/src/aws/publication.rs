//! What is done with an image once it is registered: copies in other regions, who may use it, and for how long.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{
    CreateVolumePermission, CreateVolumePermissionModifications, Image, LaunchPermission,
    LaunchPermissionModifications, PermissionGroup, ResourceType, SnapshotAttributeName,
};
use aws_smithy_types::DateTime;
use cli::narrate;
use manifest::{Protection, Publication, Sharing};

use super::Aws;
use super::ami::{self, Ami};
use super::failure::Explain;
use super::tags::{self, DIGEST, Tags};
use crate::Registration;

/// How the names of tags begin that say which copy of an image is in a region.
pub(super) const COPY: &str = "kiln:copy:";
/// The image that one in another region was copied from.
const COPY_OF: &str = "kiln:copy-of";

impl Aws {
    /// Copies, shares and so on, as far as that is not done. Returns the image and its copies, by region.
    pub(super) async fn publish_image(
        &self,
        id: &str,
        registration: &Registration,
    ) -> Result<BTreeMap<String, String>> {
        let publication = &registration.publication;
        let mut images = vec![(self.region.clone(), self.ec2.clone(), id.to_owned())];
        for (region, key) in publication.regions.iter().filter(|(region, _)| **region != self.region) {
            let there = self.in_region(region).ec2;
            let copy = self.copy(id, region, &there, key.as_deref(), registration).await?;
            self.tag(id, &format!("{COPY}{region}"), &copy).await?;
            images.push((region.clone(), there, copy));
        }
        for (region, ec2, id) in &images {
            if registration.replace {
                ami::give_up_interim(ec2, &registration.name).await?;
            }
            finish(ec2, id, publication).await.with_context(|| format!("in {region}"))?;
        }
        Ok(images.into_iter().map(|(region, _, id)| (region, id)).collect())
    }

    /// A copy of the image in another region. It has a name of its own until one that has the name is given up for it.
    async fn copy(
        &self,
        id: &str,
        region: &str,
        there: &Client,
        key: Option<&str>,
        registration: &Registration,
    ) -> Result<String> {
        let taken = ami::named(there, &registration.name).await?;
        if let Some(done) = taken.as_ref().filter(|image| is_copy(image, id)) {
            let done = done.image_id().unwrap_or_default().to_owned();
            ami::available(there, &done).await?;
            return Ok(done);
        }
        ensure!(
            taken.is_none() || registration.replace,
            "copying the image to {region}: the name '{}' is taken there: choose another ami_name, or set force_deregister to true",
            registration.name
        );
        narrate::detail(&format!("copying {id} to {region}"));
        let mut tags = registration.tags.clone();
        tags.insert(COPY_OF.to_owned(), id.to_owned());
        let name = match taken {
            None => registration.name.clone(),
            // 128 characters are allowed, and this is a part of the name's only.
            Some(_) => format!("{} of {id}", registration.name.chars().take(100).collect::<String>()),
        };
        let publication = &registration.publication;
        // An encrypted copy of what is not encrypted may have random data where nobody has written: to what is uploaded
        // there, its snapshot is no parent.
        let mut snapshot_tags = snapshot_tags(registration);
        snapshot_tags.remove(DIGEST);
        let copied = there
            .copy_image()
            .source_image_id(id)
            .source_region(&self.region)
            .name(&name)
            .set_description(publication.description.clone())
            .set_encrypted((publication.encrypted || key.is_some()).then_some(true))
            .set_kms_key_id(key.map(str::to_owned))
            .tag_specifications(tags::specification(ResourceType::Image, &tags))
            .tag_specifications(tags::specification(ResourceType::Snapshot, &snapshot_tags))
            .client_token(format!("{id}-{region}"))
            .send()
            .await
            .doing("ec2:CopyImage", || format!("copying {id} to {region}"))?;
        let copy = copied.image_id().context("CopyImage has named no image")?;
        ami::available(there, copy).await?;
        if name == registration.name {
            return Ok(copy.to_owned());
        }
        let made = ami::image(there, copy).await?.with_context(|| format!("{copy} is no longer there"))?;
        let renamed = Ami { name: registration.name.clone(), ..Ami::like(&made)? };
        let renamed = ami::register(there, &renamed, registration.replace).await?;
        ami::deregister(there, copy).await?;
        Ok(renamed)
    }
}

/// The tags of an image's snapshots.
pub(super) fn snapshot_tags(registration: &Registration) -> Tags {
    let mut tags = registration.tags.clone();
    tags.extend(registration.publication.snapshot_tags.clone());
    tags
}

fn is_copy(image: &Image, of: &str) -> bool {
    tags::read(image.tags()).get(COPY_OF).is_some_and(|id| id == of)
}

async fn finish(ec2: &Client, id: &str, publication: &Publication) -> Result<()> {
    share(ec2, id, &publication.sharing).await?;
    if let Some(at) = publication.deprecate_at {
        let at = DateTime::from_secs(at.as_second());
        let asked = ec2.enable_image_deprecation().image_id(id).deprecate_at(at).send().await;
        asked.doing("ec2:EnableImageDeprecation", || format!("saying when {id} is deprecated"))?;
    }
    if let Some(protection) = publication.protection {
        let asked = ec2.enable_image_deregistration_protection().image_id(id);
        let asked = asked.with_cooldown(protection == Protection::AfterCooldown).send().await;
        asked.doing("ec2:EnableImageDeregistrationProtection", || format!("protecting {id}"))?;
    }
    Ok(())
}

async fn share(ec2: &Client, id: &str, sharing: &Sharing) -> Result<()> {
    let what = || format!("sharing {id}");
    let permission = LaunchPermission::builder;
    let users = sharing.users.iter().map(|user| permission().user_id(user).build());
    let groups = sharing.groups.iter().map(|group| permission().group(group.as_str().into()).build());
    let organizations = sharing.organizations.iter().map(|arn| permission().organization_arn(arn).build());
    let units = sharing.units.iter().map(|arn| permission().organizational_unit_arn(arn).build());
    let launch: Vec<_> = users.chain(groups).chain(organizations).chain(units).collect();
    if !launch.is_empty() {
        let add = LaunchPermissionModifications::builder().set_add(Some(launch)).build();
        let asked = ec2.modify_image_attribute().image_id(id).launch_permission(add).send().await;
        asked.doing("ec2:ModifyImageAttribute", what)?;
    }
    if !sharing.product_codes.is_empty() {
        let asked = ec2.modify_image_attribute().image_id(id).set_product_codes(Some(sharing.product_codes.clone()));
        let asked = asked.attribute("productCodes").operation_type("add".into()).send().await;
        asked.doing("ec2:ModifyImageAttribute", || format!("setting the product codes of {id}"))?;
    }
    let permission = CreateVolumePermission::builder;
    let users = sharing.snapshot_users.iter().map(|user| permission().user_id(user).build());
    let groups =
        sharing.snapshot_groups.iter().map(|group| permission().group(PermissionGroup::from(group.as_str())).build());
    let volumes: Vec<_> = users.chain(groups).collect();
    if volumes.is_empty() {
        return Ok(());
    }
    let image = ami::image(ec2, id).await?.with_context(|| format!("{id} is no longer there"))?;
    for snapshot in ami::snapshots(&image) {
        let add = CreateVolumePermissionModifications::builder().set_add(Some(volumes.clone())).build();
        let asked = ec2.modify_snapshot_attribute().snapshot_id(&snapshot);
        let asked = asked.attribute(SnapshotAttributeName::CreateVolumePermission).create_volume_permission(add);
        asked.send().await.doing("ec2:ModifySnapshotAttribute", || format!("sharing {snapshot}"))?;
    }
    Ok(())
}
