//! The deployer on AWS: what is there after each command, as another client than ours sees it.
//!
//! In moto every target is healthy at once, nothing drains and every record is in sync: what these tests say of
//! health, of draining and of waiting rests on scripted answers.

use manifest::BalancerKind;
use manifest::component::FleetSettings;
use serde_json::{Value, json};

use crate::aws_region::{Region, SERVICE};
use crate::rig::{Ended, wait_for};

#[test]
fn a_service_is_made_replaced_rolled_back_and_destroyed() {
    let region = Region::new();
    assert_eq!(region.run("deploy", 0), "http://hello.example.com/");
    let look = region.assert_serves("hello-local-v000", None, 0);
    assert_eq!(look["listeners"], json!([[80, "HTTP"]]));
    let group = &look["groups"]["hello-local-v000"];
    assert_eq!(group["sizes"], json!([2, 2, 4]));
    assert_eq!(group["template"]["Version"], "1");
    let alias = &look["records"][0];
    assert_eq!((&alias["Name"], &alias["Type"]), (&json!("hello.example.com."), &json!("A")));
    assert!(alias["AliasTarget"]["DNSName"].as_str().unwrap().starts_with("hello-local-1.us-east-1.elb."));
    let before = region.emulator.calls().len();
    let again = region.ask("deploy", 0).stderr;
    assert!(again.contains("unchanged: "), "{again}");
    assert_eq!(
        region.changes_since(before),
        ["ssm:PutParameter", "ssm:DeleteParameters", "ssm:PutParameter"],
        "a lock"
    );

    region.run("deploy", 1);
    let look = region.assert_serves("hello-local-v001", Some("hello-local-v000"), 1);
    let kept = &look["groups"]["hello-local-v000"];
    assert_eq!(kept["suspended"], json!(["AZRebalance", "AlarmNotification", "InstanceRefresh", "ScheduledActions"]));
    assert_eq!(kept["tags"]["kiln:suspended-before"], "none");

    let noted = || events(&region.journal_in_manifest(1));
    assert_eq!(noted(), "started creating-service creating-group shifting shifting shifting retained finished");

    region.run("rollback", 1);
    region.assert_serves("hello-local-v000", Some("hello-local-v001"), 0);
    assert_eq!(noted(), "started shifting retained finished");
    region.run("destroy", 0);
    region.assert_empty();
}

/// What entries of a journal are about, in order.
fn events(journal: &Value) -> String {
    let events = journal.as_array().unwrap().iter().map(|entry| entry["event"].as_str().unwrap());
    events.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_deployment_goes_on_or_is_taken_back_by_what_tags_say_of_it() {
    let region = Region::new();
    region.change_settings(1, |fleet| fleet["steps"] = (1..=100).collect());
    let (old, new) = ("hello-local-v000", "hello-local-v001");
    region.run("deploy", 0);
    assert_eq!(events(&region.journal_in_tags(old)), "started creating-service creating-group shifting finished");

    // More entries than Parameter Store keeps of a parameter.
    let kill_at_share = |share: usize| {
        let call = "elasticloadbalancing:ModifyListener";
        region.emulator.script(&json!({"call": call, "after": share, "do": "hang"}));
        region.kill_when_hung(&["deploy", "--manifest", &region.manifest(1)]).expect("a share of the traffic");
    };
    kill_at_share(98);
    let in_tags = region.journal_in_tags(new);
    assert_eq!(events(&in_tags), "started creating-service creating-group shifting shifting");
    assert_eq!(in_tags, region.journal_in_tags(old));
    let in_manifest = region.journal_in_manifest(1);
    assert_eq!(in_manifest.as_array().unwrap().len(), 3 + 98);
    assert_eq!((&in_manifest[0], &in_manifest[100]), (&in_tags[0], &in_tags[4]));
    let went_on = region.ask("deploy", 1);
    assert!(went_on.stderr.contains(&format!("going on with {new}")), "{}", went_on.stderr);
    region.assert_serves(new, Some(old), 1);
    assert_eq!(events(&region.journal_in_tags(new)), events(&region.journal_in_tags(old)));

    // The journal is gone altogether.
    let (old, new) = (new, "hello-local-v002");
    region.run("deploy", 0);
    kill_at_share(30);
    region.lose_journal();
    let taken_back = region.rig.ask("deployer", &["repair"]);
    assert!(taken_back.stderr.contains("taking back hello-local-v003"), "{}", taken_back.stderr);
    region.assert_serves(new, Some(old), 0);
    region.run("destroy", 0);
    region.assert_empty();
}

#[test]
fn a_deployment_that_is_killed_at_any_change_goes_on_or_is_taken_back() {
    let region = Region::new();
    region.run("deploy", 0);
    let mut killed_at = Vec::new();
    for number in 0.. {
        let image = (number + 1) % 2;
        let killed = region.kill_at(number, "deploy", image);
        if number % 3 == 2 {
            region.lose_journal();
        }
        if number % 2 == 1 {
            region.run_plain("repair");
            region.assert_whole();
        }
        region.run("deploy", image);
        let (look, groups, carrier) = region.assert_whole();
        assert_eq!(look["groups"][&carrier]["tags"]["kiln:image"], json!(region.images[image]), "{killed:?}: {look:#}");
        // The one that was replaced before the last is removed by the next deployment.
        assert!((2..=3).contains(&groups.len()), "{killed:?}: {look:#}");
        match killed {
            Some(call) => killed_at.push(call),
            None => break,
        }
    }
    for call in
        ["CreateLaunchTemplate", "CreateAutoScalingGroup", "ModifyListener", "SuspendProcesses", "DeleteTargetGroup"]
    {
        assert!(killed_at.iter().any(|it| it.ends_with(call)), "{call} is not among {killed_at:?}");
    }
    region.run_plain("gc");
    assert_eq!(region.assert_whole().1.len(), 2);
    region.run("destroy", 0);
    region.assert_empty();
}

#[test]
fn a_first_deployment_and_a_destruction_that_are_killed_at_any_change_are_completed() {
    let region = Region::new();
    let mut killed_at = Vec::new();
    for number in 0.. {
        let killed = region.kill_at(number, "deploy", 0);
        if number % 3 == 2 {
            region.lose_journal();
        }
        if number % 2 == 1 {
            region.run_plain("repair");
        }
        region.run("deploy", 0);
        let (look, groups, _) = region.assert_whole();
        assert_eq!(groups.len(), 1, "{killed:?}: {look:#}");
        let destroying = region.kill_at(number, "destroy", 0);
        if number % 3 == 1 {
            region.lose_journal();
        }
        region.run("destroy", 0);
        region.assert_empty();
        killed_at.extend(killed.clone().into_iter().chain(destroying.clone()));
        if killed.is_none() && destroying.is_none() {
            break;
        }
    }
    for call in ["CreateLoadBalancer", "CreateListener", "/rrset", "DeleteLoadBalancer", "DeleteAutoScalingGroup"] {
        assert!(killed_at.iter().any(|it| it.contains(call)), "{call} is not among {killed_at:?}");
    }
}

/// A region in which reading takes its time as well: before a call is made again the SDK waits for half a second.
fn slow_region() -> Region {
    Region::with(|fleet| fleet.healthy_seconds = Some(60))
}

/// Runs commands where this happens once to every call.
fn in_trouble(region: &Region, trouble: &str, run: impl Fn()) {
    region.emulator.script(&json!({"call": "*", "each": true, "do": trouble}));
    run();
    region.emulator.forget_script();
}

fn deploy_in(trouble: &str) {
    let region = slow_region();
    in_trouble(&region, trouble, || {
        region.run("deploy", 0);
        region.run("deploy", 1);
    });
    region.assert_serves("hello-local-v001", Some("hello-local-v000"), 1);
    region.run("destroy", 0);
}

/// All that can be done to a service that is deployed.
fn go_on_in(trouble: &str) {
    let region = slow_region();
    region.run("deploy", 0);
    region.run("deploy", 1);
    in_trouble(&region, trouble, || {
        region.run("plan", 0);
        region.run("rollback", 1);
        region.run("status", 1);
        region.run_plain("list");
    });
    region.assert_serves("hello-local-v000", Some("hello-local-v001"), 0);
    in_trouble(&region, trouble, || {
        region.run_plain("repair");
        region.run_plain("gc");
    });
    region.assert_serves("hello-local-v000", Some("hello-local-v001"), 0);
    in_trouble(&region, trouble, || drop(region.run("destroy", 0)));
    region.assert_empty();
}

#[test]
fn every_call_of_a_deployment_is_made_again_when_throttled() {
    deploy_in("throttle");
}

#[test]
fn every_call_of_a_deployment_whose_answer_is_lost_is_made_once() {
    deploy_in("lose");
}

#[test]
fn every_call_after_a_deployment_is_made_again_when_throttled() {
    go_on_in("throttle");
}

#[test]
fn every_call_after_a_deployment_whose_answer_is_lost_is_made_once() {
    go_on_in("lose");
}

#[test]
fn a_plan_names_the_calls_that_are_then_made() {
    let region = Region::new();
    for image in 0..2 {
        let before = region.emulator.calls().len();
        let plan = region.run("plan", image);
        assert_eq!(region.changes_since(before), Vec::<String>::new(), "a plan changes nothing");
        let planned: Vec<_> = plan.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        let before = region.emulator.calls().len();
        region.run("deploy", image);
        let made = region.changes_since(before).into_iter();
        // The emulator names calls of Route 53 by their path.
        let made: Vec<_> = made
            .map(|call| if call.contains("/rrset") { "route53:ChangeResourceRecordSets".to_owned() } else { call })
            .collect();
        assert_eq!(planned, made, "{plan}");
    }
    region.run("destroy", 0);
}

#[test]
fn a_group_that_does_not_become_healthy_gets_no_traffic_and_is_removed() {
    let region = Region::new();
    region.run("deploy", 0);
    let sick = "<State>unhealthy</State><Reason>Target.ResponseCodeMismatch</Reason>";
    let health = |times: u32, state: &str| {
        json!({
            "call": "elasticloadbalancing:DescribeTargetHealth", "times": times, "do": "replace",
            "old": "<State>healthy</State>", "new": state
        })
    };
    region.emulator.script(&health(1000, sick));
    let ended = region.ask("deploy", 1);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("Target.ResponseCodeMismatch"), "{}", ended.stderr);
    let weights = region.emulator.calls();
    let divided = weights.iter().filter(|call| call["call"] == "elasticloadbalancing:ModifyListener");
    let to_new = divided.filter(|call| {
        let parameters = call["parameters"].as_object().unwrap();
        let arns = parameters.iter().filter(|(_, value)| value.as_str().unwrap().contains("hello-local-v001"));
        arns.into_iter().any(|(name, _)| parameters[&name.replace("TargetGroupArn", "Weight")] != json!("0"))
    });
    assert_eq!(to_new.count(), 0, "it got traffic");
    region.emulator.forget_script();
    region.assert_serves("hello-local-v000", None, 0);

    // One that takes its time is waited for.
    for state in ["<State>initial</State>", sick] {
        let mut once = health(1, state);
        once["with"] = json!({"TargetGroupArn": "*/hello-local-v002/*"});
        region.emulator.script(&once);
    }
    region.run("deploy", 1);
    region.assert_serves("hello-local-v002", Some("hello-local-v000"), 1);
    region.run("destroy", 0);
}

#[test]
fn what_aws_refuses_is_said_and_taken_back() {
    let region = Region::new();
    let refused = |call: &str, code: &str, status: u16, expected: &str| {
        region.emulator.script(&json!({
            "call": call, "only": "changes", "do": "refuse", "status": status, "code": code, "message": "no", "times": 1
        }));
        let ended = region.ask("deploy", 0);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "expected {expected}\nfound {}", ended.stderr);
    };
    let action = "autoscaling:CreateAutoScalingGroup";
    refused(action, "AccessDenied", 403, &format!("allow the action {action}"));
    region.assert_empty();
    refused("elasticloadbalancing:CreateLoadBalancer", "TooManyLoadBalancers", 400, "have the quota raised");
    region.assert_empty();
    refused("route53:*/rrset*", "AccessDenied", 403, "allow the action route53:ChangeResourceRecordSets");
    region.assert_empty();

    // A deployment goes on without the copy of its journal.
    let action = "autoscaling:CreateOrUpdateTags";
    region
        .emulator
        .script(&json!({"call": action, "do": "refuse", "status": 403, "code": "AccessDenied", "message": "no"}));
    let ended = region.ask("deploy", 0);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("no copy of the journal with the groups: tagging hello-local-v000"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains(&format!("allow the action {action}")), "{}", ended.stderr);
}

#[test]
fn what_drains_and_what_spreads_is_waited_for() {
    let region = Region::new();
    let change = "route53:GET */change/*";
    region.emulator.script(&json!({
        "call": change, "times": 2, "do": "replace", "old": "<Status>INSYNC</Status>", "new": "<Status>PENDING</Status>"
    }));
    region.run("deploy", 0);
    let asked = |call: &str| {
        let calls = region.emulator.calls();
        calls.iter().filter(|it| it["call"].as_str().unwrap().contains(call)).count()
    };
    assert_eq!(asked("/change/"), 3);
    region.run("deploy", 1);
    region.run("deploy", 0);
    let draining = "<DescribeTargetHealthResponse><DescribeTargetHealthResult><TargetHealthDescriptions><member><Target>\
        <Id>i-0123456789abcdef0</Id></Target><TargetHealth><State>draining</State></TargetHealth></member>\
        </TargetHealthDescriptions></DescribeTargetHealthResult></DescribeTargetHealthResponse>";
    let before = region.emulator.calls().len();
    region.emulator.script(&json!({
        "call": "elasticloadbalancing:DescribeTargetHealth", "with": {"TargetGroupArn": "*/hello-local-v000/*"},
        "times": 8, "do": "answer", "body": draining
    }));
    let ended = region.rig.run("deployer", &["gc"]);
    assert_eq!(ended.stdout.trim(), "hello-local-v000", "{}", ended.stderr);
    let calls = region.emulator.calls().split_off(before);
    let position = |name: &str| calls.iter().position(|call| call["call"] == name).unwrap();
    let taken_off = position("autoscaling:DetachLoadBalancerTargetGroups");
    let last_drain = calls.iter().rposition(|call| call["rule"] == "answer").unwrap();
    assert!(taken_off < last_drain && last_drain < position("elasticloadbalancing:DeleteTargetGroup"), "{calls:#?}");
    region.run("destroy", 0);
}

#[test]
fn somebody_elses_change_of_the_listener_stops_a_deployment() {
    let region = Region::with(|fleet| fleet.step_millis = Some(8000));
    region.run("deploy", 0);
    let deployer = region.rig.spawn("deployer", &["deploy", "--manifest", &region.manifest(1)]);
    wait_for("the first step", || (region.look()["weights"]["hello-local-v001"] == json!(10)).then_some(()));
    let change = r#"
import boto3, json
elb = boto3.client("elbv2")
balancer = elb.describe_load_balancers()["LoadBalancers"][0]
vpc = balancer["VpcId"]
other = elb.create_target_group(Name="other", Protocol="HTTP", Port=80, VpcId=vpc)["TargetGroups"][0]["TargetGroupArn"]
listener = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"][0]
groups = listener["DefaultActions"][0]["ForwardConfig"]["TargetGroups"] + [{"TargetGroupArn": other, "Weight": 50}]
action = {"Type": "forward", "ForwardConfig": {"TargetGroups": groups}}
elb.modify_listener(ListenerArn=listener["ListenerArn"], DefaultActions=[action])
print(json.dumps({}))
"#;
    region.emulator.python(change, &[]);
    let ended = Ended::of(deployer.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("somebody else changed the service"), "{}", ended.stderr);
    let weights = region.look()["weights"].clone();
    let expected = json!({"hello-local-none": 0, "hello-local-v000": 90, "hello-local-v001": 10, "other": 50});
    assert_eq!(weights, expected, "nothing was divided after that");
    region.run("destroy", 0);
}

#[test]
fn a_group_that_has_grown_is_replaced_by_one_of_its_present_size() {
    let region = Region::new();
    region.run("deploy", 0);
    let grow = json!({"AutoScalingGroupName": "hello-local-v000", "DesiredCapacity": 3});
    region.emulator.ask("autoscaling", "set_desired_capacity", &grow);
    region.run("deploy", 1);
    let look = region.look();
    assert_eq!(look["groups"]["hello-local-v001"]["sizes"], json!([2, 3, 4]));
    assert!(region.ask("deploy", 1).stderr.contains("unchanged: "), "it is as asked for");
    region.run("destroy", 0);
}

#[test]
fn a_classic_balancer_is_switched_in_one_step() {
    let classic = |fleet: &mut FleetSettings| {
        fleet.aws.as_mut().unwrap().balancer.kind = Some(BalancerKind::Classic);
    };
    let region = Region::with(classic);
    let refused = region.ask("deploy", 0);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("`steps` is [10, 50, 100]"), "{}", refused.stderr);
    drop(region);

    let region = Region::with(|fleet| {
        classic(fleet);
        fleet.steps = Some(vec![100]);
    });
    region.run("deploy", 0);
    let attached = |carrier: &str| {
        let look = region.look();
        assert_eq!(look["classic"][SERVICE], look["groups"][carrier]["instances"], "{look:#}");
        let attached = look["groups"].as_object().unwrap().iter();
        let attached: Vec<_> =
            attached.filter(|(_, it)| it["balancers"] == json!([SERVICE])).map(|(name, _)| name).collect();
        assert_eq!(attached, [carrier], "{look:#}");
        assert_eq!(look["records"].as_array().unwrap().len(), 1, "{look:#}");
    };
    attached("hello-local-v000");
    for number in 0.. {
        let image = (number + 1) % 2;
        let killed = region.kill_at(number, "deploy", image);
        region.run("deploy", image);
        attached(region.status_of_carrier().as_str());
        if killed.is_none() {
            break;
        }
    }
    region.run("rollback", 0);
    attached(region.status_of_carrier().as_str());
    region.run("destroy", 0);
    region.assert_empty();
}

#[test]
fn what_a_fleet_on_aws_needs_is_asked_for_by_name() {
    let region = Region::with(|fleet| {
        let aws = fleet.aws.as_mut().unwrap();
        (aws.vpc, aws.instances.instance_type) = (None, None);
    });
    let ended = region.ask("deploy", 0);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("needs `vpc`, `instances.instance_type`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("[deploy.fleet.aws] in component.toml"), "{}", ended.stderr);
    region.assert_empty();
}

#[test]
fn what_was_suspended_before_a_group_was_held_stays_so_after_a_rollback() {
    let region = Region::with(|fleet| fleet.retain_seconds = Some(0));
    region.run("deploy", 0);
    let own = json!({"AutoScalingGroupName": "hello-local-v000", "ScalingProcesses": ["AZRebalance", "Terminate"]});
    region.emulator.python(
        "import boto3, json, sys\nboto3.client('autoscaling').suspend_processes(**json.loads(sys.argv[1]))\nprint('{}')",
        &[&own.to_string()],
    );
    region.run("deploy", 1);
    let suspended = || region.look()["groups"]["hello-local-v000"]["suspended"].clone();
    assert_eq!(suspended().as_array().unwrap().len(), 5);
    region.run("rollback", 1);
    assert_eq!(suspended(), json!(["AZRebalance", "Terminate"]));
    // The other one's time is past.
    region.run_plain("repair");
    assert_eq!(region.look()["groups"]["hello-local-v001"]["suspended"], json!([]));
    region.run("destroy", 0);
}

#[test]
fn one_run_at_a_time_changes_a_service_and_one_that_was_overtaken_stops() {
    let region = Region::with(|fleet| fleet.step_millis = Some(8000));
    let ticket = |machine: &str, until: &str| {
        let process = json!({"pid": 1, "started": 1});
        let holder = json!({"machine": machine, "process": process, "program": "deployer deploy"});
        json!({"holder": holder, "until": until, "released": false}).to_string()
    };
    let put = |number: &str, value: &str| {
        let name = format!("/kiln/services/{SERVICE}/lock/{number}");
        region.emulator.ask("ssm", "put_parameter", &json!({"Name": name, "Value": value, "Type": "String"}));
    };
    put("000007", &ticket("elsewhere", "2126-01-01T00:00:00Z"));
    let manifest = region.manifest(0);
    let held = region.rig.ask("deployer", &["deploy", "--manifest", &manifest, "--no-wait"]);
    assert_eq!(held.code, Some(3), "{}", held.stderr);
    assert!(held.stderr.contains("in use by `deployer deploy` (pid 1, elsewhere)"), "{}", held.stderr);
    put("000008", &ticket("elsewhere", "2026-01-01T00:00:00Z"));
    // That one has lapsed.
    region.run("deploy", 0);
    let deployer = region.rig.spawn("deployer", &["deploy", "--manifest", &region.manifest(1)]);
    wait_for("the first step", || (region.look()["weights"]["hello-local-v001"] == json!(10)).then_some(()));
    put("000099", &ticket("elsewhere", "2126-01-01T00:00:00Z"));
    let ended = Ended::of(deployer.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("has been taken over by `deployer deploy` (pid 1)"), "{}", ended.stderr);
    assert_eq!(region.look()["weights"]["hello-local-v001"], json!(10), "nothing was divided after that");
    let name = format!("/kiln/services/{SERVICE}/lock/000099");
    region.emulator.ask("ssm", "delete_parameter", &json!({"Name": name}));
    region.run("destroy", 0);
    region.assert_empty();
}
