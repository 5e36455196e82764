//! What each verb of a fleet consists of: lists of changes, in the order in which they are made.

use std::collections::BTreeMap;

use jiff::Timestamp;
use manifest::BalancerKind;

use super::change::Change;
use super::{kind, names};
use crate::{GroupSpec, ServiceSpec};

pub fn creating_service(spec: &ServiceSpec) -> Vec<Change<'_>> {
    let balancer = match kind(spec) {
        BalancerKind::Application => {
            [Change::CreateTargetGroup(spec, None), Change::CreateBalancer(spec), Change::CreateListener(spec)]
        }
        BalancerKind::Classic => {
            [Change::CreateClassic(spec), Change::CheckHealth(spec), Change::EnableDraining(&spec.name)]
        }
    };
    [Change::Remember(spec)].into_iter().chain(balancer).chain([Change::PointName(spec)]).collect()
}

pub fn creating_group<'a>(service: &'a ServiceSpec, spec: &'a GroupSpec) -> Vec<Change<'a>> {
    let target_group = match kind(service) {
        BalancerKind::Application => {
            vec![Change::CreateTargetGroup(service, Some(&spec.name)), Change::List(&service.name, &spec.name)]
        }
        BalancerKind::Classic => Vec::new(),
    };
    let group = [Change::CreateTemplate(spec), Change::CreateGroup(spec, kind(service))];
    target_group.into_iter().chain(group).collect()
}

/// What gets traffic is held no longer: from before it has it.
pub fn dividing<'a>(spec: &'a ServiceSpec, weights: &'a BTreeMap<String, u8>) -> Vec<Change<'a>> {
    let service = &spec.name;
    let carrying = || weights.iter().filter(|(_, weight)| **weight > 0).map(|(group, _)| group.as_str());
    let freed = carrying().flat_map(freeing);
    match kind(spec) {
        BalancerKind::Application => freed.chain([Change::Divide(service, weights.clone())]).collect(),
        BalancerKind::Classic => {
            let others = weights.iter().filter(|(_, weight)| **weight == 0);
            let detached = others.map(|(group, _)| Change::Detach(service, group));
            let attached = carrying().map(|group| Change::Attach(service, group));
            freed.chain(attached).chain([Change::NoteCarrier(service, carrying().next())]).chain(detached).collect()
        }
    }
}

/// Of a switch that was stopped, the group may still be attached to a classic balancer.
pub fn holding<'a>(spec: &'a ServiceSpec, group: &'a str, until: Timestamp) -> Vec<Change<'a>> {
    let left = (kind(spec) == BalancerKind::Classic).then_some(Change::Detach(&spec.name, group));
    left.into_iter().chain([Change::NoteHold(group, until), Change::SuspendScaling(group)]).collect()
}

pub fn freeing(group: &str) -> Vec<Change<'_>> {
    vec![Change::ResumeScaling(group), Change::ForgetHold(group)]
}

/// The Auto Scaling group goes last: while it is there, so is the group.
pub fn destroying_group<'a>(spec: &'a ServiceSpec, group: &'a str) -> Vec<Change<'a>> {
    let service = &spec.name;
    let off = match kind(spec) {
        BalancerKind::Application => vec![
            Change::Unlist(service, group),
            Change::Drain(service, group),
            Change::DeleteTargetGroup(names::target_group(service, group)),
        ],
        BalancerKind::Classic => vec![Change::Detach(service, group)],
    };
    off.into_iter().chain([Change::DeleteTemplate(group), Change::DeleteGroup(group)]).collect()
}

/// The name goes first, so that nobody asks any more, and the balancer with its listener before what they forward to.
pub fn destroying_service<'a>(
    spec: &'a ServiceSpec,
    groups: impl Iterator<Item = &'a str> + Clone,
    target_groups: Vec<String>,
) -> Vec<Change<'a>> {
    let service = &spec.name;
    let mut changes = vec![Change::RemoveName(spec)];
    match kind(spec) {
        BalancerKind::Application => {
            changes.push(Change::DeleteBalancer(service));
            changes.extend(groups.clone().map(|group| Change::Drain(service, group)));
            changes.extend(target_groups.into_iter().map(Change::DeleteTargetGroup));
        }
        BalancerKind::Classic => {
            changes.extend(groups.clone().map(|group| Change::Detach(service, group)));
            changes.push(Change::DeleteClassic(service));
        }
    }
    changes.extend(groups.flat_map(|group| [Change::DeleteTemplate(group), Change::DeleteGroup(group)]));
    changes
}
