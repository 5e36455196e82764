//! Application Load Balancers: one for a service, a target group for each of its groups, and a listener that divides
//! the traffic between these. Or one for each group, whose listener forwards to the group's target group.
//!
//! The only action of a service's listener always forwards, to every group's target group at its weight and to one that never has
//! targets. That one has all the weight while no group has any, so that the shares never add up to nothing, and it
//! answers 503 then. A target group is only checked for health while a listener forwards to it, if at weight 0
//! ("Target health status", `Target.NotInUse`).

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_elasticloadbalancingv2::types::{
    Action, ActionTypeEnum, Certificate, ForwardActionConfig, LoadBalancer, LoadBalancerSchemeEnum,
    LoadBalancerStateEnum, LoadBalancerTypeEnum, Matcher, ProtocolEnum, Tag, TargetGroupTuple, TargetHealthDescription,
    TargetHealthReasonEnum, TargetHealthStateEnum, TargetTypeEnum,
};
use manifest::Scheme;

use super::layout::percent;
use super::names::{self, GROUP, SERVICE};
use crate::aws::Aws;
use crate::aws::failure::{Explain, code, is_not_found};
use crate::aws::lease::STAGE;
use crate::aws::wait;
use crate::{MemberHealth, ServiceSpec};

/// How far apart two checks of a target's health are: the shortest that there is ("Health check settings").
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long an answer to a check may take, in seconds: less than the interval.
const CHECK_TIMEOUT: i32 = 4;
/// Checks that change what the balancer thinks of a target: the fewest that there are.
const THRESHOLD: i32 = 2;
/// How long a balancer may take to be active: minutes as a rule.
const ACTIVE: Duration = Duration::from_secs(600);
/// How long open requests are given: the default of `deregistration_delay.timeout_seconds`, and some.
const DRAINED: Duration = Duration::from_secs(300 + 60);
/// All of the traffic.
const ALL: i32 = 100;

/// What a listener forwards to: target groups with their weights.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forward(pub Vec<Forwarded>);

/// A target group that a listener forwards to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    /// Its ARN.
    pub arn: String,
    /// Its weight.
    pub weight: i32,
}

impl Forwarded {
    /// The target group's name.
    pub fn name(&self) -> &str {
        names::of_target_group(&self.arn)
    }
}

impl Forward {
    /// The weight of a target group, if it is forwarded to.
    pub fn weight(&self, name: &str) -> Option<i32> {
        self.0.iter().find(|it| it.name() == name).map(|it| it.weight)
    }

    /// The share of a target group in percent.
    pub fn share(&self, name: &str) -> u8 {
        let all: i32 = self.0.iter().map(|it| it.weight).sum();
        percent(self.weight(name).unwrap_or_default().into(), all.into())
    }

    /// Whether groups of the service have these shares in percent, and nobody what they leave.
    pub fn is_divided(&self, service: &str, shares: &BTreeMap<String, u8>) -> bool {
        let weight = |group| self.weight(&names::target_group(service, Some(group))).unwrap_or_default();
        let mut balanced = self.clone();
        balanced.balance(&names::target_group(service, None));
        shares.iter().all(|(group, share)| weight(group) == i32::from(*share)) && *self == balanced
    }

    /// Gives a target group a weight.
    fn set(&mut self, arn: &str, weight: i32) {
        match self.0.iter_mut().find(|it| it.arn == arn) {
            Some(present) => present.weight = weight,
            None => self.0.push(Forwarded { arn: arn.to_owned(), weight }),
        }
    }

    /// Gives the target group without targets what nobody else has.
    fn balance(&mut self, nobody: &str) {
        let others: i32 = self.0.iter().filter(|it| it.name() != nobody).map(|it| it.weight).sum();
        if let Some(nobody) = self.0.iter_mut().find(|it| it.name() == nobody) {
            nobody.weight = if others == 0 { ALL } else { 0 };
        }
    }

    fn action(&self) -> Action {
        let tuple = |it: &Forwarded| TargetGroupTuple::builder().target_group_arn(&it.arn).weight(it.weight).build();
        let config = ForwardActionConfig::builder().set_target_groups(Some(self.0.iter().map(tuple).collect())).build();
        Action::builder().r#type(ActionTypeEnum::Forward).forward_config(config).build()
    }
}

/// A listener, with what it forwards to. `None`: it does something else, which we never told it.
#[derive(Debug, Clone)]
pub struct Listener {
    arn: String,
    pub forward: Option<Forward>,
}

/// The tags of what belongs to a service, or to one of its groups.
fn tags(service: &str, group: Option<&str>) -> Vec<Tag> {
    let of = |key: &str, value: &str| Tag::builder().key(key).value(value).build();
    [of(SERVICE, service), of(STAGE, "deployer")].into_iter().chain(group.map(|it| of(GROUP, it))).collect()
}

/// The port on which the service's balancer listens.
pub fn port(spec: &ServiceSpec) -> u16 {
    spec.listen.unwrap_or(if spec.aws.balancer.certificate.is_some() { 443 } else { 80 })
}

impl Aws {
    /// The balancer with this name, if it is there.
    pub(super) async fn balancer(&self, name: &str) -> Result<Option<LoadBalancer>> {
        match self.balancers.describe_load_balancers().names(name).send().await {
            Ok(found) => Ok(found.load_balancers.unwrap_or_default().pop()),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error)
                .doing("elasticloadbalancing:DescribeLoadBalancers", || format!("looking for the balancer {name}")),
        }
    }

    /// A balancer that has been made.
    pub(super) async fn present_balancer(&self, name: &str) -> Result<LoadBalancer> {
        let known = format!("the balancer {name} to be known");
        wait::until(&known, wait::KNOWN_EVERYWHERE, async || self.balancer(name).await).await
    }

    /// The listener of the balancer with this name, if it is there.
    pub(super) async fn listener(&self, balancer: &str) -> Result<Option<Listener>> {
        let Some(found) = self.balancer(balancer).await? else { return Ok(None) };
        let arn = found.load_balancer_arn().unwrap_or_default();
        let found = self.balancers.describe_listeners().load_balancer_arn(arn).send().await;
        let what = || format!("looking for the listener of {balancer}");
        let found = match found {
            Err(error) if is_not_found(&error) => return Ok(None),
            found => found.doing("elasticloadbalancing:DescribeListeners", what)?,
        };
        let listener = found.listeners.unwrap_or_default().pop();
        Ok(listener.map(|listener| Listener {
            forward: listener.default_actions().first().and_then(forward_in),
            arn: listener.listener_arn.unwrap_or_default(),
        }))
    }

    /// What the service's listener forwards to; `None`: it is not there, or does something else.
    pub(super) async fn forward(&self, service: &str) -> Result<Option<Forward>> {
        Ok(self.listener(&names::balancer(service, None)).await?.and_then(|listener| listener.forward))
    }

    /// The ARN of the target group with this name, if it is there.
    pub(super) async fn target_group(&self, name: &str) -> Result<Option<String>> {
        match self.balancers.describe_target_groups().names(name).send().await {
            Ok(found) => Ok(found.target_groups.unwrap_or_default().pop().and_then(|group| group.target_group_arn)),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error)
                .doing("elasticloadbalancing:DescribeTargetGroups", || format!("looking for the target group {name}")),
        }
    }

    /// The ARN of a target group that has been made.
    pub(super) async fn present_target_group(&self, name: &str) -> Result<String> {
        let known = format!("the target group {name} to be known");
        wait::until(&known, wait::KNOWN_EVERYWHERE, async || self.target_group(name).await).await
    }

    /// The names of all target groups of the service, also of those that nothing forwards to.
    pub(super) async fn target_groups(&self, service: &str) -> Result<Vec<String>> {
        let pages: Result<Vec<_>, _> = self.balancers.describe_target_groups().into_paginator().send().collect().await;
        let pages = pages
            .doing("elasticloadbalancing:DescribeTargetGroups", || format!("looking for target groups of {service}"))?;
        let all = pages.into_iter().flat_map(|page| page.target_groups.unwrap_or_default());
        let (short, nobody) = (names::short(service), names::target_group(service, None));
        let is_its = |name: &String| *name == nobody || names::is_group(&short, name);
        Ok(all.filter_map(|group| group.target_group_name).filter(is_its).collect())
    }

    pub(super) async fn make_target_group(&self, spec: &ServiceSpec, name: &str, group: Option<&str>) -> Result<()> {
        let make = self
            .balancers
            .create_target_group()
            .name(name)
            .protocol(ProtocolEnum::Http)
            .port(spec.port.into())
            .set_vpc_id(spec.aws.vpc.clone())
            .target_type(TargetTypeEnum::Instance)
            .health_check_protocol(ProtocolEnum::Http)
            .health_check_path(&spec.health)
            .health_check_interval_seconds(i32::try_from(CHECK_INTERVAL.as_secs())?)
            .health_check_timeout_seconds(CHECK_TIMEOUT)
            .healthy_threshold_count(THRESHOLD)
            .unhealthy_threshold_count(THRESHOLD)
            .matcher(Matcher::builder().http_code("200").build())
            .set_tags(Some(tags(&spec.name, group)));
        let what = || format!("creating the target group {name}");
        make.send().await.doing("elasticloadbalancing:CreateTargetGroup", what).map(drop)
    }

    /// Makes the balancer of the service, or of one of its groups.
    pub(super) async fn make_balancer(&self, spec: &ServiceSpec, group: Option<&str>) -> Result<()> {
        let name = names::balancer(&spec.name, group);
        let balancer = &spec.aws.balancer;
        let scheme = match balancer.scheme.unwrap_or_default() {
            Scheme::InternetFacing => LoadBalancerSchemeEnum::InternetFacing,
            Scheme::Internal => LoadBalancerSchemeEnum::Internal,
        };
        let make = self
            .balancers
            .create_load_balancer()
            .name(&name)
            .r#type(LoadBalancerTypeEnum::Application)
            .scheme(scheme)
            .set_subnets(Some(super::balancer_subnets(spec).to_vec()))
            .set_security_groups(Some(balancer.security_groups.clone()).filter(|groups| !groups.is_empty()))
            .set_tags(Some(tags(&spec.name, group)));
        let what = || format!("creating the balancer {name}");
        make.send().await.doing("elasticloadbalancing:CreateLoadBalancer", what).map(drop)
    }

    /// Waits until the balancer answers.
    pub(super) async fn active(&self, name: &str) -> Result<LoadBalancer> {
        wait::until(&format!("the balancer {name} to be active"), ACTIVE, async || {
            let balancer = self.present_balancer(name).await?;
            let state = balancer.state().and_then(|state| state.code());
            match state {
                Some(LoadBalancerStateEnum::Failed) => {
                    let why = balancer.state().and_then(|state| state.reason()).unwrap_or("AWS gives no reason");
                    bail!("the balancer {name} could not be made: {why}")
                }
                Some(LoadBalancerStateEnum::Provisioning) => Ok(None),
                _ => Ok(Some(balancer)),
            }
        })
        .await
    }

    /// Makes the listener of the service's balancer, or of one of its groups'.
    pub(super) async fn make_listener(&self, spec: &ServiceSpec, group: Option<&str>) -> Result<()> {
        let balancer = self.present_balancer(&names::balancer(&spec.name, group)).await?;
        let mut forward = Forward::default();
        forward.set(&self.present_target_group(&names::target_group(&spec.name, group)).await?, ALL);
        let certificate = spec.aws.balancer.certificate.as_ref();
        let make = self
            .balancers
            .create_listener()
            .set_load_balancer_arn(balancer.load_balancer_arn)
            .port(port(spec).into())
            .protocol(if certificate.is_some() { ProtocolEnum::Https } else { ProtocolEnum::Http })
            .set_certificates(certificate.map(|arn| vec![Certificate::builder().certificate_arn(arn).build()]))
            .default_actions(forward.action())
            .set_tags(Some(tags(&spec.name, group)));
        let what = || format!("creating the listener of {} on port {}", names::balancer(&spec.name, group), port(spec));
        make.send().await.doing("elasticloadbalancing:CreateListener", what).map(drop)
    }

    /// What the listener is to forward to: what it does now, but for these shares in percent.
    pub(super) async fn divided(&self, service: &str, shares: &BTreeMap<String, u8>) -> Result<(Listener, Forward)> {
        let (listener, mut forward) = self.forwarding(service).await?;
        for (group, share) in shares {
            let name = names::target_group(service, Some(group));
            let present = forward.0.iter().find(|it| it.name() == name).map(|it| it.arn.clone());
            let arn = match present {
                None if *share == 0 => self.target_group(&name).await?,
                None => Some(self.present_target_group(&name).await?),
                present => present,
            };
            // A group that is gone has no traffic.
            arn.iter().for_each(|arn| forward.set(arn, i32::from(*share)));
        }
        forward.balance(&names::target_group(service, None));
        Ok((listener, forward))
    }

    /// What the listener is to forward to without this target group.
    pub(super) async fn without(&self, service: &str, name: &str) -> Result<(Listener, Forward)> {
        let (listener, mut forward) = self.forwarding(service).await?;
        forward.0.retain(|it| it.name() != name);
        forward.balance(&names::target_group(service, None));
        Ok((listener, forward))
    }

    async fn forwarding(&self, service: &str) -> Result<(Listener, Forward)> {
        let known = format!("the listener of {service} to be known");
        let listener =
            wait::until(&known, wait::KNOWN_EVERYWHERE, async || self.listener(&names::balancer(service, None)).await)
                .await?;
        let forward = listener.forward.clone().with_context(|| {
            format!(
                "the listener of {service} forwards to no target groups: somebody else changed it; have it forward all \
                 to {}, or run `deployer destroy`, and run again",
                names::target_group(service, None)
            )
        })?;
        Ok((listener, forward))
    }

    /// Has the listener forward all as `forward` says, from one moment to the next.
    pub(super) async fn modify_listener(&self, service: &str, listener: &Listener, forward: &Forward) -> Result<()> {
        let modify = self.balancers.modify_listener().listener_arn(&listener.arn).default_actions(forward.action());
        let what = || format!("dividing the traffic of {service}");
        modify.send().await.doing("elasticloadbalancing:ModifyListener", what).map(drop)
    }

    /// What the balancer says of the targets in a target group: none if that is not there.
    pub(super) async fn target_health(&self, arn: &str) -> Result<Vec<TargetHealthDescription>> {
        match self.balancers.describe_target_health().target_group_arn(arn).send().await {
            Ok(found) => Ok(found.target_health_descriptions.unwrap_or_default()),
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            Err(error) => Err(error).doing("elasticloadbalancing:DescribeTargetHealth", || {
                format!("asking for the health of the targets in {}", names::of_target_group(arn))
            }),
        }
    }

    /// Waits until no target of the target group has requests any more, for as long as they are given.
    pub(super) async fn drained(&self, name: &str) -> Result<()> {
        let Some(arn) = self.target_group(name).await? else { return Ok(()) };
        wait::until(&format!("the instances of {name} to have drained"), DRAINED, async || {
            let left = self.target_health(&arn).await?;
            Ok(left.iter().all(|it| state_of(it) == Some(&TargetHealthStateEnum::Unused)).then_some(()))
        })
        .await
    }

    pub(super) async fn delete_target_group(&self, name: &str) -> Result<()> {
        let Some(arn) = self.target_group(name).await? else { return Ok(()) };
        // A listener that has just been deleted, or forwards to it no more, may seem to use it for a while.
        wait::until(&format!("the target group {name} to be in nobody's use"), wait::KNOWN_EVERYWHERE, async || {
            let deleted = self.balancers.delete_target_group().target_group_arn(&arn).send().await;
            match deleted {
                Err(error) if code(&error) == Some("ResourceInUse") => Ok(None),
                deleted => deleted
                    .doing("elasticloadbalancing:DeleteTargetGroup", || format!("deleting the target group {name}"))
                    .map(|_| Some(())),
            }
        })
        .await
    }

    pub(super) async fn delete_balancer(&self, name: &str) -> Result<()> {
        let Some(balancer) = self.balancer(name).await? else { return Ok(()) };
        let delete = self.balancers.delete_load_balancer().set_load_balancer_arn(balancer.load_balancer_arn);
        let what = || format!("deleting the balancer {name}");
        delete.send().await.doing("elasticloadbalancing:DeleteLoadBalancer", what).map(drop)
    }
}

fn forward_in(action: &Action) -> Option<Forward> {
    let of = |tuple: &TargetGroupTuple| {
        Some(Forwarded { arn: tuple.target_group_arn()?.to_owned(), weight: tuple.weight().unwrap_or(1) })
    };
    match (action.forward_config(), action.target_group_arn()) {
        (Some(config), _) => Some(Forward(config.target_groups().iter().filter_map(of).collect())),
        (None, Some(arn)) => Some(Forward(vec![Forwarded { arn: arn.to_owned(), weight: 1 }])),
        (None, None) => None,
    }
}

fn state_of(described: &TargetHealthDescription) -> Option<&TargetHealthStateEnum> {
    described.target_health()?.state()
}

/// What the balancer says of a target, and in which words.
pub fn health(described: Option<&TargetHealthDescription>) -> (MemberHealth, String) {
    let Some(described) = described else { return (MemberHealth::Absent, String::new()) };
    let health = match state_of(described) {
        Some(TargetHealthStateEnum::Healthy) => MemberHealth::Healthy,
        Some(TargetHealthStateEnum::Draining | TargetHealthStateEnum::UnhealthyDraining) => MemberHealth::Draining,
        Some(TargetHealthStateEnum::Unused) => MemberHealth::Absent,
        // Health checks that are off tell nothing.
        Some(TargetHealthStateEnum::Unavailable) | None => MemberHealth::Unknown,
        _ => MemberHealth::Unhealthy,
    };
    let said = described.target_health();
    let words = [
        state_of(described).map(TargetHealthStateEnum::as_str),
        said.and_then(|said| said.reason()).map(TargetHealthReasonEnum::as_str),
        said.and_then(|said| said.description()),
    ];
    (health, words.into_iter().flatten().collect::<Vec<_>>().join(": "))
}

#[cfg(test)]
mod tests {
    use aws_sdk_elasticloadbalancingv2::types::TargetHealth;

    use super::*;

    fn arn(name: &str) -> String {
        format!("arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/{name}/0123456789abcdef")
    }

    fn forward<const N: usize>(weights: [(&str, i32); N]) -> Forward {
        Forward(weights.map(|(name, weight)| Forwarded { arn: arn(name), weight }).into())
    }

    #[test]
    fn nobody_has_what_no_group_has() {
        let mut changed = forward([("hello-none", 100)]);
        changed.set(&arn("hello-v000"), 0);
        changed.balance("hello-none");
        assert_eq!(changed, forward([("hello-none", 100), ("hello-v000", 0)]));
        changed.set(&arn("hello-v000"), 100);
        changed.balance("hello-none");
        assert_eq!(changed, forward([("hello-none", 0), ("hello-v000", 100)]));
    }

    #[test]
    fn weights_of_any_sum_are_shares() {
        let foreign = forward([("hello-v000", 1), ("hello-v001", 2), ("other", 1)]);
        assert_eq!(["hello-v000", "hello-v001", "none"].map(|name| foreign.share(name)), [25, 50, 0]);
        assert_eq!(forward([("hello-v000", 0)]).share("hello-v000"), 0);
    }

    #[test]
    fn an_action_is_read_back_as_it_was_told() {
        let told = forward([("hello-none", 0), ("hello-v000", 90), ("hello-v001", 10)]);
        assert_eq!(forward_in(&told.action()), Some(told));
        let other = Action::builder().r#type(ActionTypeEnum::FixedResponse).build();
        assert_eq!(forward_in(&other), None);
    }

    #[test]
    fn only_a_healthy_target_is_healthy() {
        use TargetHealthStateEnum as State;
        let of = |state| {
            let said = TargetHealth::builder().state(state).build();
            health(Some(&TargetHealthDescription::builder().target_health(said).build())).0
        };
        assert_eq!(of(State::Healthy), MemberHealth::Healthy);
        assert_eq!([State::Draining, State::UnhealthyDraining].map(of), [MemberHealth::Draining; 2]);
        assert_eq!([State::Initial, State::Unhealthy].map(of), [MemberHealth::Unhealthy; 2]);
        assert_eq!(of(State::Unused), MemberHealth::Absent);
        assert_eq!(of(State::Unavailable), MemberHealth::Unknown);
        assert_eq!(health(None).0, MemberHealth::Absent);
    }
}
