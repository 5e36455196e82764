//! `deployer deploy`

use anyhow::{Context, Result, bail};
use cli::args::{ManifestArgs, ProviderArgs};
use cli::{ExitCode, narrate};
use jiff::Timestamp;
use manifest::component::Deploy;
use provider::{Fleets, Images, NotHealthy, Service};
use uuid::Uuid;

use crate::health;
use crate::journal::{self, Event, Kind, Rollout};
use crate::request::Request;
use crate::section::Section;
use crate::settle::{self, Settled};
use crate::site::{self, Site};
use crate::stability::{Criterion, wholly_healthy};
use crate::{names, preflight, target, weights};

/// Launch the manifest's tested image as a new group and move the traffic to it.
///
/// Prints the service's URL. The group that is replaced is kept at size for a while, for `deployer rollback`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    manifest: ManifestArgs,

    /// The environment to deploy to.
    #[arg(long, value_name = "NAME", default_value = Deploy::DEFAULT_ENVIRONMENT, value_parser = target::environment)]
    environment: String,
}

impl Args {
    /// What is to be deployed to the provider.
    pub async fn request(&self, provider: &impl Images) -> Result<Request> {
        let section = Section::of(self.manifest.manifest.clone(), self.environment.clone()).await?;
        Request::read(provider, section).await
    }

    /// Whether it is to be done again where it is done already.
    pub fn force(&self) -> bool {
        self.manifest.force
    }
}

/// How a deployment ended.
#[derive(Debug)]
pub enum Outcome {
    /// The image serves.
    Serves(Serving),
    /// The image was refused, or its group was not healthy and has been removed; why has been said.
    Refused,
}

/// What serves.
#[derive(Debug)]
pub struct Serving {
    /// The group that has the traffic.
    group: String,
    /// The group that it replaced, if that is kept.
    previous: Option<String>,
    /// Where the service answers.
    url: String,
    /// Whether it served already.
    already: bool,
}

/// Reads the request, and deploys.
pub async fn run(args: Args, provider: &ProviderArgs) -> Result<ExitCode> {
    provider::dispatch!(provider::open(provider).await?, provider => {
        let (request, force) = (args.request(&provider).await?, args.force());
        let deploy = async |site: &Site<'_, _>| match deploy(site, &provider, &request, force).await? {
            Outcome::Serves(serving) => tell(&request, &serving).await,
            Outcome::Refused => Ok(ExitCode::Verdict),
        };
        site::locked(&provider, &request.service.name, Some(&request.section), deploy).await
    })
}

/// Tells the manifest and the user what serves.
async fn tell(request: &Request, serving: &Serving) -> Result<ExitCode> {
    let Serving { group, previous, url, already } = serving;
    request.note_deployment(group, previous.as_deref(), url).await?;
    println!("{url}");
    if *already {
        narrate::unchanged(&format!("{group} serves {} already", request.image.identity));
    }
    Ok(ExitCode::Done)
}

/// The whole sequence. Whatever of it a killed run had done is found done when it is run again.
pub async fn deploy<P: Fleets>(
    site: &Site<'_, P>,
    images: &impl Images,
    request: &Request,
    force: bool,
) -> Result<Outcome> {
    preflight::same_service(&request.service, site.read().await?.as_ref())?;
    preflight::nobody_elses(&request.service, &site.provider.services().await?)?;
    site.provider.accepts(&request.service, request.fleet.instances, &request.fleet.steps).await?;
    if let Err(refusal) = preflight::check(images, request).await? {
        narrate::error(&refusal.to_string());
        return Ok(Outcome::Refused);
    }
    let wanted = (request.image.identity.value.as_str(), request.fleet.instances);
    let unfinished = match settle::earlier_run(site, Some(wanted)).await? {
        Settled::GoesOn(rollout) => Some(rollout),
        _ => None,
    };
    start_again(site, request).await?;
    if unfinished.is_none()
        && !force
        && let Some(serving) = serves_already(site, request).await?
    {
        return Ok(Outcome::Serves(serving));
    }
    site.remove_retired(Timestamp::now()).await?;
    let rollout = match unfinished {
        Some(rollout) => rollout,
        None => begin(site, request).await?,
    };
    match roll_out(site, &rollout, request).await {
        Ok(url) => {
            settle::complete(site, &rollout).await?;
            let Rollout { group, previous, .. } = rollout;
            Ok(Outcome::Serves(Serving { group, previous, url, already: false }))
        }
        Err(error) => take_back(site, &rollout, error).await,
    }
}

/// The part that is taken back when it fails.
async fn roll_out<P: Fleets>(site: &Site<'_, P>, rollout: &Rollout, request: &Request) -> Result<String> {
    let service = site.create_service(&request.service).await?;
    let present = service.groups.get(&rollout.group).map(|present| present.spec.clone());
    site.create_group(&present.unwrap_or_else(|| request.group(rollout))).await?;
    health::stable(site, &rollout.group, rollout.instances(), rollout.healthy).await?;
    let reached = site.view().await?.weight(&rollout.group);
    for weights in weights::plan(&request.fleet.steps, &rollout.group, rollout.previous.as_deref(), reached) {
        site.shift(&weights, rollout.instances()).await?;
        // The gate of the last step is the bake: the old group is still at size.
        health::gate(site, &rollout.group, rollout.instances(), &request.fleet).await?;
    }
    Ok(service.url)
}

async fn begin<P: Fleets>(site: &Site<'_, P>, request: &Request) -> Result<Rollout> {
    let (view, entries) = (site.view().await?, site.entries().await?);
    let carrying = Vec::from_iter(view.carrying());
    if carrying.len() > 1 {
        bail!(
            "{}: the traffic is divided between {} and no deployment is under way: somebody else changed the service; \
             run `deployer destroy`, or give all of it to one of them",
            site.service,
            carrying.join(" and ")
        );
    }
    let present = view.groups.keys().map(String::as_str).collect();
    let service = site.read().await?;
    let grown = carrying.first().and_then(|group| service.as_ref()?.groups[*group].resized);
    let rollout = Rollout {
        deployment: Uuid::new_v4().to_string(),
        kind: Kind::Deploy,
        image: request.image.identity.value.clone(),
        size: request.fleet.instances,
        at_least: grown.unwrap_or_default(),
        group: names::next_group(site.service, journal::last_group(&entries), &present),
        previous: carrying.first().map(|group| (*group).to_owned()),
        retain_seconds: request.fleet.retain_seconds,
        healthy: Criterion::of(&request.fleet),
    };
    site.record(Event::Started(rollout.clone())).await?;
    Ok(rollout)
}

/// After a reboot of the host nothing of a service runs: the old group serves again before it is replaced, if it can.
async fn start_again<P: Fleets>(site: &Site<'_, P>, request: &Request) -> Result<()> {
    if site.read().await?.is_none_or(|service| service.running) {
        return Ok(());
    }
    narrate::step(&format!("{}: starting it again", site.service));
    site.provider.repair().await?;
    let Some((group, size)) = sole_carrier(site.read().await?.as_ref()) else { return Ok(()) };
    match health::stable(site, &group, size, Criterion::of(&request.fleet)).await {
        Err(error) if error.is::<NotHealthy>() => narrate::note(&format!("{error}: it is replaced as it is")),
        other => other?,
    }
    Ok(())
}

/// What serves, if it is as asked for.
async fn serves_already<P: Fleets>(site: &Site<'_, P>, request: &Request) -> Result<Option<Serving>> {
    let Some(service) = site.read().await? else { return Ok(None) };
    let Some((group, size)) = sole_carrier(Some(&service)) else { return Ok(None) };
    let as_asked = preflight::same_service(&request.service, Some(&service)).is_ok()
        && service.groups[&group].spec.image == request.image.identity.value
        && service.groups[&group].spec.size == request.fleet.instances;
    if !as_asked || !wholly_healthy(&site.members(&group).await?, usize::try_from(size)?) {
        return Ok(None);
    }
    let entries = site.entries().await?;
    let previous = journal::retained(&entries).map(|(group, _)| group).filter(|it| service.groups.contains_key(*it));
    let previous = previous.map(str::to_owned);
    Ok(Some(Serving { group, previous, url: service.url, already: true }))
}

/// The group that has all of the traffic, with its present size.
fn sole_carrier(service: Option<&Service>) -> Option<(String, u32)> {
    let carrier = service?.groups.iter().find(|(_, group)| group.weight == 100)?;
    Some((carrier.0.clone(), carrier.1.size()))
}

/// The verdict on a new group is an answer; anything else that went wrong is an error. Both are taken back.
async fn take_back<P: Fleets>(site: &Site<'_, P>, rollout: &Rollout, error: anyhow::Error) -> Result<Outcome> {
    let group = &rollout.group;
    narrate::step(&format!("{group}: taking it back"));
    settle::back_out(site, rollout, &format!("{error:#}")).await?;
    let Some(verdict) = error.downcast_ref::<NotHealthy>() else {
        return Err(error).with_context(|| format!("deploying {group} (it has been taken back)"));
    };
    let traffic = match &rollout.previous {
        Some(previous) => format!("the traffic is with {previous}, and the new group was removed"),
        None => "it was removed".to_owned(),
    };
    narrate::error(&format!("{verdict}; {traffic}"));
    Ok(Outcome::Refused)
}
