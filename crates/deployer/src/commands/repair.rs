//! `deployer repair`

use std::collections::BTreeSet;

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use provider::{Fleets, NotHealthy};

use crate::health;
use crate::site::{self, Site};
use crate::{journal, settle};

/// Start again what should run, and complete or take back what a killed run left.
///
/// For after a reboot of the host, or after a deployment that ended too early. Concerns all services. Waits until what
/// has traffic is healthy; exit code 1 if it does not become so.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Repairs the provider, then each service.
pub async fn run(_: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    provider::dispatch!(provider::open(provider).await?, provider => repair(&provider).await)
}

async fn repair<P: Fleets>(provider: &P) -> Result<ExitCode> {
    // A deployment that was killed at its very beginning left a journal and no service.
    let mut names = BTreeSet::from_iter(provider.journalled().await?);
    names.extend(provider.services().await?.into_iter().map(|service| service.spec.name));
    if names.is_empty() {
        narrate::unchanged("there is no service");
        return Ok(ExitCode::Done);
    }
    narrate::step("starting what should run");
    provider.repair().await?;
    let mut code = ExitCode::Done;
    for name in &names {
        let settled = site::locked(provider, name, None, async |site| {
            settle::earlier_run(site, None).await?;
            serving(site).await
        });
        match settled.await {
            Ok(Some(url)) => narrate::detail(&format!("{name} is in order: {url}")),
            Ok(None) => narrate::detail(&format!("{name} is no more")),
            Err(error) if error.is::<NotHealthy>() => {
                narrate::error(&format!("{name} is not in order: {error}"));
                code = ExitCode::Verdict;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(code)
}

/// Waits until every group that has traffic is healthy, for as long as its last deployment allowed. The URL, or `None`
/// if nothing is left of the service.
async fn serving<P: Fleets>(site: &Site<'_, P>) -> Result<Option<String>> {
    let Some(service) = site.read().await? else { return Ok(None) };
    let healthy = journal::last_rollout(&site.entries().await?).map(|rollout| rollout.healthy).unwrap_or_default();
    for (name, group) in service.groups.iter().filter(|(_, group)| group.weight > 0) {
        health::stable(site, name, group.size(), healthy).await?;
    }
    Ok(Some(service.url))
}
