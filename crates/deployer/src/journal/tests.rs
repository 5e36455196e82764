use super::*;
use crate::weights;

fn rollout(kind: Kind, group: &str, previous: Option<&str>) -> Rollout {
    Rollout {
        deployment: format!("deployment of {group}"),
        kind,
        image: format!("image of {group}"),
        size: 2,
        at_least: 0,
        group: group.to_owned(),
        previous: previous.map(str::to_owned),
        retain_seconds: 3600,
        healthy: Criterion::default(),
    }
}

fn entries(events: impl IntoIterator<Item = Event>) -> Vec<Entry> {
    let entry = |(second, event)| Entry { at: Timestamp::from_second(second).unwrap(), event };
    (1000..).zip(events).map(entry).collect()
}

/// Everything that a deployment which replaces `v0` writes down.
fn deployment(ending: &[Event]) -> Vec<Entry> {
    let begin = [
        Event::Started(rollout(Kind::Deploy, "v1", Some("v0"))),
        Event::CreatingService { service: "hello".to_owned() },
        Event::CreatingGroup { group: "v1".to_owned() },
        Event::Shifting { weights: [("v0".to_owned(), 50), ("v1".to_owned(), 50)].into() },
        Event::Shifting { weights: weights::all("v1", Some("v0")) },
    ];
    entries(begin.into_iter().chain(ending.iter().cloned()))
}

fn success() -> [Event; 2] {
    let until = Timestamp::from_second(4600).unwrap();
    [Event::Retained { group: "v0".to_owned(), until }, Event::Finished { deployment: "deployment of v1".to_owned() }]
}

fn failure() -> [Event; 3] {
    [
        Event::BackingOut { reason: "unhealthy".to_owned() },
        Event::DestroyingGroup { group: "v1".to_owned() },
        Event::BackedOut,
    ]
}

/// One word for each prefix of the journal.
fn at_every_prefix(journal: &[Entry], wanted: Option<(&str, u32)>) -> Vec<&'static str> {
    (0..=journal.len())
        .map(|length| match next(unfinished(&journal[..length]), wanted) {
            Next::Begin => "begin",
            Next::GoOn(_) => "go on",
            Next::Finish(_) => "finish",
            Next::BackOut(_) => "back out",
            Next::Destroy => "destroy",
        })
        .collect()
}

#[test]
fn a_killed_deployment_goes_on_when_the_same_is_wanted() {
    let expected = ["begin", "go on", "go on", "go on", "go on", "go on", "finish", "begin"];
    assert_eq!(at_every_prefix(&deployment(&success()), Some(("image of v1", 2))), expected);
}

#[test]
fn a_killed_deployment_is_taken_back_when_something_else_is_wanted() {
    let expected = ["begin", "back out", "back out", "back out", "back out", "back out", "finish", "begin"];
    for wanted in [Some(("another image", 2)), Some(("image of v1", 3)), None] {
        assert_eq!(at_every_prefix(&deployment(&success()), wanted), expected, "{wanted:?}");
    }
}

#[test]
fn backing_out_is_completed_whatever_is_wanted() {
    for wanted in [Some(("image of v1", 2)), None] {
        let steps = at_every_prefix(&deployment(&failure()), wanted);
        assert_eq!(steps[6..], ["back out", "back out", "begin"], "{wanted:?}");
    }
}

#[test]
fn a_killed_rollback_is_completed() {
    let until = Timestamp::from_second(9000).unwrap();
    let journal = entries([
        Event::Started(rollout(Kind::Rollback, "v0", Some("v1"))),
        Event::Shifting { weights: weights::all("v0", Some("v1")) },
        Event::Retained { group: "v1".to_owned(), until },
        Event::Finished { deployment: "deployment of v0".to_owned() },
    ]);
    assert_eq!(at_every_prefix(&journal, None), ["begin", "finish", "finish", "finish", "begin"]);
    assert_eq!(retained(&journal), Some(("v1", until)));
}

#[test]
fn a_killed_destroy_is_completed_from_any_state() {
    for length in 0..=7 {
        let mut journal = deployment(&success());
        journal.truncate(length);
        journal.extend(entries([Event::DestroyingService]));
        assert_eq!(next(unfinished(&journal), Some(("image of v1", 2))), Next::Destroy);
    }
}

#[test]
fn removing_a_retired_group_interrupts_no_deployment() {
    let mut journal = deployment(&[]);
    journal.extend(entries([Event::DestroyingGroup { group: "v9".to_owned() }]));
    assert!(matches!(unfinished(&journal), Some(Unfinished::UnderWay(_))));
}

#[test]
fn the_replaced_group_is_kept_until_its_time_is_past() {
    let journal = deployment(&success());
    let weights = [("v0".to_owned(), 0), ("v1".to_owned(), 100)].into();
    let idle = |now| idle_groups(&journal, &weights, Timestamp::from_second(now).unwrap());
    assert_eq!(idle(4599), Vec::<String>::new());
    assert_eq!(idle(4600), ["v0"]);
}

#[test]
fn a_group_that_no_rollback_goes_to_any_more_is_idle_at_once() {
    let mut journal = deployment(&success());
    let until = Timestamp::from_second(9000).unwrap();
    journal.extend(entries([
        Event::Started(rollout(Kind::Deploy, "v2", Some("v1"))),
        Event::Retained { group: "v1".to_owned(), until },
        Event::Finished { deployment: "deployment of v2".to_owned() },
    ]));
    let weights = [("v0".to_owned(), 0), ("v1".to_owned(), 0), ("v2".to_owned(), 100)].into();
    assert_eq!(idle_groups(&journal, &weights, Timestamp::from_second(2000).unwrap()), ["v0"]);
}

#[test]
fn the_groups_of_a_rollout_under_way_are_never_idle() {
    let journal = deployment(&[]);
    let weights = [("v0".to_owned(), 0), ("v1".to_owned(), 0)].into();
    assert_eq!(idle_groups(&journal, &weights, Timestamp::from_second(99_999).unwrap()), Vec::<String>::new());
}

#[test]
fn the_traffic_may_be_as_it_was_told_last_or_as_it_was_before() {
    let journal = deployment(&[]);
    let half: Weights = [("v0".to_owned(), 50), ("v1".to_owned(), 50)].into();
    assert_eq!(divisions(&journal[..3]), [weights::all("v0", None)]);
    assert_eq!(divisions(&journal[..4]), [weights::all("v0", None), half.clone()]);
    assert_eq!(divisions(&journal), [half, weights::all("v1", Some("v0"))]);
}

#[test]
fn a_group_is_half_removed_until_it_is_gone_or_made_again() {
    let mut journal = deployment(&failure());
    let present = ["v0".to_owned(), "v1".to_owned()];
    assert_eq!(half_removed(&journal, present.iter()), ["v1"]);
    assert_eq!(half_removed(&journal, present[..1].iter()), Vec::<String>::new());
    journal.extend(entries([Event::CreatingGroup { group: "v1".to_owned() }]));
    assert_eq!(half_removed(&journal, present.iter()), Vec::<String>::new());
}

#[test]
fn a_rollback_gives_no_new_name() {
    let mut journal = deployment(&success());
    journal.extend(entries([Event::Started(rollout(Kind::Rollback, "v0", Some("v1")))]));
    assert_eq!(last_group(&journal), Some("v1"));
}

#[test]
fn entries_are_read_back_as_they_were_written() {
    let journal: Vec<_> = deployment(&success()).into_iter().chain(deployment(&failure())).collect();
    let values = journal.iter().map(|entry| serde_json::to_value(entry).unwrap()).collect();
    assert_eq!(parse(values).unwrap(), journal);
}

#[test]
fn a_rollout_of_an_older_version_has_the_defaults() {
    let mut value = serde_json::to_value(&deployment(&[])[0]).unwrap();
    value.as_object_mut().unwrap().remove("healthy").unwrap();
    assert_eq!(parse(vec![value]).unwrap(), deployment(&[])[..1]);
}

#[test]
fn an_entry_of_a_newer_version_is_refused_by_its_number() {
    let error = parse(vec![serde_json::json!({"at": "2026-01-01T00:00:00Z", "event": "baking"})]).unwrap_err();
    assert!(format!("{error:#}").starts_with("entry 1 of the journal"), "{error:#}");
}

#[test]
fn the_last_entry_continues_a_rollout_or_a_removal() {
    let chapter =
        |entries: &[Entry]| last_chapter(entries).map(|it| (it.entries.to_vec(), Vec::from_iter(it.groups).join(" ")));
    assert_eq!(last_chapter(&[]), None);
    let (first, second) = (deployment(&success()), deployment(&failure()));
    let mut journal = [first.clone(), second.clone()].concat();
    for length in 1..=second.len() {
        let so_far = &journal[..first.len() + length];
        assert_eq!(chapter(so_far), Some((second[..length].to_vec(), "v0 v1".to_owned())));
    }
    assert_eq!(chapter(&second[1..]), None, "its beginning is lost");
    for (event, groups) in
        [(Event::DestroyingGroup { group: "v7".to_owned() }, "v7"), (Event::DestroyingService, "v0 v1")]
    {
        let removal = entries([event]);
        journal.extend(removal.clone());
        assert_eq!(chapter(&journal), Some((removal, groups.to_owned())));
    }
}

#[test]
fn a_rollout_goes_on_by_its_decisive_entries_as_by_all_of_them() {
    let step = |share| Event::Shifting { weights: [("v0".to_owned(), 100 - share), ("v1".to_owned(), share)].into() };
    let begin = deployment(&[]).into_iter().take(3).map(|entry| entry.event);
    let many = entries(begin.chain((1..=100).map(step)).chain(success()));
    for length in 0..=many.len() {
        let (all, few) = (&many[..length], decisive(&many[..length]));
        let few: Vec<_> = few.into_iter().cloned().collect();
        assert!(few.len() <= 7);
        assert_eq!(
            (unfinished(all), divisions(all), retained(all)),
            (unfinished(&few), divisions(&few), retained(&few))
        );
    }
}
