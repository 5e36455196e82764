//! What must hold before each change of a service, checked on what was read from the provider just before it.
//!
//! These checks hold whatever the sequence above them believes: a change that
//! somebody made meanwhile, or a fault in the sequence, stops it before harm is done.

use std::collections::{BTreeMap, BTreeSet};

use provider::Member;

use crate::stability::{is_healthy, wholly_healthy};
use crate::weights::Weights;

/// A service as it is at this moment.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Its groups by name.
    pub groups: BTreeMap<String, GroupView>,
}

/// A group as it is at this moment.
#[derive(Debug, Clone)]
pub struct GroupView {
    /// Its share of the traffic in percent.
    pub weight: u8,
    /// How many instances it is to have.
    pub size: u32,
    /// Id of the image that they run.
    pub image: String,
    /// The instances that it has.
    pub members: Vec<Member>,
}

/// A change that must not be made.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Traffic would go to too few instances.
    #[error("{healthy} healthy instances would carry the traffic, and {floor} are needed")]
    TooFew {
        /// Instances that are healthy and would carry weight.
        healthy: usize,
        /// How many it must be.
        floor: usize,
    },
    /// The shares do not make 100 percent.
    #[error("the groups' shares of the traffic would make {total} percent")]
    NotAll {
        /// Their sum.
        total: u32,
    },
    /// A group would get traffic that cannot answer.
    #[error("group {group} would get traffic, and no instance of it is healthy")]
    NobodyThere {
        /// The group.
        group: String,
    },
    /// A group that this change does not know has traffic.
    #[error("group {group} has traffic, which this deployment did not give it: somebody else changed the service")]
    Foreign {
        /// The group.
        group: String,
    },
    /// The traffic is not divided as this deployment left it.
    #[error(
        "the traffic is divided otherwise than this deployment left it ({found}): somebody else changed the service"
    )]
    Divided {
        /// How it is.
        found: String,
    },
    /// A group is to be destroyed that has, or may get, traffic.
    #[error("group {group} still has {weight} percent of the traffic")]
    StillCarries {
        /// The group.
        group: String,
        /// Its share in percent.
        weight: u8,
    },
    /// A group is to be destroyed that is answering requests.
    #[error("group {group} is still answering {open} requests")]
    NotDrained {
        /// The group.
        group: String,
        /// Requests that are being answered.
        open: u64,
    },
    /// A retired group is to be destroyed while nothing replaces it.
    #[error("group {group} is not replaced: no other group carries the traffic at full size and is healthy")]
    NotReplaced {
        /// The group.
        group: String,
    },
}

impl View {
    /// Instances that are healthy and belong to a group for which `carries` holds.
    fn healthy(&self, carries: impl Fn(&str) -> bool) -> usize {
        let carrying = self.groups.iter().filter(|(name, _)| carries(name));
        carrying.flat_map(|(_, group)| &group.members).filter(|member| is_healthy(member)).count()
    }

    /// The group's share of the traffic in percent; 0 for a group that is not there.
    pub fn weight(&self, group: &str) -> u8 {
        self.groups.get(group).map_or(0, |group| group.weight)
    }

    /// The groups that have traffic.
    pub fn carrying(&self) -> BTreeSet<&str> {
        let carrying = self.groups.iter().filter(|(_, group)| group.weight > 0);
        carrying.map(|(name, _)| name.as_str()).collect()
    }
}

/// Traffic goes forward: all of it is given away, to groups that can answer, and to at least `floor` healthy instances.
pub fn may_shift(view: &View, weights: &Weights, floor: u32) -> Result<(), Violation> {
    may_switch(view, weights)?;
    let weight = |group: &str| weights.get(group).copied().unwrap_or_default();
    let healthy = view.healthy(|group| weight(group) > 0);
    let floor = usize::try_from(floor).unwrap_or(usize::MAX);
    if healthy < floor { Err(Violation::TooFew { healthy, floor }) } else { Ok(()) }
}

/// Nobody else has divided the traffic: it is as one of `divisions` says.
pub fn as_left(view: &View, divisions: &[Weights]) -> Result<(), Violation> {
    let some = |group: &str, weight: u8| (weight > 0).then(|| (group.to_owned(), weight));
    let found: Weights = view.groups.iter().filter_map(|(name, group)| some(name, group.weight)).collect();
    let told = |told: &Weights| told.iter().filter_map(|(name, weight)| some(name, *weight)).collect::<Weights>();
    if divisions.iter().any(|division| told(division) == found) {
        return Ok(());
    }
    Err(Violation::Divided { found: provider::shares(&found) })
}

/// Traffic goes back, where fewer instances may have to do: all of it is given away, to groups that can answer.
/// If nobody can answer anywhere, it may as well go where it came from.
pub fn may_switch(view: &View, weights: &Weights) -> Result<(), Violation> {
    only_known(view, weights)?;
    let total = weights.values().map(|weight| u32::from(*weight)).sum();
    if total != 100 {
        return Err(Violation::NotAll { total });
    }
    let anybody = view.healthy(|group| view.weight(group) > 0) > 0;
    let empty = weights.iter().find(|(name, weight)| **weight > 0 && view.healthy(|group| group == *name) == 0);
    match empty {
        Some((group, _)) if anybody => Err(Violation::NobodyThere { group: group.clone() }),
        _ => Ok(()),
    }
}

/// A service's only group loses its traffic: there is no other that it could go to.
pub fn may_withdraw(view: &View, group: &str) -> Result<(), Violation> {
    only_known(view, &[(group.to_owned(), 0)].into())
}

fn only_known(view: &View, weights: &Weights) -> Result<(), Violation> {
    match view.carrying().into_iter().find(|group| !weights.contains_key(*group)) {
        Some(group) => Err(Violation::Foreign { group: group.to_owned() }),
        None => Ok(()),
    }
}

/// A group goes: it has no traffic, and its requests have been answered or have had their time.
pub fn may_destroy(view: &View, group: &str, time_is_out: bool) -> Result<(), Violation> {
    let weight = view.weight(group);
    if weight > 0 {
        return Err(Violation::StillCarries { group: group.to_owned(), weight });
    }
    let open =
        view.groups.get(group).map_or(0, |group| group.members.iter().filter_map(|member| member.open_requests).sum());
    if open > 0 && !time_is_out { Err(Violation::NotDrained { group: group.to_owned(), open }) } else { Ok(()) }
}

/// A group that once served goes: in addition, one group carries all traffic at full size and is healthy.
pub fn may_retire(view: &View, group: &str) -> Result<(), Violation> {
    may_destroy(view, group, false)?;
    let replaces = |other: &GroupView| {
        other.weight == 100 && wholly_healthy(&other.members, usize::try_from(other.size).unwrap_or(usize::MAX))
    };
    let replaced = view.groups.values().any(replaces);
    if replaced { Ok(()) } else { Err(Violation::NotReplaced { group: group.to_owned() }) }
}

#[cfg(test)]
mod tests;
