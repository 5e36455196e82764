//! What is remembered of a service between runs, in Systems Manager's Parameter Store: it needs no set-up, and
//! can refuse to write over what is there.
//!
//! ```text
//! /kiln/services/NAME/service        what it was created as
//! /kiln/services/NAME/journal        the last entry of its journal; the earlier ones are its history
//! /kiln/services/NAME/lock/000007    see `lock`
//! ```
//!
//! A parameter keeps its last 100 versions ("Working with parameter versions"), which is the last ten or so
//! deployments: more than the journal is ever asked for.

use anyhow::{Context, Result};
use aws_sdk_ssm::error::SdkError;
use aws_sdk_ssm::operation::put_parameter::PutParameterError;
use aws_sdk_ssm::types::{Parameter, ParameterHistory, ParameterType, Tag};
use serde_json::Value;

use super::names::SERVICE;
use crate::ServiceSpec;
use crate::aws::Aws;
use crate::aws::failure::{Explain, is_not_found};

/// Where all services are.
pub const SERVICES: &str = "/kiln/services";

/// Most that DeleteParameters takes.
const AT_ONCE: usize = 10;

/// The path of the service's parameters.
pub fn path(service: &str) -> String {
    format!("{SERVICES}/{service}")
}

/// The name of one of the service's parameters.
pub fn name(service: &str, what: &str) -> String {
    format!("{SERVICES}/{service}/{what}")
}

impl Aws {
    /// What the service was created as; `None` if there is none.
    pub(super) async fn recorded(&self, service: &str) -> Result<Option<ServiceSpec>> {
        let name = name(service, "service");
        match self.ssm.get_parameter().name(&name).send().await {
            Ok(answer) => answer.parameter.as_ref().map(spec_in).transpose(),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error).doing("ssm:GetParameter", || format!("reading {name}")),
        }
    }

    /// The specifications of all services, and the names of those that have a journal.
    pub(super) async fn all_recorded(&self) -> Result<(Vec<ServiceSpec>, Vec<String>)> {
        let (mut specs, mut journalled) = (Vec::new(), Vec::new());
        for parameter in self.parameters_below(SERVICES).await? {
            match parameter.name().unwrap_or_default().strip_prefix(SERVICES).and_then(|name| name.rsplit_once('/')) {
                Some((_, "service")) => specs.push(spec_in(&parameter)?),
                Some((service, "journal")) => journalled.push(service.trim_start_matches('/').to_owned()),
                _ => {}
            }
        }
        Ok((specs, journalled))
    }

    /// All parameters below a path.
    pub(super) async fn parameters_below(&self, path: &str) -> Result<Vec<Parameter>> {
        let asked = self.ssm.get_parameters_by_path().path(path).recursive(true).into_paginator().send();
        let pages: Result<Vec<_>, _> = asked.collect().await;
        let pages = pages.doing("ssm:GetParametersByPath", || format!("reading {path}"))?;
        Ok(pages.into_iter().flat_map(|page| page.parameters.unwrap_or_default()).collect())
    }

    /// Makes a parameter with the service's tag, unless there is one of this name.
    pub(super) async fn create_parameter(
        &self,
        service: &str,
        name: &str,
        value: &str,
    ) -> Result<(), SdkError<PutParameterError>> {
        let tag = Tag::builder().key(SERVICE).value(service).build().map_err(SdkError::construction_failure)?;
        let put = self.ssm.put_parameter().name(name).value(value).r#type(ParameterType::String).overwrite(false);
        put.tags(tag).send().await.map(drop)
    }

    /// Gives a parameter its next version.
    pub(super) async fn overwrite_parameter(&self, name: &str, value: &str) -> Result<()> {
        let put = self.ssm.put_parameter().name(name).value(value).r#type(ParameterType::String).overwrite(true);
        put.send().await.doing("ssm:PutParameter", || format!("writing {name}")).map(drop)
    }

    /// Deletes parameters. That one is gone already is no error.
    pub(super) async fn delete_parameters(&self, names: &[String]) -> Result<()> {
        for some in names.chunks(AT_ONCE) {
            let deleted = self.ssm.delete_parameters().set_names(Some(some.to_vec())).send().await;
            deleted.doing("ssm:DeleteParameters", || format!("deleting {}", some.join(", ")))?;
        }
        Ok(())
    }

    /// Forgets the service, all but who has its lock.
    pub(super) async fn forget(&self, service: &str) -> Result<()> {
        // The journal last: while there is one, a killed destruction is unfinished.
        self.delete_parameters(&[name(service, "service")]).await?;
        self.delete_parameters(&[name(service, "journal")]).await
    }

    /// The service's journal, oldest entry first.
    pub(super) async fn entries(&self, service: &str) -> Result<Vec<Value>> {
        let name = name(service, "journal");
        let pages: Result<Vec<_>, _> =
            self.ssm.get_parameter_history().name(&name).into_paginator().send().collect().await;
        let pages = match pages {
            Err(error) if is_not_found(&error) => return Ok(Vec::new()),
            pages => pages.doing("ssm:GetParameterHistory", || format!("reading {name}"))?,
        };
        let mut versions: Vec<_> = pages.into_iter().flat_map(|page| page.parameters.unwrap_or_default()).collect();
        versions.sort_by_key(ParameterHistory::version);
        let values = versions.iter().filter_map(|version| version.value());
        let parse = |value: &str| serde_json::from_str(value).with_context(|| format!("reading {name}"));
        let mut entries = values.map(parse).collect::<Result<Vec<Value>>>()?;
        // An answer that was lost had the entry written twice.
        entries.dedup();
        Ok(entries)
    }
}

/// Whether there was a parameter of this name already.
pub fn is_taken(error: &SdkError<PutParameterError>) -> bool {
    error.as_service_error().is_some_and(PutParameterError::is_parameter_already_exists)
}

fn spec_in(parameter: &Parameter) -> Result<ServiceSpec> {
    let name = parameter.name().unwrap_or_default();
    let value = parameter.value().unwrap_or_default();
    serde_json::from_str(value)
        .with_context(|| format!("reading the parameter {name}: was it written by a newer version?"))
}
