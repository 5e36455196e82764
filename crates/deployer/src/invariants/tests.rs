use provider::{InstanceState, MemberHealth};

use super::*;
use crate::weights::all;

fn group(weight: u8, size: u32, healthy: u32) -> GroupView {
    let member = |number| Member {
        instance: format!("i-{number}"),
        state: InstanceState::Running,
        address: None,
        starts: 1,
        health: if number < healthy { MemberHealth::Healthy } else { MemberHealth::Absent },
        open_requests: Some(0),
        weight: 0,
        last_check: String::new(),
    };
    GroupView { weight, size, image: "image".to_owned(), members: (0..size).map(member).collect() }
}

fn view<const N: usize>(groups: [(&str, GroupView); N]) -> View {
    View { groups: groups.into_iter().map(|(name, group)| (name.to_owned(), group)).collect() }
}

fn half() -> Weights {
    [("old".to_owned(), 50), ("new".to_owned(), 50)].into()
}

#[test]
fn traffic_goes_forward_to_a_healthy_group() {
    let view = view([("old", group(100, 2, 2)), ("new", group(0, 2, 2))]);
    assert_eq!(may_shift(&view, &half(), 2), Ok(()));
    assert_eq!(may_shift(&view, &all("new", Some("old")), 2), Ok(()));
}

#[test]
fn the_floor_counts_only_healthy_instances_that_will_carry_traffic() {
    let view = view([("old", group(50, 2, 2)), ("new", group(50, 2, 1))]);
    assert_eq!(may_shift(&view, &half(), 2), Ok(()));
    let too_few = Err(Violation::TooFew { healthy: 1, floor: 2 });
    assert_eq!(may_shift(&view, &all("new", Some("old")), 2), too_few);
}

#[test]
fn a_group_that_cannot_answer_gets_no_traffic() {
    let view = view([("old", group(100, 2, 2)), ("new", group(0, 2, 0))]);
    assert_eq!(may_shift(&view, &half(), 2), Err(Violation::NobodyThere { group: "new".to_owned() }));
}

#[test]
fn an_empty_group_gets_no_traffic() {
    let view = view([("old", group(100, 2, 2)), ("new", group(0, 0, 0))]);
    assert_eq!(may_shift(&view, &half(), 0), Err(Violation::NobodyThere { group: "new".to_owned() }));
}

#[test]
fn a_group_that_is_gone_gets_no_traffic() {
    let view = view([("old", group(100, 2, 2))]);
    assert_eq!(may_switch(&view, &half()), Err(Violation::NobodyThere { group: "new".to_owned() }));
}

#[test]
fn no_request_is_left_without_a_group() {
    let view = view([("old", group(100, 2, 2)), ("new", group(0, 2, 2))]);
    let weights = [("old".to_owned(), 0), ("new".to_owned(), 10)].into();
    assert_eq!(may_shift(&view, &weights, 2), Err(Violation::NotAll { total: 10 }));
}

#[test]
fn somebody_elses_change_stops_a_deployment() {
    let view = view([("old", group(50, 2, 2)), ("new", group(0, 2, 2)), ("other", group(50, 2, 2))]);
    let foreign = Err(Violation::Foreign { group: "other".to_owned() });
    assert_eq!(may_shift(&view, &half(), 2), foreign);
    assert_eq!(may_withdraw(&view, "old"), foreign);
}

#[test]
fn another_division_than_the_last_two_is_somebody_elses() {
    let view = view([("old", group(90, 2, 2)), ("new", group(10, 2, 2))]);
    let (before, tenth) = (all("old", None), [("old".to_owned(), 90), ("new".to_owned(), 10)].into());
    assert_eq!(as_left(&view, &[before.clone(), tenth]), Ok(()));
    let changed = as_left(&view, &[before, half()]).unwrap_err().to_string();
    assert!(changed.contains("(new 10 %, old 90 %)"), "{changed}");
}

#[test]
fn traffic_goes_back_to_fewer_instances_but_never_to_none_while_somebody_answers() {
    let back = all("old", Some("new"));
    let view_of = |old, new| view([("old", group(50, 2, old)), ("new", group(50, 2, new))]);
    assert_eq!(may_switch(&view_of(1, 1), &back), Ok(()));
    assert_eq!(may_switch(&view_of(0, 1), &back), Err(Violation::NobodyThere { group: "old".to_owned() }));
    assert_eq!(may_switch(&view_of(0, 0), &back), Ok(()));
}

#[test]
fn a_group_that_carries_traffic_is_never_destroyed() {
    let view = view([("old", group(90, 2, 2)), ("new", group(10, 2, 0))]);
    let carries = Err(Violation::StillCarries { group: "new".to_owned(), weight: 10 });
    assert_eq!(may_destroy(&view, "new", true), carries);
}

#[test]
fn open_requests_are_waited_for_until_their_time_is_out() {
    let mut busy = group(0, 1, 1);
    busy.members[0].open_requests = Some(3);
    let view = view([("old", group(100, 2, 2)), ("new", busy)]);
    assert_eq!(may_destroy(&view, "new", false), Err(Violation::NotDrained { group: "new".to_owned(), open: 3 }));
    assert_eq!(may_destroy(&view, "new", true), Ok(()));
}

#[test]
fn a_retired_group_stays_while_what_replaced_it_is_not_whole() {
    let view_of = |weight, healthy| view([("old", group(0, 2, 2)), ("new", group(weight, 2, healthy))]);
    assert_eq!(may_retire(&view_of(100, 2), "old"), Ok(()));
    let not_replaced = Err(Violation::NotReplaced { group: "old".to_owned() });
    assert_eq!(may_retire(&view_of(100, 1), "old"), not_replaced);
    assert_eq!(may_retire(&view_of(0, 2), "old"), not_replaced);
}
