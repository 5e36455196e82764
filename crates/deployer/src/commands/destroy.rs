//! `deployer destroy`

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use manifest::Manifest;
use provider::{Fleets, ManifestPlace};

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
        site::locked(&provider, &named.service, async |site| destroy(site, &named).await).await
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
    if let Some((path, environment)) = &named.section {
        let change = |manifest: &mut Manifest| drop(manifest.deployments.remove(environment));
        ManifestPlace::of(path).await?.update(None, change).await?;
    }
    if !is_there {
        narrate::unchanged(&format!("there is no service {}", site.service));
    }
    Ok(ExitCode::Done)
}
