//! A balancer for each group, and weighted records that divide the traffic between them: what is there after each
//! command, as another client than ours sees it.
//!
//! In moto every record is in sync at once and nobody keeps an answer: what these tests say of waiting rests on scripted
//! answers and on the time that a command takes.

use std::time::{Duration, Instant};

use manifest::component::FleetSettings;
use serde_json::{Value, json};

use crate::aws_region::Region;

/// How long an answer may be kept, in seconds: the shortest.
const TTL: u32 = 1;

fn by_records(fleet: &mut FleetSettings) {
    let aws = fleet.aws.as_mut().unwrap();
    (aws.balancer.per_group, aws.record_ttl) = (Some(true), Some(TTL));
}

/// Fails unless every group has a balancer whose listener forwards to its instances, and a record that names it; one
/// has all of the weight; and nothing else is there. Returns who has the weight, and all groups.
fn assert_whole(region: &Region) -> (String, Vec<String>) {
    let look = region.look();
    let groups: Vec<_> = look["groups"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(look["templates"], json!(groups), "{look:#}");
    let mut balancers: Vec<_> = look["balancers"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    balancers.sort_unstable();
    assert_eq!(balancers, groups, "{look:#}");
    assert_eq!(look["listeners"], json!(vec![json!([80, "HTTP"]); groups.len()]), "{look:#}");
    for group in &groups {
        assert_eq!(look["weights"][group], json!(100), "its own listener gives it all: {look:#}");
        assert_eq!(look["targets"][group], look["groups"][group]["instances"], "{look:#}");
        assert_eq!(look["groups"][group]["instances"].as_array().unwrap().len(), 2, "{look:#}");
    }
    assert_eq!(look["targets"].as_object().unwrap().len(), groups.len(), "{look:#}");
    let records = look["records"].as_array().unwrap();
    let mut named: Vec<_> = records.iter().map(|record| record["SetIdentifier"].as_str().unwrap()).collect();
    named.sort_unstable();
    assert_eq!(named, groups, "{look:#}");
    for record in records {
        assert_eq!((&record["Type"], &record["TTL"]), (&json!("CNAME"), &json!(TTL)), "{look:#}");
        let target = record["ResourceRecords"][0]["Value"].as_str().unwrap();
        assert!(target.starts_with(record["SetIdentifier"].as_str().unwrap()), "{look:#}");
    }
    let carrying: Vec<_> = records.iter().filter(|record| record["Weight"] != json!(0)).collect();
    assert_eq!((carrying.len(), &carrying[0]["Weight"]), (1, &json!(100)), "{look:#}");
    let carrier = carrying[0]["SetIdentifier"].as_str().unwrap().to_owned();
    assert_eq!(look["groups"][&carrier]["suspended"], json!([]), "{look:#}");
    (carrier, groups)
}

/// What the batches of record changes said, one line for each: `hello-v000 90, hello-v001 10`.
fn batches(region: &Region, before: usize) -> Vec<String> {
    let text = |change: &str, tag: &str| {
        let (_, rest) = change.split_once(&format!("<{tag}>")).unwrap();
        rest.split_once('<').unwrap().0.to_owned()
    };
    let said = |change: &str| match (text(change, "Action"), text(change, "SetIdentifier")) {
        (action, group) if action == "UPSERT" => format!("{group} {}", text(change, "Weight")),
        (action, group) => format!("{action} {group}"),
    };
    let calls = region.emulator.calls().split_off(before);
    let batches = calls.iter().filter_map(|call| call["parameters"]["batch"].as_str());
    batches.map(|batch| batch.split("<Change>").skip(1).map(said).collect::<Vec<_>>().join(", ")).collect()
}

#[test]
fn traffic_moves_in_batches_of_both_weights() {
    let region = Region::with(by_records);
    assert_eq!(region.run("deploy", 0), "http://hello.example.com/");
    assert_eq!(assert_whole(&region), ("hello-local-v000".to_owned(), vec!["hello-local-v000".to_owned()]));

    let (before, begin) = (region.emulator.calls().len(), Instant::now());
    region.emulator.script(&json!({
        "call": "route53:GET */change/*", "times": 2, "do": "replace",
        "old": "<Status>INSYNC</Status>", "new": "<Status>PENDING</Status>"
    }));
    region.run("deploy", 1);
    let steps = [(90, 10), (50, 50), (0, 100)];
    let steps = steps.map(|(old, new)| format!("hello-local-v000 {old}, hello-local-v001 {new}"));
    assert_eq!(batches(&region, before), steps);
    let calls = region.emulator.calls().split_off(before);
    let asked = calls.iter().filter(|call| call["call"].as_str().unwrap().contains("/change/")).count();
    assert_eq!(asked, 3 + 2, "each change is asked for until it is in sync");
    assert!(begin.elapsed() >= 3 * Duration::from_secs(TTL.into()), "after each, answers of before run out");
    assert_eq!(assert_whole(&region).0, "hello-local-v001");

    let before = region.emulator.calls().len();
    region.run("rollback", 1);
    assert_eq!(batches(&region, before), ["hello-local-v000 100, hello-local-v001 0"]);
    assert_eq!(assert_whole(&region).0, "hello-local-v000");
    let before = region.emulator.calls().len();
    region.run("destroy", 0);
    assert_eq!(batches(&region, before), ["DELETE hello-local-v000, DELETE hello-local-v001"]);
    region.assert_empty();
}

#[test]
fn a_deployment_that_is_killed_at_any_change_goes_on_or_is_taken_back() {
    let region = Region::with(|fleet| {
        by_records(fleet);
        fleet.steps = Some(vec![100]);
    });
    region.run("deploy", 0);
    for number in 0.. {
        let image = (number + 1) % 2;
        let killed = region.kill_at(number, "deploy", image);
        if number % 2 == 1 {
            region.run_plain("repair");
            assert_whole(&region);
        }
        region.run("deploy", image);
        let (carrier, groups) = assert_whole(&region);
        let look = region.look();
        assert_eq!(look["groups"][&carrier]["tags"]["kiln:image"], json!(region.images[image]), "{killed:?}: {look:#}");
        assert!((2..=3).contains(&groups.len()), "{killed:?}: {look:#}");
        if killed.is_none() {
            break;
        }
    }
    region.run("destroy", 0);
    region.assert_empty();
}

#[test]
fn a_first_group_that_is_not_healthy_leaves_no_name() {
    let region = Region::with(by_records);
    region.emulator.script(&json!({
        "call": "elasticloadbalancing:DescribeTargetHealth", "times": 1000, "do": "replace",
        "old": "<State>healthy</State>", "new": "<State>unhealthy</State>"
    }));
    let ended = region.ask("deploy", 0);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    region.emulator.forget_script();
    region.assert_empty();
}

#[test]
fn calls_that_are_throttled_or_whose_answer_is_lost_leave_the_same() {
    for fault in ["throttle", "lose"] {
        let region = Region::with(|fleet| {
            by_records(fleet);
            fleet.steps = Some(vec![100]);
        });
        for (call, only, each) in
            [("*", "changes", json!(true)), ("route53:*", "reads", json!(true)), ("*", "reads", json!("name"))]
        {
            region.emulator.script(&json!({"call": call, "only": only, "each": each, "do": fault}));
        }
        region.run("deploy", 0);
        region.run("deploy", 1);
        region.run("rollback", 1);
        assert_eq!(assert_whole(&region).0, "hello-local-v000");
        region.run("destroy", 0);
        region.emulator.forget_script();
        region.assert_empty();
    }
}

#[test]
fn a_name_that_cannot_be_divided_is_refused() {
    let refused = |change: &dyn Fn(&mut FleetSettings), expected: &str| {
        let region = Region::with(|fleet| {
            by_records(fleet);
            change(fleet);
        });
        let zone = json!({"Name": "hello.example.com", "CallerReference": "2"});
        region.emulator.ask("route53", "create_hosted_zone", &zone);
        let ended = region.ask("deploy", 0);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "expected {expected}\nfound {}", ended.stderr);
        region.assert_empty();
    };
    let apex = |fleet: &mut FleetSettings| {
        fleet.aws.as_mut().unwrap().hosted_zone = Some("hello.example.com".to_owned());
    };
    refused(&apex, "the zone's own name");
    let classic = |fleet: &mut FleetSettings| {
        fleet.aws.as_mut().unwrap().balancer.kind = Some(manifest::BalancerKind::Classic);
    };
    refused(&classic, "`per_group` of [deploy.fleet.aws.balancer] is for application balancers");
    refused(&|fleet| fleet.aws.as_mut().unwrap().balancer.per_group = None, "`record_ttl` of [deploy.fleet.aws]");
}

/// Somebody else adds a record with the service's name.
fn add_record(region: &Region, record: &Value) {
    let add = r#"
import boto3, json, sys
route53 = boto3.client("route53")
zone = route53.list_hosted_zones()["HostedZones"][0]["Id"]
record = {"Name": "hello.example.com", "TTL": 60, **json.loads(sys.argv[1])}
route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [{"Action": "CREATE", "ResourceRecordSet": record}]})
print(json.dumps({}))
"#;
    region.emulator.python(add, &[&record.to_string()]);
}

#[test]
fn a_name_that_belongs_to_something_else_stays_its() {
    let region = Region::with(by_records);
    add_record(&region, &json!({"Type": "A", "ResourceRecords": [{"Value": "192.0.2.1"}]}));
    let ended = region.ask("deploy", 0);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("has a record of the type A already"), "{}", ended.stderr);
    let look = region.look();
    assert_eq!((look["records"].as_array().unwrap().len(), &look["balancers"]), (1, &json!([])), "{look:#}");
}

#[test]
fn somebody_elses_share_of_the_name_stops_a_deployment_and_outlives_the_service() {
    let region = Region::with(by_records);
    region.run("deploy", 0);
    let other = json!({"Value": "other.example.net"});
    add_record(&region, &json!({"Type": "CNAME", "SetIdentifier": "other", "Weight": 50, "ResourceRecords": [other]}));
    let before = region.emulator.calls().len();
    let ended = region.ask("deploy", 1);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("divided between hello-local-v000 and other"), "{}", ended.stderr);
    assert_eq!(batches(&region, before), Vec::<String>::new());
    region.run("destroy", 0);
    let look = region.look();
    assert_eq!((&look["groups"], &look["balancers"]), (&json!({}), &json!([])), "{look:#}");
    let left: Vec<_> = look["records"].as_array().unwrap().iter().map(|record| &record["SetIdentifier"]).collect();
    assert_eq!(left, ["other"]);
}
