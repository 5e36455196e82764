//! Classic Load Balancers: they know instances and no shares.
//!
//! All traffic goes to one group, the carrier, whose name is a tag of the balancer. A switch attaches the new group,
//! waits until the balancer has all its instances in service, changes the tag, and then lets the old one's drain: so a
//! switch that was stopped before that is seen as not made. An instance gets no request before the balancer's own checks have
//! passed, so while it waits only such instances answer as can.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_sdk_autoscaling::types::AutoScalingGroup;
use aws_sdk_elasticloadbalancing::types::{
    ConnectionDraining, HealthCheck, InstanceState, Listener, LoadBalancerAttributes, LoadBalancerDescription, Tag,
    TagDescription, TagKeyOnly,
};
use manifest::Scheme;

use super::application::{self, CHECK_INTERVAL};
use super::groups;
use super::names::{self, SERVICE};
use crate::aws::Aws;
use crate::aws::failure::{Explain, is_not_found};
use crate::aws::lease::STAGE;
use crate::aws::wait;
use crate::{MemberHealth, NotHealthy, ServiceSpec};

/// Tag of a balancer: the group that has the traffic.
const CARRIER: &str = "kiln:carrier";
/// How long an answer to a check may take, in seconds: less than the interval.
const CHECK_TIMEOUT: i32 = 4;
/// Checks that change what the balancer thinks of an instance: the fewest that there are.
const THRESHOLD: i32 = 2;
/// How long open requests are given, in seconds: the default of connection draining.
const DRAINING: i32 = 300;
/// How long the balancer may take until it has a group's instances in service: they have booted before, and two of
/// its checks are to pass.
const IN_SERVICE: Duration = Duration::from_secs(60);
/// How long until a group has left: draining, and some.
const LEFT: Duration = Duration::from_secs(300 + 60);

impl Aws {
    /// The service's classic balancer, if it is there.
    pub(super) async fn classic(&self, service: &str) -> Result<Option<LoadBalancerDescription>> {
        let name = names::short(service);
        match self.classic_balancers.describe_load_balancers().load_balancer_names(&name).send().await {
            Ok(found) => Ok(found.load_balancer_descriptions.unwrap_or_default().pop()),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error)
                .doing("elasticloadbalancing:DescribeLoadBalancers", || format!("looking for the balancer {name}")),
        }
    }

    /// The group that has the traffic.
    pub(super) async fn carrier(&self, service: &str) -> Result<Option<String>> {
        let name = names::short(service);
        let found = match self.classic_balancers.describe_tags().load_balancer_names(&name).send().await {
            Err(error) if is_not_found(&error) => return Ok(None),
            found => {
                found.doing("elasticloadbalancing:DescribeTags", || format!("asking who has the traffic of {name}"))?
            }
        };
        let tags = found.tag_descriptions().iter().flat_map(TagDescription::tags);
        let mut carriers = tags.filter(|tag| tag.key() == CARRIER).filter_map(|tag| tag.value().map(str::to_owned));
        Ok(carriers.next())
    }

    pub(super) async fn make_classic(&self, spec: &ServiceSpec) -> Result<()> {
        let (balancer, name) = (&spec.aws.balancer, names::short(&spec.name));
        let certificate = balancer.certificate.clone();
        let listener = Listener::builder()
            .protocol(if certificate.is_some() { "HTTPS" } else { "HTTP" })
            .load_balancer_port(application::port(spec).into())
            .instance_protocol("HTTP")
            .instance_port(spec.port.into())
            .set_ssl_certificate_id(certificate)
            .build()?;
        let internal = balancer.scheme == Some(Scheme::Internal);
        let make = self
            .classic_balancers
            .create_load_balancer()
            .load_balancer_name(&name)
            .listeners(listener)
            .set_subnets(Some(super::balancer_subnets(spec).to_vec()))
            .set_security_groups(Some(balancer.security_groups.clone()).filter(|groups| !groups.is_empty()))
            .set_scheme(internal.then(|| "internal".to_owned()))
            .tags(Tag::builder().key(SERVICE).value(&spec.name).build()?)
            .tags(Tag::builder().key(STAGE).value("deployer").build()?);
        let what = || format!("creating the balancer {name}");
        make.send().await.doing("elasticloadbalancing:CreateLoadBalancer", what).map(drop)
    }

    fn health_check(spec: &ServiceSpec) -> Result<HealthCheck> {
        let check = HealthCheck::builder()
            .target(format!("HTTP:{}{}", spec.port, spec.health))
            .interval(i32::try_from(CHECK_INTERVAL.as_secs())?)
            .timeout(CHECK_TIMEOUT)
            .healthy_threshold(THRESHOLD)
            .unhealthy_threshold(THRESHOLD);
        Ok(check.build()?)
    }

    pub(super) async fn is_checking(&self, spec: &ServiceSpec) -> Result<bool> {
        let check = Self::health_check(spec)?;
        Ok(self.classic(&spec.name).await?.is_some_and(|balancer| balancer.health_check() == Some(&check)))
    }

    pub(super) async fn check_health(&self, spec: &ServiceSpec) -> Result<()> {
        let name = names::short(&spec.name);
        let configure = self.classic_balancers.configure_health_check().load_balancer_name(&name);
        let configured = configure.health_check(Self::health_check(spec)?).send().await;
        configured
            .doing("elasticloadbalancing:ConfigureHealthCheck", || format!("having {name} check {}", spec.health))
            .map(drop)
    }

    pub(super) async fn is_draining(&self, service: &str) -> Result<bool> {
        let name = names::short(service);
        match self.classic_balancers.describe_load_balancer_attributes().load_balancer_name(&name).send().await {
            Ok(found) => {
                let attributes = found.load_balancer_attributes();
                Ok(attributes.and_then(|it| it.connection_draining()).is_some_and(ConnectionDraining::enabled))
            }
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error).doing("elasticloadbalancing:DescribeLoadBalancerAttributes", || {
                format!("asking whether {name} drains connections")
            }),
        }
    }

    pub(super) async fn enable_draining(&self, service: &str) -> Result<()> {
        let name = names::short(service);
        let draining = ConnectionDraining::builder().enabled(true).timeout(DRAINING).build();
        let attributes = LoadBalancerAttributes::builder().connection_draining(draining).build();
        let modify = self.classic_balancers.modify_load_balancer_attributes().load_balancer_name(&name);
        let modified = modify.load_balancer_attributes(attributes).send().await;
        modified
            .doing("elasticloadbalancing:ModifyLoadBalancerAttributes", || format!("having {name} drain connections"))
            .map(drop)
    }

    /// What the balancer says of the group's instances. None are listed that it does not know.
    pub(super) async fn instance_health(&self, balancer: &str) -> Result<Vec<InstanceState>> {
        match self.classic_balancers.describe_instance_health().load_balancer_name(balancer).send().await {
            Ok(found) => Ok(found.instance_states.unwrap_or_default()),
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            Err(error) => Err(error).doing("elasticloadbalancing:DescribeInstanceHealth", || {
                format!("asking for the health of the instances of {balancer}")
            }),
        }
    }

    /// Whether all instances of an attached group are in service.
    pub(super) async fn is_in_service(&self, service: &str, group: &str) -> Result<bool> {
        let name = names::short(service);
        let Some(group) = self.group(group).await? else { return Ok(false) };
        if !group.load_balancer_names().contains(&name) || group.instances().is_empty() {
            return Ok(false);
        }
        let states = self.instance_health(&name).await?;
        let in_service = |id: &str| states.iter().any(|it| it.instance_id() == Some(id) && is_in_service(it));
        Ok(group.instances().iter().all(|it| it.instance_id().is_some_and(in_service)))
    }

    /// Attaches the group and waits until the balancer has all its instances in service. Where that takes too long, it
    /// is taken off again.
    pub(super) async fn attach(&self, service: &str, group: &str) -> Result<()> {
        let name = names::short(service);
        let attach = self.groups.attach_load_balancers().auto_scaling_group_name(group).load_balancer_names(&name);
        let attached = attach.send().await;
        attached.doing("autoscaling:AttachLoadBalancers", || format!("attaching {group} to {name}"))?;
        let begun = Instant::now();
        let what = format!("the instances of {group} to be in service");
        let all = wait::until(&what, IN_SERVICE * 2, async || {
            let (all, is_over) = (self.is_in_service(service, group).await?, begun.elapsed() >= IN_SERVICE);
            Ok((all || is_over).then_some(all))
        });
        if all.await? {
            return Ok(());
        }
        self.detach(service, group).await?;
        let within = IN_SERVICE.as_secs();
        Err(NotHealthy(format!("{name} did not have all instances of {group} in service within {within} s")).into())
    }

    /// Whether the group is not attached, and not leaving either.
    pub(super) async fn has_left(&self, service: &str, group: &str) -> Result<bool> {
        let Some(present) = self.group(group).await? else { return Ok(true) };
        let name = names::short(service);
        if present.load_balancer_names().contains(&name) {
            return Ok(false);
        }
        // While its instances drain, its state there is `Removing`.
        let found =
            self.groups.describe_load_balancers().auto_scaling_group_name(groups::name_of(&present)).send().await;
        let found =
            found.doing("autoscaling:DescribeLoadBalancers", || format!("asking whether {group} has left {name}"))?;
        Ok(!found.load_balancers().iter().any(|it| it.load_balancer_name() == Some(&name)))
    }

    /// Has the group leave the balancer, and waits until its instances have drained.
    pub(super) async fn detach(&self, service: &str, group: &str) -> Result<()> {
        let name = names::short(service);
        let Some(present) = self.group(group).await? else { return Ok(()) };
        if present.load_balancer_names().contains(&name) {
            let detach = self.groups.detach_load_balancers().auto_scaling_group_name(group).load_balancer_names(&name);
            let detached = detach.send().await;
            detached.doing("autoscaling:DetachLoadBalancers", || format!("taking {group} off {name}"))?;
        }
        let left = format!("the instances of {group} to have drained");
        wait::until(&left, LEFT, async || Ok(self.has_left(service, group).await?.then_some(()))).await
    }

    /// Notes which group has the traffic.
    pub(super) async fn note_carrier(&self, service: &str, carrier: Option<&str>) -> Result<()> {
        let name = names::short(service);
        let what = || format!("noting who has the traffic of {name}");
        match carrier {
            Some(group) => {
                let tag = Tag::builder().key(CARRIER).value(group).build()?;
                let noted = self.classic_balancers.add_tags().load_balancer_names(&name).tags(tag).send().await;
                noted.doing("elasticloadbalancing:AddTags", what).map(drop)
            }
            None => {
                let key = TagKeyOnly::builder().key(CARRIER).build();
                let noted = self.classic_balancers.remove_tags().load_balancer_names(&name).tags(key).send().await;
                noted.doing("elasticloadbalancing:RemoveTags", what).map(drop)
            }
        }
    }

    pub(super) async fn delete_classic(&self, service: &str) -> Result<()> {
        let name = names::short(service);
        let deleted = self.classic_balancers.delete_load_balancer().load_balancer_name(&name).send().await;
        deleted.doing("elasticloadbalancing:DeleteLoadBalancer", || format!("deleting the balancer {name}")).map(drop)
    }

    /// The carrier, if it is attached: whom somebody detached does not carry.
    pub(super) async fn attached_carrier(&self, service: &str, groups: &[AutoScalingGroup]) -> Result<Option<String>> {
        let name = names::short(service);
        let is_attached = |carrier: &String| {
            let mut attached = groups.iter().filter(|group| group.load_balancer_names().contains(&name));
            attached.any(|group| groups::name_of(group) == carrier)
        };
        Ok(self.carrier(service).await?.filter(is_attached))
    }
}

fn is_in_service(state: &InstanceState) -> bool {
    state.state() == Some("InService")
}

/// What the balancer says of an instance; of one that it does not check, what the group says.
pub fn health(
    instance: &aws_sdk_autoscaling::types::Instance,
    group: &AutoScalingGroup,
    states: &[InstanceState],
) -> (MemberHealth, String) {
    if group.load_balancer_names().is_empty() {
        let said = instance.health_status().unwrap_or_default();
        let health = if said == "Healthy" { MemberHealth::Healthy } else { MemberHealth::Unhealthy };
        return (health, format!("{said} by EC2's status checks"));
    }
    match states.iter().find(|it| it.instance_id() == instance.instance_id()) {
        None => (MemberHealth::Absent, String::new()),
        Some(state) => {
            let health = if is_in_service(state) { MemberHealth::Healthy } else { MemberHealth::Unhealthy };
            let words = [state.state(), state.description()];
            (health, words.into_iter().flatten().collect::<Vec<_>>().join(": "))
        }
    }
}

/// Where a classic balancer is.
pub fn name_of(balancer: LoadBalancerDescription) -> Result<super::alias::BalancerName> {
    Ok(super::alias::BalancerName {
        dns: balancer.dns_name.context("the balancer has no name")?,
        zone: balancer.canonical_hosted_zone_name_id.unwrap_or_default(),
    })
}
