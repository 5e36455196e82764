//! When a group counts as healthy: every instance, on several checks in a row, and the same instances each time.

use std::collections::BTreeSet;
use std::time::Duration;

use manifest::component::Fleet;
use provider::{InstanceState, Member, MemberHealth};
use serde::{Deserialize, Serialize};

/// What a component asks of a group that is to count as healthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Criterion {
    /// Checks in a row.
    pub checks: u32,
    /// Until when, in seconds.
    pub seconds: u64,
}

impl Criterion {
    /// The component's own.
    pub fn of(fleet: &Fleet) -> Self {
        Self { checks: fleet.healthy_checks, seconds: fleet.healthy_seconds }
    }
}

impl Default for Criterion {
    fn default() -> Self {
        Self { checks: Fleet::HEALTHY_CHECKS, seconds: Fleet::HEALTHY_SECONDS }
    }
}

/// Counts the checks in a row on which a group was wholly healthy.
#[derive(Debug)]
pub struct Stability {
    size: usize,
    needed: u32,
    interval: Duration,
    in_a_row: u32,
    counted: Option<Duration>,
    on: BTreeSet<(String, u32)>,
}

impl Stability {
    /// A group of `size` instances counts as healthy after `needed` checks. Looking more often than at the balancer's
    /// `interval` sees trouble sooner, but is not one more check.
    pub fn new(size: u32, needed: u32, interval: Duration) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Self { size, needed: needed.max(1), interval, in_a_row: 0, counted: None, on: BTreeSet::new() }
    }

    /// Looks at the group as it is at the time `at`; whether it counts as healthy now.
    pub fn observe(&mut self, at: Duration, members: &[Member]) -> bool {
        let on = identities(members);
        if !wholly_healthy(members, self.size) || on != self.on {
            self.in_a_row = 0;
            self.counted = None;
            self.on = on;
        }
        let is_new_check = self.counted.is_none_or(|counted| at >= counted + self.interval);
        if wholly_healthy(members, self.size) && is_new_check {
            self.in_a_row += 1;
            self.counted = Some(at);
        }
        self.in_a_row >= self.needed
    }
}

/// The instances, such that a restarted one is another.
pub fn identities(members: &[Member]) -> BTreeSet<(String, u32)> {
    members.iter().map(|member| (member.instance.clone(), member.starts)).collect()
}

/// Whether the group is complete and every instance of it is healthy. An empty group never is.
pub fn wholly_healthy(members: &[Member], size: usize) -> bool {
    !members.is_empty() && members.len() == size && members.iter().all(is_healthy)
}

/// Whether the instance runs and answers the balancer.
pub fn is_healthy(member: &Member) -> bool {
    member.state == InstanceState::Running && member.health == MemberHealth::Healthy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(instance: &str, starts: u32, health: MemberHealth) -> Member {
        Member {
            instance: instance.to_owned(),
            state: InstanceState::Running,
            address: None,
            starts,
            health,
            open_requests: Some(0),
            weight: 0,
            last_check: String::new(),
        }
    }

    fn healthy(instance: &str) -> Member {
        member(instance, 1, MemberHealth::Healthy)
    }

    const INTERVAL: Duration = Duration::from_millis(600);

    fn stability(size: u32, needed: u32) -> Stability {
        Stability::new(size, needed, INTERVAL)
    }

    /// Observes `readings` at the balancer's interval.
    fn observe(stability: &mut Stability, readings: &[Vec<Member>]) -> Vec<bool> {
        let times = (0_u32..).map(|count| INTERVAL * count);
        times.zip(readings).map(|(at, members)| stability.observe(at, members)).collect()
    }

    #[test]
    fn three_checks_in_a_row_are_needed() {
        let reading = vec![healthy("a"), healthy("b")];
        assert_eq!(observe(&mut stability(2, 3), &[reading.clone(), reading.clone(), reading]), [false, false, true]);
    }

    #[test]
    fn looking_twice_at_one_check_counts_once() {
        let mut stability = stability(1, 2);
        let reading = [healthy("a")];
        assert!(!stability.observe(Duration::ZERO, &reading));
        assert!(!stability.observe(INTERVAL - Duration::from_millis(1), &reading));
        assert!(stability.observe(INTERVAL, &reading));
    }

    #[test]
    fn an_unhealthy_reading_begins_the_count_again() {
        let (good, bad) = (vec![healthy("a")], vec![member("a", 1, MemberHealth::Unhealthy)]);
        let readings = [good.clone(), bad, good.clone(), good];
        assert_eq!(observe(&mut stability(1, 2), &readings), [false, false, false, true]);
    }

    #[test]
    fn a_restart_begins_the_count_again() {
        let restarted = vec![member("a", 2, MemberHealth::Healthy)];
        let readings = [vec![healthy("a")], restarted.clone(), restarted];
        assert_eq!(observe(&mut stability(1, 2), &readings), [false, false, true]);
    }

    #[test]
    fn another_instance_in_its_place_begins_the_count_again() {
        let readings = [vec![healthy("a"), healthy("b")], vec![healthy("a"), healthy("c")]];
        assert_eq!(observe(&mut stability(2, 2), &readings), [false, false]);
    }

    #[test]
    fn an_empty_or_incomplete_group_never_passes() {
        assert_eq!(observe(&mut stability(0, 1), &[vec![], vec![]]), [false, false]);
        assert_eq!(observe(&mut stability(2, 1), &[vec![healthy("a")]]), [false]);
    }

    #[test]
    fn an_instance_that_the_balancer_does_not_list_or_that_does_not_run_is_unhealthy() {
        assert!(!wholly_healthy(&[member("a", 1, MemberHealth::Absent)], 1));
        let ending = Member { state: InstanceState::ShuttingDown, ..healthy("a") };
        assert!(!wholly_healthy(&[ending], 1));
    }
}
