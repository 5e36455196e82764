//! Which group has how much of the traffic, step by step.

use std::collections::BTreeMap;

/// A share of the traffic in percent for each group.
pub type Weights = BTreeMap<String, u8>;

/// Why a component's `steps` cannot be used.
pub fn fault(steps: &[u8]) -> Option<&'static str> {
    let ascending = steps.windows(2).all(|pair| pair[0] < pair[1]);
    match (steps.first(), steps.last()) {
        (Some(1..), Some(100)) if ascending => None,
        _ => Some("`steps` must be percentages from 1 on that rise and end with 100, such as [10, 50, 100]"),
    }
}

/// All traffic to `to`, and none to `from`.
pub fn all(to: &str, from: Option<&str>) -> Weights {
    let none = from.map(|from| (from.to_owned(), 0));
    none.into_iter().chain([(to.to_owned(), 100)]).collect()
}

/// The steps by which `new` takes the traffic over, from where it stands: a deployment that goes on watches the step
/// that it had reached once more, and never takes traffic back.
pub fn plan(steps: &[u8], new: &str, previous: Option<&str>, reached: u8) -> Vec<Weights> {
    let Some(previous) = previous else { return vec![all(new, None)] };
    let share = |new_share: u8| [(new.to_owned(), new_share), (previous.to_owned(), 100 - new_share)].into();
    steps.iter().filter(|step| **step >= reached).map(|step| share(*step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_gives_away_all_of_the_traffic() {
        for weights in plan(&[10, 50, 100], "new", Some("old"), 0) {
            assert_eq!(weights.values().map(|weight| u32::from(*weight)).sum::<u32>(), 100);
        }
    }

    #[test]
    fn a_deployment_that_goes_on_starts_at_the_step_that_it_had_reached() {
        let shares: Vec<_> =
            plan(&[10, 50, 100], "new", Some("old"), 50).into_iter().map(|weights| weights["new"]).collect();
        assert_eq!(shares, [50, 100]);
    }

    #[test]
    fn the_first_group_of_a_service_takes_all_at_once() {
        assert_eq!(plan(&[10, 50, 100], "new", None, 0), [all("new", None)]);
    }

    #[test]
    fn steps_rise_and_end_with_everything() {
        assert_eq!(fault(&[10, 50, 100]), None);
        assert_eq!(fault(&[100]), None);
        for bad in [&[][..], &[0, 100], &[50, 10, 100], &[10, 50], &[10, 10, 100]] {
            assert!(fault(bad).is_some(), "{bad:?}");
        }
    }
}
