//! What is to be deployed, read from the manifest.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::BadInput;
use jiff::Timestamp;
use manifest::component::{Fleet, Service};
use manifest::{Deployment, Identity, IdentityKind, Image, Manifest, Stamp, Verdict};
use provider::{GroupSpec, Images, ServiceSpec, origin};

use crate::journal::Rollout;
use crate::section::Section;
use crate::{names, preflight};

/// A deployment that was asked for.
#[derive(Debug)]
pub struct Request {
    /// The manifest that it was read from, and that is told of the result, with the environment to deploy to.
    pub section: Section,
    /// The service as it is to be.
    pub service: ServiceSpec,
    /// Size and strategy.
    pub fleet: Fleet,
    /// The image, as the provider knows it.
    pub image: Image,
    /// What the manifest says of its test.
    pub verdict: Option<Verdict>,
    /// The component's name and version.
    pub component: (String, String),
    /// What says of a group which run of which stage made it, and from what.
    origin: BTreeMap<String, String>,
    /// When the run began.
    pub started: Timestamp,
}

impl Request {
    /// Reads what is to be deployed to the provider. An error if the manifest has no image that could be.
    pub async fn read(provider: &impl Images, section: Section) -> Result<Self> {
        let (manifest, path, environment) = (section.read().await?, &section.manifest, &section.environment);
        let origin = origin::tags("deployer", Some(&manifest));
        let image = preflight::image_of(provider, &manifest).map_err(|error| error.in_file(path))?;
        let component = manifest.component;
        let Service { image: recipe, deploy, .. } = component.service().map_err(BadInput::from)?;
        let fleet = deploy.fleet_in(environment).map_err(|fault| {
            BadInput::new("choosing the environment", fault.to_string(), fault.remedy()).in_file(path)
        })?;
        Ok(Self {
            service: ServiceSpec {
                name: names::service(&component.name, environment),
                port: deploy.port,
                health: deploy.health.clone(),
                dns: fleet.dns.clone(),
                listen: fleet.listen,
                aws: fleet.aws.clone(),
            },
            fleet,
            image,
            verdict: manifest.tests.get(&recipe.builder).cloned(),
            component: (component.name.clone(), manifest.source.map_or_else(String::new, |source| source.version)),
            origin,
            started: Timestamp::now(),
            section,
        })
    }

    /// The group that a rollout launches.
    pub fn group(&self, rollout: &Rollout) -> GroupSpec {
        let (component, version) = &self.component;
        let tags = [
            ("component", component),
            ("version", version),
            ("environment", &self.section.environment),
            ("deployment", &rollout.deployment),
        ];
        let tags = tags.map(|(name, value)| (name.to_owned(), value.clone()));
        GroupSpec {
            service: self.service.name.clone(),
            name: rollout.group.clone(),
            image: rollout.image.clone(),
            size: rollout.size,
            initial: (rollout.at_least > rollout.size).then_some(rollout.at_least),
            tags: self.fleet.tags.clone().into_iter().chain(tags).chain(self.origin.clone()).collect(),
            aws: self.fleet.aws.clone(),
        }
    }

    /// Adds the deployment to the manifest, unless it stands there already.
    pub async fn note_deployment(&self, group: &str, previous: Option<&str>, url: &str) -> Result<()> {
        let identity = |name: &str| Identity::new(group_kind(self.image.identity.kind), name);
        let consumed = &self.image.identity;
        let known = self.section.read().await?.deployments.remove(&self.section.environment);
        if known.is_some_and(|it| it.group == identity(group) && it.url == url && it.stamp.consumed == *consumed) {
            return Ok(());
        }
        let deployment = Deployment {
            stamp: Stamp::now(env!("CARGO_PKG_VERSION"), self.started, consumed.clone()),
            group: identity(group),
            previous_group: previous.map(identity),
            instances: self.fleet.instances,
            version: self.component.1.clone(),
            url: url.to_owned(),
            dns: self.service.dns.clone(),
        };
        let change = |manifest: &mut Manifest| {
            manifest.deployments.insert(self.section.environment.clone(), deployment.clone());
        };
        self.section.update(change).await
    }
}

/// Groups live where the image does.
pub fn group_kind(image: IdentityKind) -> IdentityKind {
    match image {
        IdentityKind::AwsImage => IdentityKind::AwsGroup,
        _ => IdentityKind::LocalGroup,
    }
}
