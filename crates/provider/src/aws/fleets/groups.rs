//! Groups: Auto Scaling groups of the service's name and a number, each with a launch template of its own.
//!
//! The template is called as the group is, and the group names its version by number: what `$Latest` means changes,
//! and a group must launch what it was made for as long as it lives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_autoscaling::types::{AutoScalingGroup, Filter, LaunchTemplateSpecification, LifecycleState, Tag};
use aws_sdk_ec2::types::{
    Instance, InstanceType, LaunchTemplateHttpTokensState, LaunchTemplateIamInstanceProfileSpecificationRequest,
    LaunchTemplateInstanceMetadataOptionsRequest, LaunchTemplateInstanceMetadataTagsState,
    LaunchTemplateTagSpecificationRequest, RequestLaunchTemplateData, ResourceType,
};
use jiff::Timestamp;

use super::copies::JOURNAL;
use super::names::{GROUP, SERVICE};
use crate::aws::Aws;
use crate::aws::failure::{Explain, code, is_not_found};
use crate::aws::lease::EXPIRES;
use crate::aws::{tags, wait};
use crate::{Group, GroupSpec, InstanceState};

/// The version of a template that has one.
const VERSION: &str = "1";
/// How long a new instance may take before its health counts, in seconds: the balancer's word on a machine that has
/// not booted is no reason to replace it.
const GRACE: i32 = 300;
/// How long a group's instances may take to be terminated.
const TERMINATED: Duration = Duration::from_secs(900);

/// Tag of a group: the image that its instances run.
const IMAGE: &str = "kiln:image";
/// Tag of a group: how many instances it was asked to have.
const SIZE: &str = "kiln:size";
/// Tag of a held group: which of its processes were suspended before.
const SUSPENDED: &str = "kiln:suspended-before";
/// Its value where there were none.
const NONE: &str = "none";
/// Tags that say what we know of a group, and that are none of its own.
const OURS: [&str; 7] = [SERVICE, GROUP, IMAGE, SIZE, SUSPENDED, EXPIRES, "Name"];

/// The processes by which a group changes its size or replaces healthy instances of its own accord. The others go on:
/// `ReplaceUnhealthy` and `Launch` are what keeps a group at size ("Suspend and resume Amazon EC2 Auto Scaling
/// processes").
const SCALING: [&str; 4] = ["AZRebalance", "AlarmNotification", "InstanceRefresh", "ScheduledActions"];

/// Tags of a group and of all that belongs to it.
fn tags_of(spec: &GroupSpec) -> BTreeMap<String, String> {
    let own = [(SERVICE, &spec.service), (GROUP, &spec.name), ("Name", &spec.name)];
    let own = own.map(|(key, value)| (key.to_owned(), value.clone()));
    spec.tags.clone().into_iter().chain(own).collect()
}

pub fn tag(group: &str, key: &str, value: &str, propagates: bool) -> Tag {
    let tag = Tag::builder().resource_id(group).resource_type("auto-scaling-group").key(key).value(value);
    tag.propagate_at_launch(propagates).build()
}

fn tag_of<'a>(group: &'a AutoScalingGroup, key: &str) -> Option<&'a str> {
    group.tags().iter().find(|tag| tag.key() == Some(key))?.value()
}

/// The group's name.
pub fn name_of(group: &AutoScalingGroup) -> &str {
    group.auto_scaling_group_name().unwrap_or_default()
}

/// The group as its tags and its present size say.
pub fn read(group: &AutoScalingGroup, weight: u8) -> Result<Group> {
    let name = name_of(group);
    let tag =
        |key| tag_of(group, key).with_context(|| format!("the group {name} has no tag {key}: somebody removed it"));
    let pair = |tag: &aws_sdk_autoscaling::types::TagDescription| {
        let is_ours = |key: &str| OURS.contains(&key) || key.starts_with(JOURNAL) || key.starts_with("aws:");
        let key = tag.key().filter(|key| !is_ours(key))?;
        Some((key.to_owned(), tag.value().unwrap_or_default().to_owned()))
    };
    let size = tag(SIZE)?.parse().with_context(|| format!("the tag {SIZE} of the group {name}"))?;
    let desired = u32::try_from(group.desired_capacity().unwrap_or_default())?;
    let created = group.created_time().map_or(0, aws_smithy_types::DateTime::secs);
    Ok(Group {
        spec: GroupSpec {
            service: tag(SERVICE)?.to_owned(),
            name: name.to_owned(),
            image: tag(IMAGE)?.to_owned(),
            size,
            initial: None,
            tags: group.tags().iter().filter_map(pair).collect(),
            aws: manifest::AwsFleet::default(),
        },
        resized: (desired != size).then_some(desired),
        weight,
        created: Timestamp::from_second(created)?,
    })
}

/// What an instance is doing: as EC2 says, and of a running one as its group does.
pub fn state(lifecycle: Option<&LifecycleState>, instance: Option<&Instance>) -> InstanceState {
    use aws_sdk_ec2::types::InstanceStateName as Name;
    match instance.and_then(|it| it.state()?.name()) {
        Some(Name::Pending) => InstanceState::Pending,
        Some(Name::Running) => match lifecycle {
            Some(LifecycleState::InService) => InstanceState::Running,
            Some(LifecycleState::Pending | LifecycleState::PendingWait | LifecycleState::PendingProceed) => {
                InstanceState::Pending
            }
            _ => InstanceState::ShuttingDown,
        },
        Some(Name::Terminated) | None => InstanceState::Terminated,
        _ => InstanceState::ShuttingDown,
    }
}

/// Whether a group is held.
pub fn is_held(group: &AutoScalingGroup) -> bool {
    tag_of(group, SUSPENDED).is_some()
}

/// Until when a held group is held.
pub fn held_until(group: &AutoScalingGroup) -> Option<Timestamp> {
    tag_of(group, EXPIRES)?.parse().ok()
}

fn suspended(group: &AutoScalingGroup) -> BTreeSet<&str> {
    group.suspended_processes().iter().filter_map(|process| process.process_name()).collect()
}

impl Aws {
    /// The groups of a service.
    pub(super) async fn groups_of(&self, service: &str) -> Result<Vec<AutoScalingGroup>> {
        let filter = Filter::builder().name(format!("tag:{SERVICE}")).values(service).build();
        let pages: Result<Vec<_>, _> =
            self.groups.describe_auto_scaling_groups().filters(filter).into_paginator().send().collect().await;
        let pages =
            pages.doing("autoscaling:DescribeAutoScalingGroups", || format!("looking for the groups of {service}"))?;
        Ok(pages.into_iter().flat_map(|page| page.auto_scaling_groups.unwrap_or_default()).collect())
    }

    /// The group with this name, if it is there.
    pub(super) async fn group(&self, name: &str) -> Result<Option<AutoScalingGroup>> {
        let found = self.groups.describe_auto_scaling_groups().auto_scaling_group_names(name).send().await;
        let found = found.doing("autoscaling:DescribeAutoScalingGroups", || format!("looking for the group {name}"))?;
        Ok(found.auto_scaling_groups.unwrap_or_default().pop())
    }

    /// The instances with these ids, as EC2 has them.
    pub(super) async fn ec2_instances(&self, ids: Vec<String>) -> Result<Vec<Instance>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        // By filter: one that is not known yet is no error then.
        let filter = tags::filter("instance-id", ids);
        let pages: Result<Vec<_>, _> =
            self.ec2.describe_instances().filters(filter).into_paginator().send().collect().await;
        let pages = pages.doing("ec2:DescribeInstances", || "looking at the instances of a group".to_owned())?;
        let reservations = pages.into_iter().flat_map(|page| page.reservations.unwrap_or_default());
        Ok(reservations.flat_map(|reservation| reservation.instances.unwrap_or_default()).collect())
    }

    pub(super) async fn has_template(&self, group: &str) -> Result<bool> {
        match self.ec2.describe_launch_templates().launch_template_names(group).send().await {
            Ok(found) => Ok(!found.launch_templates().is_empty()),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => {
                Err(error).doing("ec2:DescribeLaunchTemplates", || format!("looking for the launch template {group}"))
            }
        }
    }

    pub(super) async fn make_template(&self, spec: &GroupSpec) -> Result<()> {
        let place = &spec.aws.instances;
        let tags = tags_of(spec);
        let tagged = |kind: ResourceType| {
            LaunchTemplateTagSpecificationRequest::builder()
                .resource_type(kind)
                .set_tags(Some(tags::list(&tags)))
                .build()
        };
        let profile = place.instance_profile.as_ref();
        let profile =
            profile.map(|name| LaunchTemplateIamInstanceProfileSpecificationRequest::builder().name(name).build());
        let metadata = LaunchTemplateInstanceMetadataOptionsRequest::builder()
            .http_tokens(LaunchTemplateHttpTokensState::Required)
            .instance_metadata_tags(LaunchTemplateInstanceMetadataTagsState::Enabled)
            .build();
        let data = RequestLaunchTemplateData::builder()
            .image_id(&spec.image)
            .set_instance_type(place.instance_type.as_deref().map(InstanceType::from))
            .set_security_group_ids(Some(place.security_groups.clone()).filter(|groups| !groups.is_empty()))
            .set_iam_instance_profile(profile)
            .metadata_options(metadata)
            .tag_specifications(tagged(ResourceType::Instance))
            .tag_specifications(tagged(ResourceType::Volume))
            .build();
        let make = self
            .ec2
            .create_launch_template()
            .launch_template_name(&spec.name)
            .version_description(format!("{} of {}", spec.name, spec.image))
            .launch_template_data(data)
            .tag_specifications(tags::specification(ResourceType::LaunchTemplate, &tags));
        let what = || format!("creating the launch template {}", spec.name);
        make.send().await.doing("ec2:CreateLaunchTemplate", what).map(drop)
    }

    /// Makes the group: with the target group, or, where it has none, apart from any balancer.
    pub(super) async fn make_group(&self, spec: &GroupSpec, target_group: Option<String>) -> Result<()> {
        let known = format!("the launch template {} to be known", spec.name);
        wait::until(&known, wait::KNOWN_EVERYWHERE, async || Ok(self.has_template(&spec.name).await?.then_some(())))
            .await?;
        let template = LaunchTemplateSpecification::builder().launch_template_name(&spec.name).version(VERSION).build();
        let begins_with = spec.initial.unwrap_or(spec.size);
        let most = spec.aws.max_size.unwrap_or(spec.size).max(begins_with);
        let facts = [(IMAGE, spec.image.clone()), (SIZE, spec.size.to_string())];
        let facts = facts.iter().map(|(key, value)| tag(&spec.name, key, value, false));
        let tags = tags_of(spec).into_iter().map(|(key, value)| tag(&spec.name, &key, &value, true));
        let make = self
            .groups
            .create_auto_scaling_group()
            .auto_scaling_group_name(&spec.name)
            .launch_template(template)
            .min_size(spec.size.try_into()?)
            .desired_capacity(begins_with.try_into()?)
            .max_size(most.try_into()?)
            .vpc_zone_identifier(spec.aws.instances.subnets.join(","))
            .health_check_type("ELB")
            .health_check_grace_period(GRACE)
            .set_target_group_arns(target_group.map(|arn| vec![arn]))
            .set_tags(Some(tags.chain(facts).collect()));
        let what = || format!("creating the group {}", spec.name);
        make.send().await.doing("autoscaling:CreateAutoScalingGroup", what).map(drop)
    }

    /// Has the group's instances leave its target groups: open requests are given time.
    pub(super) async fn leave_target_groups(&self, group: &AutoScalingGroup) -> Result<()> {
        let (name, arns) = (name_of(group), group.target_group_arns());
        let leave = self.groups.detach_load_balancer_target_groups().auto_scaling_group_name(name);
        let what = || format!("taking the instances of {name} off the balancer");
        let left = leave.set_target_group_arns(Some(arns.to_vec())).send().await;
        left.doing("autoscaling:DetachLoadBalancerTargetGroups", what).map(drop)
    }

    pub(super) async fn delete_template(&self, group: &str) -> Result<()> {
        match self.ec2.delete_launch_template().launch_template_name(group).send().await {
            Err(error) if is_not_found(&error) => Ok(()),
            deleted => {
                deleted.doing("ec2:DeleteLaunchTemplate", || format!("deleting the launch template {group}")).map(drop)
            }
        }
    }

    /// Deletes the group, and waits until its instances are terminated.
    pub(super) async fn delete_group(&self, name: &str) -> Result<()> {
        wait::until(&format!("the instances of {name} to be terminated"), TERMINATED, async || {
            let Some(group) = self.group(name).await? else { return Ok(Some(())) };
            // It has a status only while it is being deleted.
            if group.status().is_none() {
                let delete = self.groups.delete_auto_scaling_group().auto_scaling_group_name(name).force_delete(true);
                match delete.send().await {
                    // One of its own activities is not over yet.
                    Err(error) if matches!(code(&error), Some("ResourceInUse" | "ScalingActivityInProgress")) => {}
                    deleted => {
                        deleted.doing("autoscaling:DeleteAutoScalingGroup", || format!("deleting the group {name}"))?;
                    }
                }
            }
            Ok(None)
        })
        .await
    }

    /// Writes down, as tags of the group, which of its processes are suspended now and until when it is held. What an
    /// earlier run wrote down stays: it is what was true before anybody held it.
    pub(super) async fn note_hold(&self, group: &AutoScalingGroup, until: Timestamp) -> Result<()> {
        let name = name_of(group);
        let now = suspended(group).into_iter().collect::<Vec<_>>().join(" ");
        let now = if now.is_empty() { NONE.to_owned() } else { now };
        let before = tag_of(group, SUSPENDED).map_or(now, str::to_owned);
        let tags = [(SUSPENDED, before), (EXPIRES, format!("{until:.0}"))];
        let tags = tags.iter().map(|(key, value)| tag(name, key, value, false)).collect();
        let noted = self.groups.create_or_update_tags().set_tags(Some(tags)).send().await;
        noted.doing("autoscaling:CreateOrUpdateTags", || format!("noting that {name} is held")).map(drop)
    }

    pub(super) async fn suspend_scaling(&self, name: &str) -> Result<()> {
        let processes = SCALING.map(str::to_owned).into();
        let suspend = self.groups.suspend_processes().auto_scaling_group_name(name);
        let suspended = suspend.set_scaling_processes(Some(processes)).send().await;
        suspended.doing("autoscaling:SuspendProcesses", || format!("holding {name} at its size")).map(drop)
    }

    /// Resumes what was not suspended before the group was held.
    pub(super) async fn resume_scaling(&self, group: &AutoScalingGroup) -> Result<()> {
        let before: BTreeSet<_> = tag_of(group, SUSPENDED).unwrap_or_default().split(' ').collect();
        let processes: Vec<_> =
            SCALING.into_iter().filter(|process| !before.contains(process)).map(str::to_owned).collect();
        if processes.is_empty() {
            // Without any it would resume all.
            return Ok(());
        }
        let name = name_of(group);
        let resume = self.groups.resume_processes().auto_scaling_group_name(name);
        let resumed = resume.set_scaling_processes(Some(processes)).send().await;
        resumed.doing("autoscaling:ResumeProcesses", || format!("giving {name} back to its own scaling")).map(drop)
    }

    pub(super) async fn forget_hold(&self, name: &str) -> Result<()> {
        let tags = [SUSPENDED, EXPIRES]
            .map(|key| Tag::builder().resource_id(name).resource_type("auto-scaling-group").key(key).build());
        let forgotten = self.groups.delete_tags().set_tags(Some(tags.into())).send().await;
        forgotten.doing("autoscaling:DeleteTags", || format!("noting that {name} is held no longer")).map(drop)
    }
}

/// Whether all scaling of the group is suspended.
pub fn is_still(group: &AutoScalingGroup) -> bool {
    let suspended = suspended(group);
    SCALING.iter().all(|process| suspended.contains(process))
}
