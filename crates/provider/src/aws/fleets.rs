//! Not there yet.

#![expect(unused_variables)]
use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::Aws;
use crate::{Group, GroupSpec, Member, Service, ServiceSpec};

impl crate::Fleets for Aws {
    async fn service(&self, name: &str) -> Result<Option<Service>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn services(&self) -> Result<Vec<Service>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn journalled(&self) -> Result<Vec<String>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn create_service(&self, spec: &ServiceSpec) -> Result<Service> {
        bail!("the provider aws cannot do this yet")
    }

    async fn create_group(&self, spec: &GroupSpec) -> Result<Group> {
        bail!("the provider aws cannot do this yet")
    }

    async fn members(&self, service: &str, group: &str) -> Result<Vec<Member>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn set_weights(&self, service: &str, weights: &BTreeMap<String, u8>) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn destroy_group(&self, service: &str, group: &str) -> Result<u64> {
        bail!("the provider aws cannot do this yet")
    }

    async fn destroy_service(&self, name: &str) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn repair(&self) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn diagnose(&self, instance: &str) -> Result<String> {
        bail!("the provider aws cannot do this yet")
    }

    async fn journal(&self, service: &str) -> Result<Vec<serde_json::Value>> {
        bail!("the provider aws cannot do this yet")
    }

    async fn record(&self, service: &str, entry: &serde_json::Value) -> Result<()> {
        bail!("the provider aws cannot do this yet")
    }

    async fn lock_service(&self, name: &str) -> Result<cli::lock::Lock> {
        bail!("the provider aws cannot do this yet")
    }
}
