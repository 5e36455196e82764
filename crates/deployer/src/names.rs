//! Names of services and groups: `hello-production` and `hello-production-v007`.
//!
//! The convention is that of Asgard, Spinnaker and Frigga: a group's name says
//! which service it belongs to and which of its deployments made it.

use std::collections::BTreeSet;

/// Numbers run from 0 to 999 and then begin again.
const NUMBERS: u16 = 1000;

/// The name of the component's service in an environment.
pub fn service(component: &str, environment: &str) -> String {
    format!("{component}-{environment}")
}

/// The name of the service's group with this number.
fn group(service: &str, number: u16) -> String {
    format!("{service}-v{number:03}")
}

/// The number in a group's name, if it is a name of that service's group.
fn number(service: &str, group: &str) -> Option<u16> {
    let digits = group.strip_prefix(service)?.strip_prefix("-v")?;
    if digits.len() == 3 { digits.parse().ok() } else { None }
}

/// The name of the next group: the number after the one that was `last` used, or after the highest of the `present`
/// ones where none is known. Names that are `present` are passed over, so that numbers may begin again.
pub fn next_group(service: &str, last: Option<&str>, present: &BTreeSet<&str>) -> String {
    let highest = present.iter().filter_map(|group| number(service, group)).max();
    let last = last.and_then(|group| number(service, group)).or(highest);
    let first = last.map_or(0, |last| last + 1);
    (first..first + NUMBERS)
        .map(|candidate| group(service, candidate % NUMBERS))
        .find(|name| !present.contains(name.as_str()))
        .unwrap_or_else(|| group(service, first % NUMBERS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(last: Option<&str>, present: &[&str]) -> String {
        next_group("hello-local", last, &present.iter().copied().collect())
    }

    #[test]
    fn the_first_group_is_number_zero() {
        assert_eq!(next(None, &[]), "hello-local-v000");
    }

    #[test]
    fn a_number_is_not_used_again_when_its_group_is_gone() {
        assert_eq!(next(Some("hello-local-v004"), &["hello-local-v002"]), "hello-local-v005");
    }

    #[test]
    fn without_a_journal_the_groups_themselves_tell() {
        assert_eq!(next(None, &["hello-local-v002", "hello-local-v001"]), "hello-local-v003");
    }

    #[test]
    fn numbers_begin_again_and_pass_over_those_in_use() {
        assert_eq!(next(Some("hello-local-v999"), &["hello-local-v000"]), "hello-local-v001");
    }

    #[test]
    fn a_longer_service_name_is_not_mistaken_for_this_one() {
        assert_eq!(number("hello", "hello-local-v007"), None);
    }
}
