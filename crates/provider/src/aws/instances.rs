//! Not there yet.

#![expect(unused_variables)]
use std::path::Path;

use anyhow::{Result, bail};

use super::Aws;
use crate::{Instance, LaunchSpec, Offer};

impl crate::Instances for Aws {
    async fn launch(&self, spec: &LaunchSpec) -> Result<Instance> {
        bail!("the provider aws cannot do this yet")
    }

    async fn describe(&self, id: &str) -> Result<Option<Instance>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn instances(&self) -> Result<Vec<Instance>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn console(&self, id: &str) -> Result<String> {
        bail!("the provider aws cannot do this yet")
    }

    async fn offer(&self, file: &Path) -> Result<Offer> {
        bail!("the provider aws cannot do this yet")
    }

    async fn terminate(&self, id: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }
}
