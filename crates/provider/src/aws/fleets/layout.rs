//! What divides a service's traffic between its groups.

use manifest::BalancerKind;

use crate::ServiceSpec;

/// The share in percent of what has this weight, where all weights sum up to `all`; none has any if that is 0.
pub fn percent(weight: i64, all: i64) -> u8 {
    let percent = (weight * 100 + all / 2).checked_div(all).unwrap_or_default();
    u8::try_from(percent).unwrap_or_default()
}

/// What divides a service's traffic between its groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// The listener of one application balancer, by the weights of target groups.
    Listener,
    /// One classic balancer: the group that is attached has all of it.
    Attachment,
    /// Weighted records of the service's DNS name, each of which points to the application balancer of a group.
    Records,
}

impl Layout {
    /// What the service's specification asks for.
    pub fn of(spec: &ServiceSpec) -> Self {
        let balancer = &spec.aws.balancer;
        match (balancer.kind.unwrap_or_default(), balancer.per_group.unwrap_or_default()) {
            (BalancerKind::Application, false) => Self::Listener,
            (BalancerKind::Application, true) => Self::Records,
            (BalancerKind::Classic, _) => Self::Attachment,
        }
    }
}
