//! Where instances are put on AWS.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an instance on AWS is, and where it is put. On the local provider none of it means anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Such as `t3.small`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Ids of subnets, one for each availability zone. Without any: the default ones of the region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub subnets: Vec<String>,
    /// Ids of security groups. Without any: that of the network by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub security_groups: Vec<String>,
    /// Name of the instance profile, which has the role that instances take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_profile: Option<String>,
}
