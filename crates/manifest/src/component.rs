//! What a component says of itself in `component.toml`: what differs between
//! components, and nothing else.
//!
//! The same data travels in the manifest, so that a stage that runs on another
//! machine needs no checkout.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AwsFleet, Placement};

/// A component: one service that is built, baked, tested and deployed as a whole; or, without the last three
/// sections, a package that the images of others install.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRecipe>,
    /// How an image is tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Test>,
    /// How a tested image is deployed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy: Option<Deploy>,
}

/// What makes a component a service: it has all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service<'a> {
    /// The image template.
    pub image: &'a ImageRecipe,
    /// How an image is tested.
    pub test: &'a Test,
    /// How a tested image is deployed.
    pub deploy: &'a Deploy,
}

/// The component is a package only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{component}' is a package and no service: its component.toml has no [image], [test] and [deploy]")]
pub struct NotAService {
    /// Its name.
    pub component: String,
}

impl Component {
    /// What makes it a service. An error if it is a package only.
    pub fn service(&self) -> Result<Service<'_>, NotAService> {
        match (&self.image, &self.test, &self.deploy) {
            (Some(image), Some(test), Some(deploy)) => Ok(Service { image, test, deploy }),
            _ => Err(NotAService { component: self.name.clone() }),
        }
    }
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
    /// Tags of the instance that is tested, such as those that say where it runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Where the instance is put on AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<Placement>,
}

impl Test {
    /// How long an instance may take to boot, where the component does not say, in seconds.
    pub const BOOT_SECONDS: u32 = 60;

    fn default_boot_seconds() -> u32 {
        Self::BOOT_SECONDS
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
    /// Name under which the service of the default environment is found.
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
    /// Tags of its instances, which they find in their metadata. Those of an environment replace those of all.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Name under which the service is found. Only for one environment: two services cannot share it. Every
    /// environment but the default one has to say its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
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
    /// Where it is put on AWS. What an environment does not say of it is taken from `fleet`, key by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<AwsFleet>,
}

/// [`FleetSettings`] with nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fleet {
    /// Tags of its instances.
    pub tags: BTreeMap<String, String>,
    /// Name under which the service is found.
    pub dns: String,
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
    /// Where it is put on AWS.
    pub aws: AwsFleet,
}

/// Why a component cannot be deployed to an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEnvironment {
    /// Neither the default environment nor one that is listed.
    #[error("the component has no environment '{asked}' (it has {})", quoted(known))]
    Unlisted {
        /// The one that was asked for.
        asked: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// Its service would take the name of the default environment's.
    #[error(
        "environment '{environment}' has no name of its own: `deploy.dns` is that of '{}'",
        Deploy::DEFAULT_ENVIRONMENT
    )]
    Nameless {
        /// The environment.
        environment: String,
    },
}

impl NoEnvironment {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Unlisted { asked, .. } => format!(
                "name one of these, or add [deploy.environments.{asked}] with its own `dns` to component.toml and build again"
            ),
            Self::Nameless { environment } => {
                format!("add `dns` to [deploy.environments.{environment}] in component.toml and build again")
            }
        }
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ")
}

impl Fleet {
    /// Checks in a row that make an instance healthy, where the component does not say.
    pub const HEALTHY_CHECKS: u32 = 3;
    /// How long a new group may take to become healthy, where the component does not say, in seconds.
    pub const HEALTHY_SECONDS: u64 = 60;
}

impl Deploy {
    /// The environment that is meant when none is named.
    pub const DEFAULT_ENVIRONMENT: &str = "local";

    /// The settings of `environment`, which is the default one or one that is listed.
    pub fn fleet_in(&self, environment: &str) -> Result<Fleet, NoEnvironment> {
        let is_default = environment == Self::DEFAULT_ENVIRONMENT;
        let own = match self.environments.get(environment) {
            None if !is_default => return Err(self.unlisted(environment)),
            own => own.cloned().unwrap_or_default(),
        };
        let dns = own.dns.or_else(|| is_default.then(|| self.dns.clone()));
        let all = &self.fleet;
        Ok(Fleet {
            tags: all.tags.clone().into_iter().chain(own.tags).collect(),
            dns: dns.ok_or_else(|| NoEnvironment::Nameless { environment: environment.to_owned() })?,
            instances: own.instances.or(all.instances).unwrap_or(2),
            listen: own.listen.or(all.listen),
            steps: own.steps.or_else(|| all.steps.clone()).unwrap_or_else(|| vec![10, 50, 100]),
            step_millis: own.step_millis.or(all.step_millis).unwrap_or(1000),
            healthy_checks: own.healthy_checks.or(all.healthy_checks).unwrap_or(Fleet::HEALTHY_CHECKS),
            healthy_seconds: own.healthy_seconds.or(all.healthy_seconds).unwrap_or(Fleet::HEALTHY_SECONDS),
            retain_seconds: own.retain_seconds.or(all.retain_seconds).unwrap_or(3600),
            aws: own.aws.unwrap_or_default().or(all.aws.as_ref().unwrap_or(&AwsFleet::default())),
        })
    }

    fn unlisted(&self, environment: &str) -> NoEnvironment {
        let mut known: Vec<_> = self.environments.keys().cloned().collect();
        if !self.environments.contains_key(Self::DEFAULT_ENVIRONMENT) {
            known.insert(0, Self::DEFAULT_ENVIRONMENT.to_owned());
        }
        NoEnvironment::Unlisted { asked: environment.to_owned(), known }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deploy() -> Deploy {
        let settings = |dns: Option<&str>| FleetSettings { dns: dns.map(str::to_owned), ..FleetSettings::default() };
        let environments = [("live", settings(Some("live.hello.test"))), ("stage", settings(None))];
        Deploy {
            port: 80,
            health: "/".to_owned(),
            dns: "hello.test".to_owned(),
            fleet: FleetSettings::default(),
            environments: environments.map(|(name, settings)| (name.to_owned(), settings)).into(),
        }
    }

    #[test]
    fn every_environment_but_the_default_one_has_its_own_name() {
        let deploy = deploy();
        assert_eq!(deploy.fleet_in("local").unwrap().dns, "hello.test");
        assert_eq!(deploy.fleet_in("live").unwrap().dns, "live.hello.test");
        assert_eq!(deploy.fleet_in("stage"), Err(NoEnvironment::Nameless { environment: "stage".to_owned() }));
    }

    #[test]
    fn an_environment_replaces_single_keys_of_where_the_fleet_is_put() {
        let on_aws = |vpc: Option<&str>, zone: Option<&str>| {
            let (vpc, hosted_zone) = (vpc.map(str::to_owned), zone.map(str::to_owned));
            Some(AwsFleet { vpc, hosted_zone, ..AwsFleet::default() })
        };
        let mut deploy = deploy();
        deploy.fleet.aws = on_aws(Some("vpc-all"), Some("example.com"));
        deploy.environments.get_mut("live").unwrap().aws = on_aws(Some("vpc-live"), None);
        assert_eq!(Some(deploy.fleet_in("live").unwrap().aws), on_aws(Some("vpc-live"), Some("example.com")));
        assert_eq!(Some(deploy.fleet_in("local").unwrap().aws), on_aws(Some("vpc-all"), Some("example.com")));
    }

    #[test]
    fn an_environment_that_is_not_there_is_refused_with_those_that_are() {
        let fault = deploy().fleet_in("liv").unwrap_err();
        assert_eq!(fault.to_string(), "the component has no environment 'liv' (it has 'local', 'live', 'stage')");
    }
}
