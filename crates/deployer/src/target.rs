//! Which service a command is about.

use std::path::PathBuf;

use anyhow::Result;
use cli::BadInput;
use manifest::component::Deploy;

use crate::names;

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
    /// The manifest and the key of its section, unless the service was named by itself.
    pub section: Option<(PathBuf, String)>,
}

impl Target {
    /// Reads the component's name from the manifest where it is needed.
    pub fn resolve(self) -> Result<Named> {
        if let Some(service) = self.service {
            return Ok(Named { service, section: None });
        }
        let manifest = manifest::read(&self.manifest)?;
        let service = names::service(&manifest.component.name, &self.environment);
        Ok(Named { service, section: Some((self.manifest, self.environment)) })
    }
}

impl Named {
    /// The error of a command that needs the service, where there is none.
    pub fn missing(&self, doing: &str) -> BadInput {
        let why = format!("there is no service {}", self.service);
        BadInput::new(doing, why, "`deployer list` names those that there are, `deployer deploy` makes one")
    }
}

/// An environment's name becomes part of names of services, groups and hosts.
pub fn environment(text: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_name = (1..=24).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 24 lower-case letters, digits and dashes, such as 'production'".to_owned())
    }
}
