//! A service as it is at AWS at this moment.

use std::collections::BTreeMap;

use anyhow::Result;
use aws_sdk_autoscaling::types::AutoScalingGroup;
use jiff::Timestamp;

use super::layout::Layout;
use super::{application, classic, groups, names};
use crate::aws::Aws;
use crate::{Group, GroupSpec, Member, Service, ServiceSpec};

impl Aws {
    /// A service with its groups and their shares, read afresh.
    pub(super) async fn as_it_is(&self, spec: ServiceSpec) -> Result<Service> {
        let present = self.groups_of(&spec.name).await?;
        let mut shares = self.shares(&spec, &present).await?;
        let mut groups = BTreeMap::new();
        for group in &present {
            let name = groups::name_of(group);
            groups.insert(name.to_owned(), groups::read(group, shares.remove(name).unwrap_or_default())?);
        }
        // Who divides the traffic has to see whatever else gets some.
        let others = shares.into_iter().filter(|(_, weight)| *weight > 0);
        groups.extend(others.map(|(name, weight)| (name.clone(), foreign(&spec, name, weight))));
        let secure = spec.aws.balancer.certificate.is_some();
        let url = match (secure, application::port(&spec)) {
            (true, 443) => format!("https://{}/", spec.dns),
            (true, port) => format!("https://{}:{port}/", spec.dns),
            (false, 80) => format!("http://{}/", spec.dns),
            (false, port) => format!("http://{}:{port}/", spec.dns),
        };
        let check_interval = application::CHECK_INTERVAL;
        Ok(Service { url, spec, resolver: None, groups, running: true, check_interval })
    }

    /// The shares of the traffic in percent, by group; what belongs to none of them is under a name of its own.
    async fn shares(&self, spec: &ServiceSpec, present: &[AutoScalingGroup]) -> Result<BTreeMap<String, u8>> {
        match Layout::of(spec) {
            Layout::Listener => {
                let forward = self.forward(&spec.name).await?.unwrap_or_default();
                let groups = present.iter().map(groups::name_of);
                let of = |group| names::target_group(&spec.name, Some(group));
                let group_of: BTreeMap<_, _> = groups.map(|group| (of(group), group.to_owned())).collect();
                let nobody = names::target_group(&spec.name, None);
                let target_groups = forward.0.iter().map(application::Forwarded::name).filter(|name| *name != nobody);
                let group = |name: &str| group_of.get(name).cloned().unwrap_or_else(|| name.to_owned());
                Ok(target_groups.map(|name| (group(name), forward.share(name))).collect())
            }
            Layout::Records => Ok(self.weights(spec).await?.shares()),
            Layout::Attachment => {
                let carrier = self.attached_carrier(&spec.name, present).await?;
                Ok(carrier.into_iter().map(|carrier| (carrier, 100)).collect())
            }
        }
    }

    /// The instances of a group, with what its balancer says of them.
    pub(super) async fn members_of(&self, group: &AutoScalingGroup, layout: Layout) -> Result<Vec<Member>> {
        let (mut targets, mut states) = (Vec::new(), Vec::new());
        for arn in group.target_group_arns() {
            targets.extend(self.target_health(arn).await?);
        }
        for balancer in group.load_balancer_names() {
            states.extend(self.instance_health(balancer).await?);
        }
        let ids: Vec<_> = group.instances().iter().filter_map(|it| it.instance_id().map(str::to_owned)).collect();
        let instances = self.ec2_instances(ids).await?;
        let member = |its: &aws_sdk_autoscaling::types::Instance| {
            let id = its.instance_id();
            let instance = instances.iter().find(|it| it.instance_id() == id);
            let target = targets.iter().find(|it| it.target().and_then(|target| target.id()) == id);
            let (health, last_check) = match layout {
                Layout::Listener | Layout::Records => application::health(target),
                Layout::Attachment => classic::health(its, group, &states),
            };
            Member {
                instance: id.unwrap_or_default().to_owned(),
                state: groups::state(its.lifecycle_state(), instance),
                address: instance.and_then(|it| it.private_ip_address()?.parse().ok()),
                starts: 1,
                health,
                open_requests: None,
                weight: 0,
                last_check,
            }
        };
        Ok(group.instances().iter().map(member).collect())
    }
}

/// What gets traffic and is not ours, as a group without instances.
fn foreign(spec: &ServiceSpec, name: String, weight: u8) -> Group {
    Group {
        spec: GroupSpec {
            service: spec.name.clone(),
            name,
            image: String::new(),
            size: 0,
            initial: None,
            tags: BTreeMap::new(),
            aws: manifest::AwsFleet::default(),
        },
        resized: None,
        weight,
        created: Timestamp::UNIX_EPOCH,
    }
}
