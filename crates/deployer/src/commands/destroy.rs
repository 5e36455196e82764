//! `deployer destroy`

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use manifest::Manifest;
use provider::Fleets;

use crate::site::{self, Site};
use crate::target::{Named, Target};

/// Remove the service with its groups, its balancer and its DNS name, and nothing else.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Finds the service, and destroys it.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    let named = args.target.resolve().await?;
    provider::dispatch!(provider::open(provider).await?, provider => {
        let work = async |site: &Site<'_, _>| destroy(site, &named).await;
        site::locked(&provider, &named.service, named.section.as_ref(), work).await
    })
}

async fn destroy<P: Fleets>(site: &Site<'_, P>, named: &Named) -> Result<ExitCode> {
    // A deployment that was killed at its very beginning left no more than its journal.
    let is_there = site.read().await?.is_some() || !site.entries().await?.is_empty();
    if is_there {
        site.destroy_service().await?;
    } else {
        named.may_be_missing("destroying")?;
    }
    if let Some(section) = &named.section {
        let change = |manifest: &mut Manifest| {
            manifest.deployments.remove(&section.environment);
            manifest.journals.remove(&section.environment);
        };
        section.update(change).await?;
    }
    if !is_there {
        narrate::unchanged(&format!("there is no service {}", site.service));
    }
    Ok(ExitCode::Done)
}
