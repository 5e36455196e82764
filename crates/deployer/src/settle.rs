//! How a rollout ends: it is completed, or taken back. The same ways put in order what a killed run left.

use anyhow::{Context, Result};
use cli::narrate;
use jiff::{SignedDuration, Timestamp};
use provider::Fleets;

use crate::health;
use crate::journal::{self, Event, Kind, Next, Rollout};
use crate::site::Site;
use crate::weights;

/// How much of an error the journal keeps: a provider's entry may hold no more than some kilobytes.
const REASON: usize = 1000;

/// What became of that which an earlier run left.
#[derive(Debug)]
pub enum Settled {
    /// It left nothing, or a destruction, which is complete now.
    Nothing,
    /// It has what is wanted, and is to go on.
    GoesOn(Rollout),
    /// It is complete now.
    Completed(Rollout),
    /// It has been taken back.
    TakenBack(Rollout),
}

/// Puts in order what an earlier run left, or leaves it to go on if it has what is `wanted`: an image and a number of
/// instances.
pub async fn earlier_run<P: Fleets>(site: &Site<'_, P>, wanted: Option<(&str, u32)>) -> Result<Settled> {
    match journal::next(journal::unfinished(&site.entries().await?), wanted) {
        Next::Begin => {
            site.finish_removals().await?;
            Ok(Settled::Nothing)
        }
        Next::GoOn(rollout) => {
            narrate::note(&format!("going on with {}, whose deployment did not end", rollout.group));
            Ok(Settled::GoesOn(rollout))
        }
        Next::Finish(rollout) => {
            narrate::note(&format!("completing the switch to {}, which did not end", rollout.group));
            finish(site, rollout).await
        }
        Next::BackOut(rollout) => {
            narrate::note(&format!("taking back {}, whose deployment did not end", rollout.group));
            back_out(site, &rollout, "its run ended too early").await?;
            Ok(Settled::TakenBack(rollout))
        }
        Next::Destroy => {
            site.destroy_service().await?;
            Ok(Settled::Nothing)
        }
    }
}

async fn finish<P: Fleets>(site: &Site<'_, P>, rollout: Rollout) -> Result<Settled> {
    if rollout.kind == Kind::Rollback && site.view().await?.weight(&rollout.group) < 100 {
        let weights = weights::all(&rollout.group, rollout.previous.as_deref());
        if let Err(error) = site.switch(&weights).await {
            narrate::note(&format!("the rollback to {} cannot be completed: {error:#}", rollout.group));
            back_out(site, &rollout, "the group cannot take the traffic").await?;
            return Ok(Settled::TakenBack(rollout));
        }
    }
    complete(site, &rollout).await?;
    Ok(Settled::Completed(rollout))
}

/// The group has the traffic: the one that it replaced drains, and is kept for a rollback.
pub async fn complete<P: Fleets>(site: &Site<'_, P>, rollout: &Rollout) -> Result<()> {
    if let Some(previous) = &rollout.previous {
        narrate::step(&format!("{previous}: waiting for its last requests"));
        health::drained(site, previous).await?;
        let until = Timestamp::now() + SignedDuration::from_secs(rollout.retain_seconds.try_into()?);
        narrate::detail(&format!("{previous} is kept until {until:.0} for `deployer rollback`"));
        site.record(Event::Retained { group: previous.clone(), until }).await?;
        site.provider.hold(site.service, previous, until).await?;
    }
    site.record(Event::Finished { deployment: rollout.deployment.clone() }).await
}

/// All traffic goes to the group that had it before, and a group that was launched for this is removed.
/// Where that leaves nothing of the service, the service goes too.
pub async fn back_out<P: Fleets>(site: &Site<'_, P>, rollout: &Rollout, reason: &str) -> Result<()> {
    let group = &rollout.group;
    undo(site, rollout, reason).await.with_context(|| {
        format!("{group}: it could not be taken back ({reason}); run `deployer repair` when this is mended")
    })
}

async fn undo<P: Fleets>(site: &Site<'_, P>, rollout: &Rollout, reason: &str) -> Result<()> {
    let Rollout { group, previous, .. } = rollout;
    cli::interrupt::go_on();
    site.record(Event::BackingOut { reason: reason.chars().take(REASON).collect() }).await?;
    let view = site.view().await?;
    if view.weight(group) > 0 {
        match previous {
            Some(previous) => site.switch(&weights::all(previous, Some(group))).await?,
            None => site.withdraw(group).await?,
        }
    }
    if rollout.kind == Kind::Deploy {
        // Also one that is not listed: a run that was killed while it made the group may have left parts of it.
        let drained = !view.groups.contains_key(group) || health::drained(site, group).await?;
        site.destroy_group(group, !drained).await?;
    }
    site.record(Event::BackedOut).await?;
    let nothing_left = site.read().await?.is_none_or(|service| service.groups.is_empty());
    if previous.is_none() && nothing_left { site.destroy_service().await } else { Ok(()) }
}
