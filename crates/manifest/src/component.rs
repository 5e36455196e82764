//! What a component says of itself in `component.toml`: what differs between
//! components, and nothing else.
//!
//! The same data travels in the manifest, so that a stage that runs on another
//! machine needs no checkout.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A component: one service that is built, baked, tested and deployed as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Name of the service: lower-case letters, digits and dashes, at most 32.
    pub name: String,
    /// How the artifact is built.
    pub build: Build,
    /// What the build made, and how an image installs it.
    pub package: Package,
    /// The image template.
    pub image: ImageRecipe,
    /// How an image is tested.
    pub test: Test,
    /// How a tested image is deployed.
    pub deploy: Deploy,
}

/// How the artifact is built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Shell commands, run in order in a clean checkout of the component.
    pub commands: Vec<String>,
}

/// What the build made, and how an image installs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Package {
    /// Path below the component of a Debian package, which is installed with its
    /// dependencies. Its last part may hold one `*`.
    Deb(String),
    /// A directory, packed as it is and unpacked below a prefix.
    Tree(Tree),
}

/// A directory that the build commands filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// Path of the directory below the component.
    pub path: String,
    /// Absolute path in the image below which the tree is unpacked.
    pub prefix: String,
}

/// The image template and what becomes of its builders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageRecipe {
    /// Path of the Packer JSON template below the component.
    pub template: String,
    /// The builder whose image is deployed.
    pub builder: String,
}

/// How an image is tested.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Path of the gossfile below the component.
    pub gossfile: String,
    /// How long an instance may take until its system is up, in seconds.
    #[serde(default = "Test::default_boot_seconds")]
    pub boot_seconds: u32,
}

impl Test {
    fn default_boot_seconds() -> u32 {
        60
    }
}

/// How a tested image becomes a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deploy {
    /// TCP port on which an instance serves HTTP.
    pub port: u16,
    /// Path that answers 200 when the instance is healthy.
    pub health: String,
    /// Name under which the service is found.
    pub dns: String,
    /// Settings of every environment that does not override them.
    #[serde(default)]
    pub fleet: FleetSettings,
    /// Settings by environment; what is not said there is taken from `fleet`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environments: BTreeMap<String, FleetSettings>,
}

/// What may differ between environments. Every key is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetSettings {
    /// Number of instances. Default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instances: Option<u32>,
    /// Port on which the balancer listens; without it one is chosen and kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen: Option<u16>,
    /// Percentages of traffic that the new group takes, in order. Default 10, 50, 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<u8>>,
    /// How long each step of traffic is watched, in milliseconds. Default 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_millis: Option<u64>,
    /// Checks in a row that make an instance healthy. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_checks: Option<u32>,
    /// How long a new group may take to become healthy, in seconds. Default 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_seconds: Option<u64>,
    /// How long the replaced group is kept at size for a rollback, in seconds. Default 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_seconds: Option<u64>,
}

/// [`FleetSettings`] with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Number of instances.
    pub instances: u32,
    /// Port on which the balancer listens; `None`: any free one.
    pub listen: Option<u16>,
    /// Percentages of traffic that the new group takes, in order, ending with 100.
    pub steps: Vec<u8>,
    /// How long each step of traffic is watched, in milliseconds.
    pub step_millis: u64,
    /// Checks in a row that make an instance healthy.
    pub healthy_checks: u32,
    /// How long a new group may take to become healthy, in seconds.
    pub healthy_seconds: u64,
    /// How long the replaced group is kept at size, in seconds.
    pub retain_seconds: u64,
}

impl Deploy {
    /// The environment that is meant when none is named.
    pub const DEFAULT_ENVIRONMENT: &str = "local";

    /// The settings of `environment`. An environment that is not listed has the defaults.
    pub fn fleet_in(&self, environment: &str) -> Fleet {
        let own = self.environments.get(environment).cloned().unwrap_or_default();
        let all = &self.fleet;
        Fleet {
            instances: own.instances.or(all.instances).unwrap_or(2),
            listen: own.listen.or(all.listen),
            steps: own.steps.or_else(|| all.steps.clone()).unwrap_or_else(|| vec![10, 50, 100]),
            step_millis: own.step_millis.or(all.step_millis).unwrap_or(1000),
            healthy_checks: own.healthy_checks.or(all.healthy_checks).unwrap_or(3),
            healthy_seconds: own.healthy_seconds.or(all.healthy_seconds).unwrap_or(60),
            retain_seconds: own.retain_seconds.or(all.retain_seconds).unwrap_or(3600),
        }
    }
}
