//! Which service a command is about.

use std::path::PathBuf;

use anyhow::Result;
use cli::BadInput;
use manifest::NotAName;
use manifest::component::{Deploy, NoEnvironment};

use crate::names;
use crate::section::Section;

/// Names a service by component and environment, or by itself.
#[derive(Debug, Clone, clap::Args)]
pub struct Target {
    /// The manifest whose component is meant.
    #[arg(long, value_name = "FILE", default_value = "manifest.json", env = "KILN_MANIFEST")]
    manifest: PathBuf,

    /// The environment.
    #[arg(long, value_name = "NAME", default_value = Deploy::DEFAULT_ENVIRONMENT, value_parser = environment)]
    environment: String,

    /// The service's own name, such as `hello-production`; no manifest is read then.
    #[arg(long, value_name = "NAME", conflicts_with = "environment")]
    service: Option<String>,
}

/// A service, and the manifest that speaks of it.
#[derive(Debug)]
pub struct Named {
    /// The service's name.
    pub service: String,
    /// Where the manifest speaks of it, unless the service was named by itself.
    pub section: Option<Section>,
    /// That the component has no such environment (any more): its service can be there all the same.
    unlisted: Option<NoEnvironment>,
}

impl Target {
    /// Reads the component's name from the manifest where it is needed.
    pub async fn resolve(self) -> Result<Named> {
        if let Some(service) = self.service {
            return Ok(Named { service, section: None, unlisted: None });
        }
        let section = Section::of(self.manifest, self.environment).await?;
        let manifest = section.read().await?;
        let service = names::service(&manifest.component.name, &section.environment);
        let unlisted = manifest.component.deploy.and_then(|deploy| deploy.fleet_in(&section.environment).err());
        Ok(Named { service, section: Some(section), unlisted })
    }
}

impl Named {
    /// The error of a command that needs the service, where there is none.
    pub fn missing(&self, doing: &str) -> BadInput {
        let why = match &self.unlisted {
            Some(unlisted @ NoEnvironment::Unlisted { .. }) => {
                format!("there is no service {}, and {unlisted}", self.service)
            }
            _ => format!("there is no service {}", self.service),
        };
        BadInput::new(doing, why, "`deployer list` names those that there are, `deployer deploy` makes one")
    }

    /// Whether there may be nothing to do for want of a service: an error if its name was mistyped, as it seems.
    pub fn may_be_missing(&self, doing: &str) -> Result<(), BadInput> {
        match self.unlisted {
            Some(NoEnvironment::Unlisted { .. }) => Err(self.missing(doing)),
            _ => Ok(()),
        }
    }
}

/// An environment, as `--environment` takes it.
pub fn environment(text: &str) -> Result<String, NotAName> {
    Deploy::check_environment(text).map(|()| text.to_owned())
}
