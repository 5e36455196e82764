//! A service's changes: each is checked against a fresh read, journalled, and only then made.

use std::time::Duration;

use anyhow::{Context, Result};
use cli::narrate;
use jiff::Timestamp;
use manifest::{Journal, Manifest};
use provider::{Fleets, GroupSpec, Member, Service, ServiceSpec};

use crate::invariants::{self, GroupView, View, Violation};
use crate::journal::{self, Chapter, Entry, Event};
use crate::section::Section;
use crate::weights::Weights;

/// A service at its provider. Whoever changes it holds its lock.
#[derive(Debug)]
pub struct Site<'a, P> {
    /// Where it is.
    pub provider: &'a P,
    /// Its name.
    pub service: &'a str,
    /// Where a manifest speaks of it, if one was given: that has a copy of the journal.
    pub section: Option<&'a Section>,
}

/// Works on a service under its lock.
pub async fn locked<'a, P: Fleets, T>(
    provider: &'a P,
    service: &'a str,
    section: Option<&'a Section>,
    work: impl AsyncFnOnce(&Site<'a, P>) -> Result<T>,
) -> Result<T> {
    let lock = provider.lock_service(service).await?;
    let done = work(&Site { provider, service, section }).await;
    if let Err(error) = provider.unlock_service(lock).await {
        narrate::note(&format!("the lock of {service} could not be given back, and ends by itself: {error:#}"));
    }
    done
}

impl<P: Fleets> Site<'_, P> {
    /// The service, if it is there.
    pub async fn read(&self) -> Result<Option<Service>> {
        self.provider.service(self.service).await
    }

    /// How far apart two readings are that rest on two checks of its balancer.
    pub async fn check_interval(&self) -> Result<Duration> {
        let service = self.read().await?.with_context(|| format!("the service {} is gone", self.service))?;
        Ok(service.check_interval)
    }

    /// The journal, oldest entry first.
    pub async fn entries(&self) -> Result<Vec<Entry>> {
        let values = self.provider.journal(self.service).await?;
        journal::parse(values).with_context(|| format!("service {}", self.service))
    }

    /// The groups and all their instances, read afresh.
    pub async fn view(&self) -> Result<View> {
        let mut view = View::default();
        for (name, group) in self.read().await?.map(|service| service.groups).unwrap_or_default() {
            let members = self.members(&name).await?;
            let (weight, size) = (group.weight, group.size());
            view.groups.insert(name, GroupView { weight, size, image: group.spec.image, members });
        }
        Ok(view)
    }

    /// The group's instances, read afresh. Where the provider's processes have ended meanwhile, nobody knows of
    /// their health: those are started again first.
    pub async fn members(&self, group: &str) -> Result<Vec<Member>> {
        let members = self.provider.members(self.service, group).await;
        if self.provider.is_watched(self.service).await? {
            return members;
        }
        narrate::note("the provider's processes do not run: starting them again");
        self.provider.repair().await?;
        self.provider.members(self.service, group).await
    }

    /// Writes down what is about to happen.
    pub async fn record(&self, event: Event) -> Result<()> {
        let entry = Entry { at: Timestamp::now(), event };
        let recorded = self.provider.record(self.service, &serde_json::to_value(&entry)?).await;
        recorded.context("writing the journal")?;
        self.copy_journal().await
    }

    /// Copies what the journal's last entry continues to the groups that it is about and, of a rollout, to the manifest.
    /// A run goes on without: the journal has it.
    async fn copy_journal(&self) -> Result<()> {
        let entries = self.entries().await?;
        let Some(Chapter { entries, groups }) = journal::last_chapter(&entries) else { return Ok(()) };
        let decisive =
            journal::decisive(entries).into_iter().map(serde_json::to_value).collect::<Result<Vec<_>, _>>()?;
        let with_groups = self.provider.copy_journal(self.service, &Vec::from_iter(groups), &decisive).await;
        let whole: Journal = serde_json::from_value(serde_json::to_value(entries)?)?;
        let with_manifest = match self.section {
            Some(section) if journal::last_rollout(entries).is_some() => {
                let copy = |manifest: &mut Manifest| {
                    manifest.journals.insert(section.environment.clone(), whole.clone());
                };
                section.update(copy).await
            }
            _ => Ok(()),
        };
        for (place, copied) in [("with the groups", with_groups), ("in the manifest", with_manifest)] {
            if let Err(error) = copied {
                narrate::note(&format!("{}: no copy of the journal {place}: {error:#}", self.service));
            }
        }
        Ok(())
    }

    /// Makes the balancer and the DNS name.
    pub async fn create_service(&self, spec: &ServiceSpec) -> Result<Service> {
        self.record(Event::CreatingService { service: spec.name.clone() }).await?;
        self.provider.create_service(spec).await
    }

    /// Launches the group, without traffic.
    pub async fn create_group(&self, spec: &GroupSpec) -> Result<()> {
        narrate::step(&format!("{}: launching {} instances of {}", spec.name, spec.size, spec.image));
        self.record(Event::CreatingGroup { group: spec.name.clone() }).await?;
        self.provider.create_group(spec).await?;
        self.copy_journal().await
    }

    /// Moves traffic forward, where at least `floor` healthy instances then carry it.
    pub async fn shift(&self, weights: &Weights, floor: u32) -> Result<()> {
        let divisions = journal::divisions(&self.entries().await?);
        let may = |view: &View| {
            invariants::as_left(view, &divisions)?;
            invariants::may_shift(view, weights, floor)
        };
        self.weigh(weights, may).await
    }

    /// Moves all traffic at once, as a rollback does.
    pub async fn switch(&self, weights: &Weights) -> Result<()> {
        self.weigh(weights, |view| invariants::may_switch(view, weights)).await
    }

    /// Takes the traffic from the service's only group.
    pub async fn withdraw(&self, group: &str) -> Result<()> {
        self.weigh(&[(group.to_owned(), 0)].into(), |view| invariants::may_withdraw(view, group)).await
    }

    async fn weigh(&self, weights: &Weights, may: impl FnOnce(&View) -> Result<(), Violation>) -> Result<()> {
        let shares = provider::shares(weights);
        may(&self.view().await?).with_context(|| format!("dividing the traffic: {shares}"))?;
        narrate::step(&format!("{}: traffic to {shares}", self.service));
        self.record(Event::Shifting { weights: weights.clone() }).await?;
        self.provider.set_weights(self.service, weights).await
    }

    /// Removes a group that has no traffic. `time_is_out`: requests that are still open have had their time.
    pub async fn destroy_group(&self, group: &str, time_is_out: bool) -> Result<()> {
        let view = self.view().await?;
        invariants::may_destroy(&view, group, time_is_out).with_context(|| format!("removing {group}"))?;
        narrate::step(&format!("{group}: removing it"));
        self.record(Event::DestroyingGroup { group: group.to_owned() }).await?;
        let cut_off = self.provider.destroy_group(self.service, group).await?;
        if let Some(cut_off @ 1..) = cut_off {
            narrate::note(&format!("{group} is removed, and {cut_off} requests that it still answered were cut off"));
        }
        Ok(())
    }

    /// Removes the groups that once served and that no rollback can need any more. One that is not replaced by a
    /// healthy group stays: it may be wanted. Returns the names of the removed ones.
    pub async fn remove_retired(&self, now: Timestamp) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        let entries = self.entries().await?;
        let Some(service) = self.read().await? else { return Ok(removed) };
        let weights = service.groups.iter().map(|(name, group)| (name.clone(), group.weight)).collect();
        for group in journal::idle_groups(&entries, &weights, now) {
            match invariants::may_retire(&self.view().await?, &group) {
                Ok(()) => self.destroy_group(&group, false).await?,
                Err(why) => {
                    narrate::note(&format!("{group} is kept although its time is past: {why}"));
                    continue;
                }
            }
            removed.push(group);
        }
        Ok(removed)
    }

    /// Removes what is left of groups whose removal an earlier run began.
    pub async fn finish_removals(&self) -> Result<()> {
        let Some(service) = self.read().await? else { return Ok(()) };
        for group in journal::half_removed(&self.entries().await?, service.groups.keys()) {
            self.destroy_group(&group, false).await?;
        }
        Ok(())
    }

    /// Removes all of the service.
    pub async fn destroy_service(&self) -> Result<()> {
        narrate::step(&format!("{}: removing the service and its groups", self.service));
        self.record(Event::DestroyingService).await?;
        self.provider.destroy_service(self.service).await
    }
}
