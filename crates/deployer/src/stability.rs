//! When a group counts as healthy: every instance, on several checks in a row, and the same instances each time.

use std::collections::BTreeSet;
use std::time::Duration;

use provider::{InstanceState, Member, MemberHealth};

/// How often the balancer checks an instance (`inter 300ms`). Looking more often sees trouble sooner, but is not one
/// more check.
const CHECK_INTERVAL: Duration = Duration::from_millis(300);

/// Counts the checks in a row on which a group was wholly healthy.
#[derive(Debug)]
pub struct Stability {
    size: usize,
    needed: u32,
    in_a_row: u32,
    counted: Option<Duration>,
    on: BTreeSet<(String, u32)>,
}

impl Stability {
    /// A group of `size` instances counts as healthy after `needed` checks.
    pub fn new(size: u32, needed: u32) -> Self {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        Self { size, needed: needed.max(1), in_a_row: 0, counted: None, on: BTreeSet::new() }
    }

    /// Looks at the group as it is at the time `at`; whether it counts as healthy now.
    pub fn observe(&mut self, at: Duration, members: &[Member]) -> bool {
        let on = identities(members);
        if !wholly_healthy(members, self.size) || on != self.on {
            self.in_a_row = 0;
            self.counted = None;
            self.on = on;
        }
        let is_new_check = self.counted.is_none_or(|counted| at >= counted + CHECK_INTERVAL);
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
            open_requests: 0,
            weight: 0,
            last_check: String::new(),
        }
    }

    fn healthy(instance: &str) -> Member {
        member(instance, 1, MemberHealth::Healthy)
    }

    /// Observes `readings` at the balancer's interval.
    fn observe(stability: &mut Stability, readings: &[Vec<Member>]) -> Vec<bool> {
        let times = (0_u32..).map(|count| CHECK_INTERVAL * count);
        times.zip(readings).map(|(at, members)| stability.observe(at, members)).collect()
    }

    #[test]
    fn three_checks_in_a_row_are_needed() {
        let reading = vec![healthy("a"), healthy("b")];
        assert_eq!(
            observe(&mut Stability::new(2, 3), &[reading.clone(), reading.clone(), reading]),
            [false, false, true]
        );
    }

    #[test]
    fn looking_twice_at_one_check_counts_once() {
        let mut stability = Stability::new(1, 2);
        let reading = [healthy("a")];
        assert!(!stability.observe(Duration::ZERO, &reading));
        assert!(!stability.observe(Duration::from_millis(150), &reading));
        assert!(stability.observe(Duration::from_millis(300), &reading));
    }

    #[test]
    fn an_unhealthy_reading_begins_the_count_again() {
        let (good, bad) = (vec![healthy("a")], vec![member("a", 1, MemberHealth::Unhealthy)]);
        let readings = [good.clone(), bad, good.clone(), good];
        assert_eq!(observe(&mut Stability::new(1, 2), &readings), [false, false, false, true]);
    }

    #[test]
    fn a_restart_begins_the_count_again() {
        let restarted = vec![member("a", 2, MemberHealth::Healthy)];
        let readings = [vec![healthy("a")], restarted.clone(), restarted];
        assert_eq!(observe(&mut Stability::new(1, 2), &readings), [false, false, true]);
    }

    #[test]
    fn another_instance_in_its_place_begins_the_count_again() {
        let readings = [vec![healthy("a"), healthy("b")], vec![healthy("a"), healthy("c")]];
        assert_eq!(observe(&mut Stability::new(2, 2), &readings), [false, false]);
    }

    #[test]
    fn an_empty_or_incomplete_group_never_passes() {
        assert_eq!(observe(&mut Stability::new(0, 1), &[vec![], vec![]]), [false, false]);
        assert_eq!(observe(&mut Stability::new(2, 1), &[vec![healthy("a")]]), [false]);
    }

    #[test]
    fn an_instance_that_the_balancer_does_not_list_or_that_does_not_run_is_unhealthy() {
        assert!(!wholly_healthy(&[member("a", 1, MemberHealth::Absent)], 1));
        let ending = Member { state: InstanceState::ShuttingDown, ..healthy("a") };
        assert!(!wholly_healthy(&[ending], 1));
    }
}
