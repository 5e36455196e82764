//! `deployer plan`

use anyhow::Result;
use cli::args::ProviderArgs;
use cli::{ExitCode, narrate};
use provider::Images;

use super::deploy::{self, Outcome};
use crate::rehearsal::Rehearsal;
use crate::site;

/// Show what `deployer deploy` would do now, and do nothing.
///
/// Prints every call that would change something, in order, as if all went well. On AWS that is AWS's calls, on the
/// local provider what its supervisor would be asked for.
#[derive(Debug, clap::Args)]
#[group(id = "plan")]
pub struct Args {
    #[command(flatten)]
    deploy: deploy::Args,
}

/// Reads the request, and deploys to a provider on which nothing happens.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    provider::dispatch!(provider::open(provider).await?, provider => rehearse(&provider, &args.deploy).await)
}

async fn rehearse<P: provider::Fleets + Images>(provider: &P, args: &deploy::Args) -> Result<ExitCode> {
    let mut request = args.request(provider).await?;
    request.fleet.step_millis = 0;
    narrate::note("this is a rehearsal: nothing of what follows is done");
    let rehearsal = Rehearsal::of(provider);
    let deploy = async |site: &site::Site<'_, _>| deploy::deploy(site, provider, &request, args.force()).await;
    let outcome = site::locked(&rehearsal, &request.service.name, None, deploy).await;
    rehearsal.into_calls().iter().for_each(|call| println!("{call}"));
    Ok(match outcome? {
        Outcome::Serves(_) => ExitCode::Done,
        Outcome::Refused => ExitCode::Verdict,
    })
}
