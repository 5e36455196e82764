//! `deployer gc`

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use jiff::Timestamp;
use provider::{Fleets, Service};

use crate::journal;
use crate::site::{self, Site};

/// Remove the replaced groups of all services whose time is past.
///
/// Prints the names of the removed groups.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Goes through all services.
pub async fn run(_: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    provider::dispatch!(provider::open(provider).await?, provider => collect(&provider).await)
}

async fn collect<P: Fleets>(provider: &P) -> Result<ExitCode> {
    let mut removed = Vec::new();
    for service in provider.services().await? {
        let work = async |site: &Site<'_, _>| retire(site, &service).await;
        removed.extend(site::locked(provider, &service.spec.name, None, work).await?);
    }
    removed.iter().for_each(|group| println!("{group}"));
    if removed.is_empty() {
        narrate::unchanged("no group's time is past");
    }
    Ok(ExitCode::Done)
}

async fn retire<P: Fleets>(site: &Site<'_, P>, service: &Service) -> Result<Vec<String>> {
    if !service.running || journal::unfinished(&site.entries().await?).is_some() {
        narrate::note(&format!("{} is not in order and is left alone: run `deployer repair`", site.service));
        return Ok(Vec::new());
    }
    site.remove_retired(Timestamp::now()).await
}
