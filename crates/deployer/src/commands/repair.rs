//! `deployer repair`

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use provider::Fleets;

use crate::settle;
use crate::site::Site;

/// Start again what should run, and complete or take back what a killed run left.
///
/// For after a reboot of the host, or after a deployment that ended too early. Concerns all services.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Repairs the provider, then each service.
pub async fn run(_: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    provider::dispatch!(provider::open(provider)?, provider => repair(&provider).await)
}

async fn repair<P: Fleets>(provider: &P) -> Result<ExitCode> {
    let services = provider.services().await?;
    if services.is_empty() {
        narrate::unchanged("there is no service");
        return Ok(ExitCode::Done);
    }
    narrate::step("starting what should run");
    provider.repair().await?;
    for service in services {
        let site = Site { provider, service: &service.spec.name };
        let _lock = provider.lock_service(site.service).await?;
        settle::earlier_run(&site, None).await?;
        narrate::detail(&format!("{} is in order: {}", site.service, service.url));
    }
    Ok(ExitCode::Done)
}
