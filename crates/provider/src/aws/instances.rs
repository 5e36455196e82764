//! Single EC2 instances.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_ec2::error::SdkError;
use aws_sdk_ec2::operation::run_instances::{RunInstancesError, RunInstancesOutput};
use aws_sdk_ec2::types::{
    ArchitectureValues, BlockDeviceMapping, EbsBlockDevice, HttpTokensState, IamInstanceProfileSpecification,
    InstanceMetadataOptionsRequest, InstanceMetadataTagsState, InstanceStateName, InstanceType, Reservation,
    ResourceType, ShutdownBehavior,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cli::{BadInput, interrupt, narrate};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::failure::{Explain, code, is_not_found};
use super::lease::{self, EXPIRES, STAGE};
use super::tags::{self, Tags};
use super::wait::{KNOWN_EVERYWHERE, until};
use super::{Aws, ami};
use crate::{Instance, InstanceState, LaunchSpec, Objects, Offer, Store};

/// What the instance is for.
const PURPOSE: &str = "kiln:purpose";

/// How long its end may take. Its system is given a few minutes to shut down before it is turned off.
const TERMINATED: Duration = Duration::from_secs(600);

impl crate::Instances for Aws {
    // All that look at instances in an account share one limit of calls.
    const POLL: Duration = Duration::from_secs(5);
    // An instance is there after some seconds. A console that is not of a Nitro instance is read every few minutes.
    const LAG: Duration = Duration::from_secs(300);

    async fn launch(&self, spec: &LaunchSpec) -> Result<Instance> {
        if spec.lets_in && spec.placement.instance_profile.is_none() {
            let why = "SSM lets us in only where an instance profile allows it, and none is set";
            let remedy = "set instance_profile in [test.aws] of component.toml, or use --via console";
            return Err(BadInput::new("launching an instance", why, remedy).into());
        }
        let launched = self.run(spec).await?.doing("ec2:RunInstances", || format!("launching {}", spec.image))?;
        let id = launched.instances().first().and_then(|it| it.instance_id()).context("EC2 launched no instance")?;
        let known =
            until(&format!("EC2 to know the instance {id}"), KNOWN_EVERYWHERE, async || self.describe(id).await).await;
        if known.is_err()
            && let Err(error) = self.terminate(id).await
        {
            narrate::note(&format!("{error:#}"));
        }
        known
    }

    async fn describe(&self, id: &str) -> Result<Option<Instance>> {
        let sent = self.ec2.describe_instances().instance_ids(id).send().await;
        if sent.as_ref().is_err_and(is_not_found) {
            return Ok(None);
        }
        let found = sent.doing("ec2:DescribeInstances", || format!("looking at the instance {id}"))?;
        found.reservations().iter().flat_map(Reservation::instances).next().map(read).transpose()
    }

    async fn instances(&self) -> Result<Vec<Instance>> {
        let mut found = self.tagged(STAGE).await?;
        found.sort_by_key(|instance| instance.launched);
        Ok(found)
    }

    async fn outlived(&self) -> Result<Vec<Instance>> {
        let mut found = self.tagged(EXPIRES).await?;
        found.retain(|instance| lease::is_over(&instance.tags));
        Ok(found)
    }

    async fn console(&self, id: &str) -> Result<String> {
        self.console_output(id).await
    }

    async fn read(&self, id: &str, path: &str) -> Result<Option<String>> {
        self.print_file(id, path).await
    }

    async fn offer(&self, file: &Path, store: Option<&Store>, lasting: Duration) -> Result<Offer> {
        let Some(Store::Bucket(bucket)) = store else {
            let why = match store {
                Some(store) => format!("the artifact store is {}, which instances on AWS do not reach", store.name()),
                None => "there is no artifact store".to_owned(),
            };
            let doing = format!("offering {} to instances", file.display());
            return Err(BadInput::new(doing, why, "name one in S3 with --store s3://BUCKET/PREFIX").into());
        };
        let digest = bucket.put(file).await?;
        Ok(Offer { url: bucket.link(&digest, lasting).await?, digest })
    }

    async fn terminate(&self, id: &str) -> Result<()> {
        let sent = self.ec2.terminate_instances().instance_ids(id).send().await;
        if sent.as_ref().is_err_and(is_not_found) {
            return Ok(());
        }
        sent.doing("ec2:TerminateInstances", || format!("terminating the instance {id}"))?;
        if interrupt::requested() {
            // Nothing can keep EC2 from it any more, and whoever interrupted us does not want to wait.
            return Ok(());
        }
        until(&format!("the instance {id} to be terminated"), TERMINATED, async || {
            let found = self.describe(id).await?;
            Ok(found.is_none_or(|it| it.state == InstanceState::Terminated).then_some(()))
        })
        .await
    }
}

impl Aws {
    /// Runs the instance in the first of its subnets that has room.
    async fn run(&self, spec: &LaunchSpec) -> Result<Result<RunInstancesOutput, SdkError<RunInstancesError>>> {
        let placement = &spec.placement;
        let image = self.bootable(&spec.image).await?;
        let tags = tags_of(spec);
        let metadata = InstanceMetadataOptionsRequest::builder()
            .http_tokens(HttpTokensState::Required)
            .instance_metadata_tags(InstanceMetadataTagsState::Enabled);
        let profile = placement.instance_profile.as_ref();
        let request = self
            .ec2
            .run_instances()
            .image_id(&spec.image)
            .instance_type(placement.instance_type.as_deref().map_or(image.instance_type, InstanceType::from))
            .min_count(1)
            .max_count(1)
            .set_security_group_ids(Some(placement.security_groups.clone()))
            .set_iam_instance_profile(profile.map(|name| IamInstanceProfileSpecification::builder().name(name).build()))
            .set_user_data(spec.user_data()?.map(|text| BASE64_STANDARD.encode(text)))
            .set_block_device_mappings(Some(image.devices))
            .metadata_options(metadata.build())
            .instance_initiated_shutdown_behavior(ShutdownBehavior::Terminate)
            .tag_specifications(tags::specification(ResourceType::Instance, &tags))
            .tag_specifications(tags::specification(ResourceType::Volume, &tags));
        let mut subnets = placement.subnets.iter();
        let mut subnet = subnets.next();
        loop {
            let token = token(spec, subnet)?;
            let sent = request.clone().set_subnet_id(subnet.cloned()).client_token(token).send().await;
            let is_full = sent.as_ref().err().and_then(code) == Some("InsufficientInstanceCapacity");
            match subnets.next().filter(|_| is_full) {
                Some(next) => subnet = Some(next),
                None => return Ok(sent),
            }
        }
    }

    /// What EC2 has to be told to run the image.
    async fn bootable(&self, id: &str) -> Result<Bootable> {
        let image = ami::image(&self.ec2, id).await?.with_context(|| format!("the image {id} is no longer there"))?;
        let device = |it: &BlockDeviceMapping| {
            // What is not said here is as the image has it.
            let snapshot = it.ebs()?.snapshot_id().map(str::to_owned);
            let disk = EbsBlockDevice::builder().set_snapshot_id(snapshot).delete_on_termination(true).build();
            Some(BlockDeviceMapping::builder().set_device_name(it.device_name.clone()).ebs(disk).build())
        };
        let devices = image.block_device_mappings().iter().filter_map(device).collect();
        // The smallest of its kind that systemd, cloud-init and a service fit into.
        let instance_type = match image.architecture() {
            Some(ArchitectureValues::Arm64) => InstanceType::T4gSmall,
            _ => InstanceType::T3Small,
        };
        Ok(Bootable { instance_type, devices })
    }

    /// The instances that have this tag and are not terminated.
    async fn tagged(&self, tag: &str) -> Result<Vec<Instance>> {
        let request = self
            .ec2
            .describe_instances()
            .filters(tags::filter("tag-key", [tag]))
            .filters(tags::filter("instance-state-name", ["pending", "running", "stopping", "stopped"]));
        let mut pages = request.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.doing("ec2:DescribeInstances", || format!("looking for instances with the tag {tag}"))?;
            for instance in page.reservations().iter().flat_map(Reservation::instances) {
                found.push(read(instance)?);
            }
        }
        Ok(found)
    }
}

/// What follows from an image for a launch of it.
struct Bootable {
    /// What it runs on, if nobody has said.
    instance_type: InstanceType,
    /// Its disks, which go with the instance whatever the image says.
    devices: Vec<BlockDeviceMapping>,
}

fn tags_of(spec: &LaunchSpec) -> Tags {
    let mut tags = spec.tags.clone();
    tags.insert("Name".to_owned(), spec.purpose.clone());
    tags.insert(PURPOSE.to_owned(), spec.purpose.clone());
    tags.extend(spec.expires.map(|expires| (EXPIRES.to_owned(), format!("{expires:.0}"))));
    tags
}

/// Names the launch: a second call with it, after an answer that was lost, launches nothing.
fn token(spec: &LaunchSpec, subnet: Option<&String>) -> Result<String> {
    Ok(hex::encode(Sha256::digest(serde_json::to_vec(&(spec, subnet))?)))
}

fn read(instance: &aws_sdk_ec2::types::Instance) -> Result<Instance> {
    let id = instance.instance_id().context("EC2 has an instance without an id")?;
    let tags = tags::read(instance.tags());
    let state = match instance.state().and_then(|state| state.name()) {
        Some(InstanceStateName::Pending) => InstanceState::Pending,
        Some(InstanceStateName::Running) => InstanceState::Running,
        Some(InstanceStateName::Terminated) => InstanceState::Terminated,
        // One that is stopped runs no more, and is not gone either.
        _ => InstanceState::ShuttingDown,
    };
    let launched = instance.launch_time().map_or(0, aws_smithy_types::DateTime::secs);
    Ok(Instance {
        id: id.to_owned(),
        image: instance.image_id().unwrap_or_default().to_owned(),
        purpose: tags.get(PURPOSE).cloned().unwrap_or_default(),
        state,
        address: instance.private_ip_address().and_then(|address| address.parse().ok()),
        launched: Timestamp::from_second(launched)?,
        starts: 1,
        tags,
    })
}
