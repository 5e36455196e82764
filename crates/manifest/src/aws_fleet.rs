//! What a fleet on AWS has around it: its instances' place, its balancer, its name.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Placement;

/// `[deploy.fleet.aws]`: where a fleet is put on AWS. On the local provider none of it means anything.
///
/// Every key is optional here, for an environment may say what the component leaves open; the AWS provider names the
/// ones that it misses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsFleet {
    /// Id of the network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vpc: Option<String>,
    /// Id or name of the Route 53 zone that has the service's DNS name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hosted_zone: Option<String>,
    /// How many seconds an answer with the service's DNS name may be kept, where each group has a balancer of its own.
    /// Default 60. An alias has 60, which nobody can change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_ttl: Option<u32>,
    /// How many instances a group may grow to. Default: as many as it begins with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_size: Option<u32>,
    /// What an instance is, and where it is put.
    #[serde(default, skip_serializing_if = "is_default")]
    pub instances: Placement,
    /// What stands before the instances.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balancer: AwsBalancer,
}

/// `[deploy.fleet.aws.balancer]`: what stands before the instances.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AwsBalancer {
    /// Default `application`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<BalancerKind>,
    /// Whether each group has a balancer of its own, and the service's DNS name divides the traffic between them, by
    /// weighted records. Default: one balancer stands before all groups and divides it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_group: Option<bool>,
    /// Whom it answers. Default `internet-facing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// Ids of its subnets. Default: those of the instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Ids of its security groups. Without any: that of the network by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// ARN of a certificate: with one it speaks HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}

/// A kind of balancer of AWS's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BalancerKind {
    /// An Application Load Balancer: traffic is shifted in steps.
    #[default]
    Application,
    /// A Classic Load Balancer: it knows no shares, traffic is switched in one step.
    Classic,
}

/// Whom a balancer answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    /// Everybody.
    #[default]
    InternetFacing,
    /// The network.
    Internal,
}

impl AwsFleet {
    /// These settings, with what they leave open taken from `all`.
    pub fn or(self, all: &Self) -> Self {
        let all = all.clone();
        Self {
            vpc: self.vpc.or(all.vpc),
            hosted_zone: self.hosted_zone.or(all.hosted_zone),
            record_ttl: self.record_ttl.or(all.record_ttl),
            max_size: self.max_size.or(all.max_size),
            instances: Placement {
                instance_type: self.instances.instance_type.or(all.instances.instance_type),
                subnets: either(self.instances.subnets, all.instances.subnets),
                security_groups: either(self.instances.security_groups, all.instances.security_groups),
                instance_profile: self.instances.instance_profile.or(all.instances.instance_profile),
            },
            balancer: AwsBalancer {
                kind: self.balancer.kind.or(all.balancer.kind),
                per_group: self.balancer.per_group.or(all.balancer.per_group),
                scheme: self.balancer.scheme.or(all.balancer.scheme),
                subnets: either(self.balancer.subnets, all.balancer.subnets),
                security_groups: either(self.balancer.security_groups, all.balancer.security_groups),
                certificate: self.balancer.certificate.or(all.balancer.certificate),
            },
        }
    }
}

fn either(own: Vec<String>, all: Vec<String>) -> Vec<String> {
    if own.is_empty() { all } else { own }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
