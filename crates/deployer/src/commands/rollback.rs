//! `deployer rollback`

use anyhow::{Result, bail};
use cli::args::ProviderArgs;
use cli::{BadInput, ExitCode, narrate};
use jiff::Timestamp;
use manifest::{Deployment, Identity, Manifest, Stamp};
use provider::{Fleets, Group, NotHealthy, Service};
use uuid::Uuid;

use crate::health;
use crate::journal::{self, Event, Kind, Rollout};
use crate::request::group_kind;
use crate::settle::{self, Settled};
use crate::site::{self, Site};
use crate::stability::wholly_healthy;
use crate::target::{Named, Target};
use crate::weights;

/// How long the group that loses the traffic is kept where no deployment says.
const RETAIN_SECONDS: u64 = 3600;

/// Give all traffic back to the group that was replaced last.
///
/// It is one switch. The group that loses the traffic is kept as the other one was, so that a second rollback undoes
/// the first. A deployment that did not end is taken back, and that is all. Prints the service's URL.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: Target,
}

/// Finds the service, and switches.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    let named = args.target.resolve().await?;
    provider::dispatch!(provider::open(provider).await?, provider => {
        let work = async |site: &Site<'_, _>| roll_back(site, &named).await;
        site::locked(&provider, &named.service, named.section.as_ref(), work).await
    })
}

async fn roll_back<P: Fleets>(site: &Site<'_, P>, named: &Named) -> Result<ExitCode> {
    let started = Timestamp::now();
    let settled = settle::earlier_run(site, None).await?;
    let taken_back = matches!(&settled, Settled::TakenBack(rollout) if rollout.kind == Kind::Deploy);
    let Some(service) = site.read().await? else {
        // It was the service's first deployment: before it there was nothing.
        return if taken_back { Ok(ExitCode::Done) } else { Err(named.missing("rolling back").into()) };
    };
    match settled {
        _ if taken_back => narrate::step(&format!("{}: what served before serves again", site.service)),
        Settled::Completed(rollout) if rollout.kind == Kind::Rollback => {
            end(named, &service, &rollout, started).await?;
        }
        _ => match switch(site, &service).await {
            Ok(rollout) => end(named, &service, &rollout, started).await?,
            Err(error) if error.is::<NotHealthy>() => {
                narrate::error(&format!("{error}; the traffic stays where it is"));
                return Ok(ExitCode::Verdict);
            }
            Err(error) => return Err(error),
        },
    }
    println!("{}", service.url);
    Ok(ExitCode::Done)
}

async fn switch<P: Fleets>(site: &Site<'_, P>, service: &Service) -> Result<Rollout> {
    let rollout = begin(site, service).await?;
    site.record(Event::Started(rollout.clone())).await?;
    site.switch(&weights::all(&rollout.group, rollout.previous.as_deref())).await?;
    settle::complete(site, &rollout).await?;
    Ok(rollout)
}

async fn end(named: &Named, service: &Service, rollout: &Rollout, started: Timestamp) -> Result<()> {
    note_rollback(named, service, rollout, started).await?;
    narrate::step(&format!("{}: {} serves again", service.spec.name, rollout.group));
    Ok(())
}

/// The switch to make, if there is a group to switch to. One that is not healthy at this moment has as long to become
/// so as when it was deployed: it may have been started again just now.
async fn begin<P: Fleets>(site: &Site<'_, P>, service: &Service) -> Result<Rollout> {
    let doing = format!("rolling back {}", site.service);
    if !service.running {
        bail!("{doing}: the provider's own processes do not all run; run `deployer repair` first");
    }
    let entries = site.entries().await?;
    let view = site.view().await?;
    let kept = journal::retained(&entries).and_then(|(name, _)| view.groups.get_key_value(name));
    let Some((name, group)) = kept.filter(|(_, group)| group.weight == 0) else {
        let remedy = "deploy the image that is wanted with `deployer deploy`";
        return Err(BadInput::new(doing, "no replaced group is kept: none was, or its time is past", remedy).into());
    };
    let last = journal::last_rollout(&entries);
    let healthy = last.map(|rollout| rollout.healthy).unwrap_or_default();
    if !wholly_healthy(&group.members, usize::try_from(group.size)?) {
        health::stable(site, name, group.size, healthy).await?;
    }
    Ok(Rollout {
        deployment: Uuid::new_v4().to_string(),
        kind: Kind::Rollback,
        image: group.image.clone(),
        size: group.size,
        at_least: 0,
        group: name.clone(),
        previous: view.carrying().first().map(|group| (*group).to_owned()),
        retain_seconds: last.map_or(RETAIN_SECONDS, |rollout| rollout.retain_seconds),
        healthy,
    })
}

/// The manifest's deployment is what serves. It rests on an older image than the manifest has, and so becomes stale.
async fn note_rollback(named: &Named, service: &Service, rollout: &Rollout, started: Timestamp) -> Result<()> {
    let Some(section) = &named.section else { return Ok(()) };
    let version = |Group { spec, .. }: &Group| spec.tags.get("version").cloned().unwrap_or_default();
    let change = |manifest: &mut Manifest| {
        let Some(known) = manifest.deployments.get(&section.environment) else { return };
        let image_kind = known.stamp.consumed.kind;
        let identity = |name: &str| Identity::new(group_kind(image_kind), name);
        let deployment = Deployment {
            stamp: Stamp::now(env!("CARGO_PKG_VERSION"), started, Identity::new(image_kind, &rollout.image)),
            group: identity(&rollout.group),
            previous_group: rollout.previous.as_deref().map(identity),
            instances: rollout.size,
            version: service.groups.get(&rollout.group).map(version).unwrap_or_default(),
            url: service.url.clone(),
            dns: service.spec.dns.clone(),
        };
        manifest.deployments.insert(section.environment.clone(), deployment);
    };
    section.update(change).await
}
