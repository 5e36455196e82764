//! What is changed at AWS, one call at a time.
//!
//! Every verb of the fleet is a list of changes that depends on nothing but what the verb was asked for. Each of them
//! finds out by itself whether it has been made, so that a verb which is run again after it was killed anywhere
//! makes those that are missing, and no other. The same lists are what `deployer plan` shows.

use std::collections::BTreeMap;
use std::fmt;

use super::alias::{self, BalancerName};
use super::layout::Layout;
use super::{application, classic, groups, names, parameters};
use crate::aws::Aws;
use crate::aws::failure::Explain;
use crate::{GroupSpec, ServiceSpec};
use anyhow::{Context, Result};
use aws_sdk_route53::types::ChangeAction;
use jiff::Timestamp;

/// A call that changes something.
#[derive(Debug, Clone)]
pub enum Change<'a> {
    /// What the service is to be is written down.
    Remember(&'a ServiceSpec),
    /// A target group: of this group of the service, or the one without targets.
    CreateTargetGroup(&'a ServiceSpec, Option<&'a str>),
    /// The service's application balancer, or that of one of its groups.
    CreateBalancer(&'a ServiceSpec, Option<&'a str>),
    /// Its listener, which forwards to the target group of the same.
    CreateListener(&'a ServiceSpec, Option<&'a str>),
    CreateClassic(&'a ServiceSpec),
    CheckHealth(&'a ServiceSpec),
    EnableDraining(&'a str),
    PointName(&'a ServiceSpec),
    /// The listener forwards to the group's target group as well, at weight 0 if it did not before.
    List(&'a str, &'a str),
    /// The traffic is divided: these shares change, and all at once.
    Divide(&'a str, BTreeMap<String, u8>),
    /// The same, by weighted records of the service's DNS name.
    DivideName(&'a ServiceSpec, BTreeMap<String, u8>),
    /// The group joins the classic balancer, which has all its instances in service then.
    Attach(&'a str, &'a str),
    /// The group leaves the classic balancer, and drains.
    Detach(&'a str, &'a str),
    /// Which group has the traffic of the classic balancer is written down.
    NoteCarrier(&'a str, Option<&'a str>),
    CreateTemplate(&'a GroupSpec),
    /// The Auto Scaling group, in a target group or, with a classic balancer, in nothing yet.
    CreateGroup(&'a GroupSpec, Layout),
    /// The listener forwards no more to the group's target group.
    Unlist(&'a str, &'a str),
    /// The group's instances leave its target group, and drain.
    Drain(&'a str, &'a str),
    DeleteTargetGroup(String),
    DeleteTemplate(&'a str),
    DeleteGroup(&'a str),
    /// The group's scaling is suspended: what was before is written down first.
    NoteHold(&'a str, Timestamp),
    SuspendScaling(&'a str),
    ResumeScaling(&'a str),
    ForgetHold(&'a str),
    /// The service's DNS name names the group's balancer no more.
    TakeOffName(&'a ServiceSpec, &'a str),
    RemoveName(&'a ServiceSpec),
    DeleteBalancer(String),
    DeleteClassic(&'a str),
    Forget(&'a str),
}

impl Change<'_> {
    /// The call, as policies name it.
    fn call(&self) -> &'static str {
        match self {
            Self::Remember(_) => "ssm:PutParameter",
            Self::CreateTargetGroup(..) => "elasticloadbalancing:CreateTargetGroup",
            Self::CreateBalancer(..) | Self::CreateClassic(_) => "elasticloadbalancing:CreateLoadBalancer",
            Self::CreateListener(..) => "elasticloadbalancing:CreateListener",
            Self::CheckHealth(_) => "elasticloadbalancing:ConfigureHealthCheck",
            Self::EnableDraining(_) => "elasticloadbalancing:ModifyLoadBalancerAttributes",
            Self::Attach(..) => "autoscaling:AttachLoadBalancers",
            Self::Detach(..) => "autoscaling:DetachLoadBalancers",
            Self::NoteCarrier(_, Some(_)) => "elasticloadbalancing:AddTags",
            Self::NoteCarrier(_, None) => "elasticloadbalancing:RemoveTags",
            Self::PointName(_) | Self::DivideName(..) | Self::TakeOffName(..) | Self::RemoveName(_) => {
                "route53:ChangeResourceRecordSets"
            }
            Self::List(..) | Self::Divide(..) | Self::Unlist(..) => "elasticloadbalancing:ModifyListener",
            Self::CreateTemplate(_) => "ec2:CreateLaunchTemplate",
            Self::CreateGroup(..) => "autoscaling:CreateAutoScalingGroup",
            Self::Drain(..) => "autoscaling:DetachLoadBalancerTargetGroups",
            Self::DeleteTargetGroup(_) => "elasticloadbalancing:DeleteTargetGroup",
            Self::DeleteTemplate(_) => "ec2:DeleteLaunchTemplate",
            Self::DeleteGroup(_) => "autoscaling:DeleteAutoScalingGroup",
            Self::NoteHold(..) => "autoscaling:CreateOrUpdateTags",
            Self::SuspendScaling(_) => "autoscaling:SuspendProcesses",
            Self::ResumeScaling(_) => "autoscaling:ResumeProcesses",
            Self::ForgetHold(_) => "autoscaling:DeleteTags",
            Self::DeleteBalancer(_) | Self::DeleteClassic(_) => "elasticloadbalancing:DeleteLoadBalancer",
            Self::Forget(_) => "ssm:DeleteParameters",
        }
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.call())?;
        match self {
            Self::Remember(spec) => f.write_str(&parameters::name(&spec.name, "service")),
            Self::CreateTargetGroup(spec, group) => f.write_str(&names::target_group(&spec.name, *group)),
            Self::CreateBalancer(spec, group) => f.write_str(&names::balancer(&spec.name, *group)),
            Self::CheckHealth(spec) => write!(f, "{} {}", names::short(&spec.name), spec.health),
            Self::EnableDraining(service) => write!(f, "{} connection draining", names::short(service)),
            Self::Attach(service, group) | Self::Detach(service, group) => {
                write!(f, "{group} {}", names::short(service))
            }
            Self::NoteCarrier(service, carrier) => {
                write!(f, "{} carrier {}", names::short(service), carrier.unwrap_or("none"))
            }
            Self::CreateListener(spec, group) => {
                write!(f, "{} port {}", names::balancer(&spec.name, *group), application::port(spec))
            }
            Self::CreateClassic(spec) => write!(f, "{} port {}", names::short(&spec.name), application::port(spec)),
            Self::PointName(spec) => write!(f, "UPSERT {} alias of {}", spec.dns, names::short(&spec.name)),
            Self::DivideName(spec, shares) => write!(f, "UPSERT {} {}", spec.dns, crate::shares(shares)),
            Self::TakeOffName(spec, group) => write!(f, "DELETE {} {group}", spec.dns),
            Self::RemoveName(spec) => write!(f, "DELETE {}", spec.dns),
            Self::Divide(service, shares) => {
                write!(f, "{} {}", names::short(service), crate::shares(shares))
            }
            Self::List(service, group) => write!(f, "{} with {group} 0 %", names::short(service)),
            Self::Unlist(service, group) => write!(f, "{} without {group}", names::short(service)),
            Self::CreateTemplate(spec) => write!(f, "{} version 1 image {}", spec.name, spec.image),
            Self::CreateGroup(spec, _) => {
                write!(f, "{} {} instances", spec.name, spec.initial.unwrap_or(spec.size))
            }
            Self::NoteHold(group, until) => write!(f, "{group} held until {until:.0}"),
            Self::DeleteTargetGroup(name) | Self::DeleteBalancer(name) => f.write_str(name),
            Self::DeleteClassic(service) => f.write_str(&names::short(service)),
            Self::Forget(service) => f.write_str(&parameters::path(service)),
            Self::Drain(_, group)
            | Self::DeleteTemplate(group)
            | Self::DeleteGroup(group)
            | Self::SuspendScaling(group)
            | Self::ResumeScaling(group)
            | Self::ForgetHold(group) => f.write_str(group),
        }
    }
}

impl Aws {
    /// Makes those changes that have not been made, in order.
    pub(super) async fn carry_out(&self, changes: Vec<Change<'_>>) -> Result<()> {
        for change in changes {
            if self.is_made(&change).await? {
                continue;
            }
            tracing::info!("{change}");
            if let Err(error) = self.make(&change).await {
                // A call whose answer was lost is tried again by the SDK, and then refused for what it has done.
                if !self.is_made(&change).await.is_ok_and(|made| made) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Those changes that have not been made, in words.
    pub(super) async fn missing(&self, changes: Vec<Change<'_>>) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for change in changes {
            if !self.is_made(&change).await? {
                missing.push(change.to_string());
            }
        }
        Ok(missing)
    }

    /// Whether a change has been made.
    async fn is_made(&self, change: &Change<'_>) -> Result<bool> {
        Ok(match change {
            Change::Remember(spec) => self.recorded(&spec.name).await?.as_ref() == Some(*spec),
            Change::CreateTargetGroup(spec, group) => {
                self.target_group(&names::target_group(&spec.name, *group)).await?.is_some()
            }
            Change::CreateBalancer(spec, group) => self.balancer(&names::balancer(&spec.name, *group)).await?.is_some(),
            Change::CreateListener(spec, group) => self.listener(&names::balancer(&spec.name, *group)).await?.is_some(),
            Change::CreateClassic(spec) => self.classic(&spec.name).await?.is_some(),
            Change::CheckHealth(spec) => self.is_checking(spec).await?,
            Change::EnableDraining(service) => self.is_draining(service).await?,
            Change::Attach(service, group) => self.is_in_service(service, group).await?,
            Change::Detach(service, group) => self.has_left(service, group).await?,
            Change::NoteCarrier(service, carrier) => self.carrier(service).await?.as_deref() == *carrier,
            Change::PointName(spec) => match self.balancer_name(spec).await? {
                Some(balancer) => self.is_named(spec, &balancer).await?,
                None => false,
            },
            Change::List(service, group) => self.is_listed(service, group).await?,
            Change::Divide(service, shares) => {
                self.forward(service).await?.is_some_and(|forward| forward.is_divided(service, shares))
            }
            // Answers of before have to run out, whoever began it.
            Change::DivideName(..) => false,
            Change::CreateTemplate(spec) => self.has_template(&spec.name).await?,
            Change::CreateGroup(spec, _) => self.group(&spec.name).await?.is_some(),
            Change::Unlist(service, group) => !self.is_listed(service, group).await?,
            // What drains has to be waited for, whoever began it.
            Change::Drain(service, group) => match self.target_group(&names::target_group(service, Some(group))).await?
            {
                Some(arn) => self.target_health(&arn).await?.is_empty(),
                None => true,
            },
            Change::DeleteTargetGroup(name) => self.target_group(name).await?.is_none(),
            Change::DeleteTemplate(group) => !self.has_template(group).await?,
            Change::DeleteGroup(group) => self.group(group).await?.is_none(),
            Change::NoteHold(group, until) => self.group(group).await?.is_none_or(|group| {
                groups::held_until(&group).is_some_and(|held| held.as_second() == until.as_second())
            }),
            Change::SuspendScaling(group) => self.group(group).await?.is_none_or(|group| groups::is_still(&group)),
            Change::ResumeScaling(group) | Change::ForgetHold(group) => {
                self.group(group).await?.is_none_or(|group| !groups::is_held(&group))
            }
            Change::TakeOffName(spec, group) => !self.weights(spec).await?.contains(group),
            Change::RemoveName(spec) if Layout::of(spec) == Layout::Records => {
                self.weights(spec).await?.has_none_of(&spec.name)
            }
            Change::RemoveName(spec) => match self.balancer_name(spec).await? {
                Some(balancer) => {
                    let record = self.address_record(spec).await?;
                    record.is_none_or(|record| !alias::points_to(&record, &balancer))
                }
                None => true,
            },
            Change::DeleteBalancer(name) => self.balancer(name).await?.is_none(),
            Change::DeleteClassic(service) => self.classic(service).await?.is_none(),
            // It costs as much to find out as to do.
            Change::Forget(_) => false,
        })
    }

    /// Makes one change.
    async fn make(&self, change: &Change<'_>) -> Result<()> {
        match change {
            Change::Remember(spec) => {
                let name = parameters::name(&spec.name, "service");
                let spec_as_json = serde_json::to_string(spec)?;
                match self.create_parameter(&spec.name, &name, &spec_as_json).await {
                    Err(error) if parameters::is_taken(&error) => self.overwrite_parameter(&name, &spec_as_json).await,
                    created => created.doing("ssm:PutParameter", || format!("writing {name}")),
                }
            }
            Change::CreateTargetGroup(spec, group) => {
                self.make_target_group(spec, &names::target_group(&spec.name, *group), *group).await
            }
            Change::CreateBalancer(spec, group) => self.make_balancer(spec, *group).await,
            Change::CreateListener(spec, group) => self.make_listener(spec, *group).await,
            Change::CreateClassic(spec) => self.make_classic(spec).await,
            Change::CheckHealth(spec) => self.check_health(spec).await,
            Change::EnableDraining(service) => self.enable_draining(service).await,
            Change::Attach(service, group) => self.attach(service, group).await,
            Change::Detach(service, group) => self.detach(service, group).await,
            Change::NoteCarrier(service, carrier) => self.note_carrier(service, *carrier).await,
            Change::PointName(spec) => {
                let balancer = self.balancer_name(spec).await?;
                self.point_name(spec, &balancer.context("its balancer is gone")?).await
            }
            Change::List(service, group) => {
                let (listener, forward) = self.divided(service, &[((*group).to_owned(), 0)].into()).await?;
                self.modify_listener(service, &listener, &forward).await
            }
            Change::Divide(service, shares) => {
                let (listener, forward) = self.divided(service, shares).await?;
                self.modify_listener(service, &listener, &forward).await
            }
            Change::DivideName(spec, shares) => self.divide_name(spec, shares).await,
            Change::CreateTemplate(spec) => self.make_template(spec).await,
            Change::CreateGroup(spec, Layout::Attachment) => self.make_group(spec, None).await,
            Change::CreateGroup(spec, Layout::Listener | Layout::Records) => {
                let target_group = names::target_group(&spec.service, Some(&spec.name));
                self.make_group(spec, Some(self.present_target_group(&target_group).await?)).await
            }
            Change::Unlist(service, group) => {
                let (listener, forward) = self.without(service, &names::target_group(service, Some(group))).await?;
                self.modify_listener(service, &listener, &forward).await
            }
            Change::Drain(service, group) => {
                if let Some(group) = self.group(group).await?.filter(|group| !group.target_group_arns().is_empty()) {
                    self.leave_target_groups(&group).await?;
                }
                self.drained(&names::target_group(service, Some(group))).await
            }
            Change::DeleteTargetGroup(name) => self.delete_target_group(name).await,
            Change::DeleteTemplate(group) => self.delete_template(group).await,
            Change::DeleteGroup(group) => self.delete_group(group).await,
            Change::NoteHold(group, until) => match self.group(group).await? {
                Some(group) => self.note_hold(&group, *until).await,
                None => Ok(()),
            },
            Change::SuspendScaling(group) => self.suspend_scaling(group).await,
            Change::ResumeScaling(group) => match self.group(group).await? {
                Some(group) => self.resume_scaling(&group).await,
                None => Ok(()),
            },
            Change::ForgetHold(group) => self.forget_hold(group).await,
            Change::TakeOffName(spec, group) => self.take_off_name(spec, group).await,
            Change::RemoveName(spec) if Layout::of(spec) == Layout::Records => self.remove_weights(spec).await,
            Change::RemoveName(spec) => match self.address_record(spec).await? {
                Some(record) => self.change_records(spec, [(ChangeAction::Delete, record)]).await,
                None => Ok(()),
            },
            Change::DeleteBalancer(name) => self.delete_balancer(name).await,
            Change::DeleteClassic(service) => self.delete_classic(service).await,
            Change::Forget(service) => self.forget(service).await,
        }
    }

    async fn is_listed(&self, service: &str, group: &str) -> Result<bool> {
        let forward = self.forward(service).await?;
        Ok(forward.is_some_and(|forward| forward.weight(&names::target_group(service, Some(group))).is_some()))
    }

    /// Where the service's balancer is, if it is there.
    async fn balancer_name(&self, spec: &ServiceSpec) -> Result<Option<BalancerName>> {
        if Layout::of(spec) == Layout::Attachment {
            return self.classic(&spec.name).await?.map(classic::name_of).transpose();
        }
        let balancer = self.balancer(&names::balancer(&spec.name, None)).await?;
        Ok(balancer.map(|it| BalancerName {
            dns: it.dns_name.unwrap_or_default(),
            zone: it.canonical_hosted_zone_id.unwrap_or_default(),
        }))
    }
}
