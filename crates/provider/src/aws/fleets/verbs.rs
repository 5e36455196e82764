//! What each verb of a fleet consists of: lists of changes, in the order in which they are made.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::change::Change;
use super::layout::Layout;
use super::names;
use crate::{GroupSpec, ServiceSpec};

/// Where each group has a balancer of its own, the first group brings the first balancer and the name.
pub fn creating_service(spec: &ServiceSpec) -> Vec<Change<'_>> {
    let mut changes = vec![Change::Remember(spec)];
    match Layout::of(spec) {
        Layout::Listener => {
            changes.extend([Change::CreateTargetGroup(spec, None), Change::CreateBalancer(spec, None)]);
            changes.extend([Change::CreateListener(spec, None), Change::PointName(spec)]);
        }
        Layout::Attachment => {
            changes.extend([Change::CreateClassic(spec), Change::CheckHealth(spec)]);
            changes.extend([Change::EnableDraining(&spec.name), Change::PointName(spec)]);
        }
        Layout::Records => {}
    }
    changes
}

pub fn creating_group<'a>(service: &'a ServiceSpec, spec: &'a GroupSpec) -> Vec<Change<'a>> {
    let (layout, name) = (Layout::of(service), spec.name.as_str());
    let mut changes = match layout {
        Layout::Listener => vec![Change::CreateTargetGroup(service, Some(name)), Change::List(&service.name, name)],
        Layout::Attachment => Vec::new(),
        Layout::Records => vec![
            Change::CreateTargetGroup(service, Some(name)),
            Change::CreateBalancer(service, Some(name)),
            Change::CreateListener(service, Some(name)),
        ],
    };
    changes.extend([Change::CreateTemplate(spec), Change::CreateGroup(spec, layout)]);
    changes
}

/// What gets traffic is held no longer: from before it has it.
pub fn dividing<'a>(spec: &'a ServiceSpec, weights: &'a BTreeMap<String, u8>) -> Vec<Change<'a>> {
    let service = &spec.name;
    let carrying = || weights.iter().filter(|(_, weight)| **weight > 0).map(|(group, _)| group.as_str());
    let mut changes: Vec<_> = carrying().flat_map(freeing).collect();
    match Layout::of(spec) {
        Layout::Listener => changes.push(Change::Divide(service, weights.clone())),
        Layout::Records => changes.push(Change::DivideName(spec, weights.clone())),
        Layout::Attachment => {
            changes.extend(carrying().map(|group| Change::Attach(service, group)));
            changes.push(Change::NoteCarrier(service, carrying().next()));
            let others = weights.iter().filter(|(_, weight)| **weight == 0);
            changes.extend(others.map(|(group, _)| Change::Detach(service, group)));
        }
    }
    changes
}

/// Of a switch that was stopped, the group may still be attached to a classic balancer.
pub fn holding<'a>(spec: &'a ServiceSpec, group: &'a str, until: Timestamp) -> Vec<Change<'a>> {
    let left = (Layout::of(spec) == Layout::Attachment).then_some(Change::Detach(&spec.name, group));
    left.into_iter().chain([Change::NoteHold(group, until), Change::SuspendScaling(group)]).collect()
}

pub fn freeing(group: &str) -> Vec<Change<'_>> {
    vec![Change::ResumeScaling(group), Change::ForgetHold(group)]
}

/// The Auto Scaling group goes last: while it is there, so is the group.
pub fn destroying_group<'a>(spec: &'a ServiceSpec, group: &'a str) -> Vec<Change<'a>> {
    let service = &spec.name;
    let mut changes = match Layout::of(spec) {
        Layout::Listener => vec![Change::Unlist(service, group), Change::Drain(service, group)],
        Layout::Attachment => vec![Change::Detach(service, group)],
        Layout::Records => vec![
            Change::TakeOffName(spec, group),
            Change::Drain(service, group),
            Change::DeleteBalancer(names::balancer(service, Some(group))),
        ],
    };
    if Layout::of(spec) != Layout::Attachment {
        changes.push(Change::DeleteTargetGroup(names::target_group(service, Some(group))));
    }
    changes.extend([Change::DeleteTemplate(group), Change::DeleteGroup(group)]);
    changes
}

/// The name goes first, so that nobody asks any more, and a balancer with its listener before what they forward to.
///
/// `target_groups` are the names of all that there are of the service. A group's own balancer is called as its target
/// group is, which was there first.
pub fn destroying_service<'a>(
    spec: &'a ServiceSpec,
    groups: impl Iterator<Item = &'a str> + Clone,
    target_groups: Vec<String>,
) -> Vec<Change<'a>> {
    let service = &spec.name;
    let mut changes = vec![Change::RemoveName(spec)];
    match Layout::of(spec) {
        Layout::Listener => changes.push(Change::DeleteBalancer(names::balancer(service, None))),
        Layout::Records => changes.extend(target_groups.iter().cloned().map(Change::DeleteBalancer)),
        Layout::Attachment => {
            changes.extend(groups.clone().map(|group| Change::Detach(service, group)));
            changes.push(Change::DeleteClassic(service));
        }
    }
    if Layout::of(spec) != Layout::Attachment {
        changes.extend(groups.clone().map(|group| Change::Drain(service, group)));
        changes.extend(target_groups.into_iter().map(Change::DeleteTargetGroup));
    }
    changes.extend(groups.flat_map(|group| [Change::DeleteTemplate(group), Change::DeleteGroup(group)]));
    changes
}
