//! What was intended, written down before it was done, and what follows from it.
//!
//! The journal alone decides what is unfinished; what is already true is read
//! from the provider. Everything here is a pure function of the entries.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::stability::Criterion;
use crate::weights::Weights;

/// An intent, with the time at which it was written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

/// What is about to happen to a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A deployment or a rollback begins.
    Started(Rollout),
    /// The service's balancer and DNS name are made, or brought up to date.
    CreatingService {
        /// Its name.
        service: String,
    },
    /// The group is launched.
    CreatingGroup {
        /// Its name.
        group: String,
    },
    /// The traffic is divided anew.
    Shifting {
        /// The share of every group.
        weights: Weights,
    },
    /// The new group has baked and the old one has drained: the old one stays at size until then.
    Retained {
        /// The old group.
        group: String,
        /// Until when.
        until: Timestamp,
    },
    /// The deployment or rollback is complete.
    Finished {
        /// Which.
        deployment: String,
    },
    /// The deployment is taken back.
    BackingOut {
        /// Why.
        reason: String,
    },
    /// It has been taken back.
    BackedOut,
    /// A group that has no traffic is removed.
    DestroyingGroup {
        /// Which.
        group: String,
    },
    /// The whole service is removed.
    DestroyingService,
}

/// What a deployment or a rollback is to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Its id.
    pub deployment: String,
    /// Whether the group is a new one or the one that was replaced last.
    pub kind: Kind,
    /// Id of the image that the group runs.
    pub image: String,
    /// Number of instances that is asked for.
    pub size: u32,
    /// Number that the group has at least, for its load made the previous one grow to that; entries of older versions
    /// do not say.
    #[serde(default)]
    pub at_least: u32,
    /// The group that is to have the traffic.
    pub group: String,
    /// The group that has it at the beginning.
    pub previous: Option<String>,
    /// How long that one is to be kept, in seconds.
    pub retain_seconds: u64,
    /// What its component asks of a healthy group; entries of older versions do not say.
    #[serde(default)]
    pub healthy: Criterion,
}

impl Rollout {
    /// Number of instances of its group.
    pub fn instances(&self) -> u32 {
        self.size.max(self.at_least)
    }
}

/// Where the group of a rollout comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is launched.
    Deploy,
    /// It was kept.
    Rollback,
}

/// What a run that ended too early left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// A rollout that may not have reached its group's share of traffic.
    UnderWay(Rollout),
    /// A rollout whose group has baked, and which only has to be written off.
    Baked(Rollout),
    /// A rollout that was being taken back.
    BackingOut(Rollout),
    /// A service that was being destroyed.
    Destroying,
}

/// What a run does first.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing is unfinished.
    Begin,
    /// The same was asked for again: run the same sequence with the same group.
    GoOn(Rollout),
    /// It is as good as done, or a switch that is safest completed: complete it.
    Finish(Rollout),
    /// Something else is wanted: take it back.
    BackOut(Rollout),
    /// Destroy the rest of the service.
    Destroy,
}

/// Reads the entries that the provider kept.
pub fn parse(values: Vec<serde_json::Value>) -> Result<Vec<Entry>> {
    let entry = |(number, value)| {
        serde_json::from_value(value)
            .with_context(|| format!("entry {} of the journal: was it written by a newer version?", number + 1))
    };
    values.into_iter().enumerate().map(entry).collect()
}

/// What the entries leave unfinished.
pub fn unfinished(entries: &[Entry]) -> Option<Unfinished> {
    entries.iter().fold(None, |state, entry| after(state, &entry.event))
}

fn after(state: Option<Unfinished>, event: &Event) -> Option<Unfinished> {
    use Unfinished::{BackingOut, Baked, Destroying, UnderWay};
    match (event, state) {
        (Event::Started(rollout), _) => Some(UnderWay(rollout.clone())),
        (Event::DestroyingService, _) => Some(Destroying),
        (Event::Finished { .. } | Event::BackedOut, _) => None,
        (Event::BackingOut { .. }, Some(UnderWay(rollout) | Baked(rollout))) => Some(BackingOut(rollout)),
        (Event::Retained { .. }, Some(UnderWay(rollout))) => Some(Baked(rollout)),
        (_, state) => state,
    }
}

/// What a run does first, given what is unfinished. `wanted` is the image and the size that a deployment is asked for;
/// `None` for a run that only puts things in order.
pub fn next(unfinished: Option<Unfinished>, wanted: Option<(&str, u32)>) -> Next {
    match unfinished {
        None => Next::Begin,
        Some(Unfinished::Destroying) => Next::Destroy,
        Some(Unfinished::BackingOut(rollout)) => Next::BackOut(rollout),
        Some(Unfinished::Baked(rollout)) => Next::Finish(rollout),
        Some(Unfinished::UnderWay(rollout)) => match rollout.kind {
            // Both groups are at size: completing the switch is as quick as taking it back, and what was asked for.
            Kind::Rollback => Next::Finish(rollout),
            Kind::Deploy if wanted == Some((rollout.image.as_str(), rollout.size)) => Next::GoOn(rollout),
            Kind::Deploy => Next::BackOut(rollout),
        },
    }
}

/// The entries that the last one continues, and the groups that they are about.
#[derive(Debug, PartialEq, Eq)]
pub struct Chapter<'a> {
    /// A rollout as far as it has come, or the removal of a group or of the service.
    pub entries: &'a [Entry],
    /// Names of groups, which need not all be there.
    pub groups: BTreeSet<&'a str>,
}

/// What the last entry continues; `None` if it is about no group.
pub fn last_chapter(entries: &[Entry]) -> Option<Chapter<'_>> {
    let (last, earlier) = entries.split_last()?;
    let alone = &entries[earlier.len()..];
    match (&last.event, rollout_of_last(entries)) {
        (Event::DestroyingService, _) => {
            Some(Chapter { entries: alone, groups: entries.iter().flat_map(groups_of).collect() })
        }
        (_, Some(rollout)) => Some(Chapter { entries: rollout, groups: rollout.iter().flat_map(groups_of).collect() }),
        (Event::DestroyingGroup { group }, None) => Some(Chapter { entries: alone, groups: [group.as_str()].into() }),
        _ => None,
    }
}

/// The entries about the rollout that the last one belongs to.
fn rollout_of_last(entries: &[Entry]) -> Option<&[Entry]> {
    let rollout = &entries[entries.iter().rposition(|entry| matches!(entry.event, Event::Started(_)))?..];
    let (_, earlier) = rollout.split_last()?;
    let ends = |entry: &Entry| matches!(entry.event, Event::Finished { .. } | Event::BackedOut);
    (!earlier.iter().any(ends)).then_some(rollout)
}

fn groups_of(entry: &Entry) -> impl Iterator<Item = &str> {
    let rollout = match &entry.event {
        Event::Started(rollout) => Some(rollout),
        _ => None,
    };
    rollout.into_iter().flat_map(|rollout| rollout.previous.iter().chain([&rollout.group]).map(String::as_str))
}

/// Those of a chapter's entries on which it depends how it goes on: of the divisions of traffic the last two. They are as
/// few for a rollout in many steps as for one in few.
pub fn decisive(chapter: &[Entry]) -> Vec<&Entry> {
    let shifts: Vec<_> = chapter.iter().filter(|entry| matches!(entry.event, Event::Shifting { .. })).collect();
    let past = &shifts[..shifts.len().saturating_sub(2)];
    chapter.iter().filter(|entry| !past.contains(entry)).collect()
}

/// The rollout that began last.
pub fn last_rollout(entries: &[Entry]) -> Option<&Rollout> {
    entries.iter().rev().find_map(|entry| match &entry.event {
        Event::Started(rollout) => Some(rollout),
        _ => None,
    })
}

/// How the traffic may be divided at this moment, if nobody but the rollout that began last has divided it: as it was
/// told last, or, where it was stopped before it did what it wrote down, as it was before.
pub fn divisions(entries: &[Entry]) -> Vec<Weights> {
    let mut divisions = Vec::new();
    for entry in entries {
        match &entry.event {
            Event::Started(rollout) => {
                divisions = vec![rollout.previous.iter().map(|previous| (previous.clone(), 100)).collect()];
            }
            Event::Shifting { weights } => divisions.push(weights.clone()),
            _ => {}
        }
    }
    divisions.split_off(divisions.len().saturating_sub(2))
}

/// The group that was replaced last, and until when it is kept for a rollback.
pub fn retained(entries: &[Entry]) -> Option<(&str, Timestamp)> {
    entries.iter().rev().find_map(|entry| match &entry.event {
        Event::Retained { group, until } => Some((group.as_str(), *until)),
        _ => None,
    })
}

/// The name that was given to a group last.
pub fn last_group(entries: &[Entry]) -> Option<&str> {
    entries.iter().rev().find_map(|entry| match &entry.event {
        Event::Started(rollout) if rollout.kind == Kind::Deploy => Some(rollout.group.as_str()),
        _ => None,
    })
}

/// The groups that are there although their removal has begun.
pub fn half_removed<'a>(entries: &[Entry], present: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut removed = BTreeSet::new();
    for entry in entries {
        match &entry.event {
            Event::DestroyingGroup { group } => _ = removed.insert(group),
            Event::CreatingGroup { group } => _ = removed.remove(group),
            _ => {}
        }
    }
    present.filter(|group| removed.contains(group)).cloned().collect()
}

/// The groups without traffic that nothing needs any more.
///
/// A rollback goes to the group that was replaced last and to no other, so that one is kept until its time is past; the
/// group of an unfinished rollout belongs to that rollout.
pub fn idle_groups(entries: &[Entry], weights: &BTreeMap<String, u8>, now: Timestamp) -> Vec<String> {
    let kept = retained(entries).filter(|(_, until)| *until > now).map(|(group, _)| group.to_owned());
    let busy = match unfinished(entries) {
        Some(Unfinished::UnderWay(rollout) | Unfinished::Baked(rollout) | Unfinished::BackingOut(rollout)) => {
            [Some(rollout.group), rollout.previous]
        }
        Some(Unfinished::Destroying) | None => [None, None],
    };
    let is_needed = |group: &String| kept.iter().chain(busy.iter().flatten()).any(|needed| needed == group);
    let idle = weights.iter().filter(|(group, weight)| **weight == 0 && !is_needed(group));
    idle.map(|(group, _)| group.clone()).collect()
}

#[cfg(test)]
mod tests;
