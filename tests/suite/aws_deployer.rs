//! The deployer on AWS: what is there after each command, as another client than ours sees it.
//!
//! In moto every target is healthy at once, nothing drains and every record is in sync: what these tests say of
//! health, of draining and of waiting rests on scripted answers.

use std::collections::BTreeMap;
use std::fs;

use manifest::component::{Deploy, FleetSettings, ImageRecipe, Package, Test, Tree};
use manifest::{AwsFleet, BalancerKind, Component, Manifest, Placement};
use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, wait_for};

const SERVICE: &str = "hello-local";
const NAME: &str = "hello.example.com";

/// A region with a network, a zone and two tested images. Prints the ids.
const PREPARE: &str = r#"
import boto3, json
ec2, route53 = boto3.client("ec2"), boto3.client("route53")
subnets = ec2.describe_subnets()["Subnets"][:2]
zone = route53.create_hosted_zone(Name="example.com", CallerReference="1")["HostedZone"]["Id"].split("/")[-1]
images = []
for name in ("one", "two"):
    image = ec2.register_image(Name=name)["ImageId"]
    ec2.create_tags(Resources=[image], Tags=[{"Key": "kiln:verdict", "Value": f"passed {image} 2026-01-01T00:00:00Z"}])
    images.append(image)
print(json.dumps({
    "vpc": subnets[0]["VpcId"], "subnets": [it["SubnetId"] for it in subnets], "zone": zone, "images": images
}))
"#;

/// All that a service can consist of. Prints it.
const LOOK: &str = r#"
import boto3, json
ec2, elb, groups, route53, ssm, classic = (
    boto3.client(it) for it in ("ec2", "elbv2", "autoscaling", "route53", "ssm", "elb"))
name = lambda arn: arn.split("/")[-2]
weights, targets = {}, {}
balancers = elb.describe_load_balancers()["LoadBalancers"]
listeners = [it for one in balancers for it in elb.describe_listeners(LoadBalancerArn=one["LoadBalancerArn"])["Listeners"]]
for listener in listeners:
    for action in listener["DefaultActions"]:
        for it in action.get("ForwardConfig", {}).get("TargetGroups", []):
            weights[name(it["TargetGroupArn"])] = it["Weight"]
for group in elb.describe_target_groups()["TargetGroups"]:
    health = elb.describe_target_health(TargetGroupArn=group["TargetGroupArn"])["TargetHealthDescriptions"]
    targets[group["TargetGroupName"]] = sorted(it["Target"]["Id"] for it in health)
running = {"Name": "instance-state-name", "Values": ["pending", "running"]}
ours = {"Name": "tag-key", "Values": ["kiln:group"]}
found = {}
for it in groups.describe_auto_scaling_groups()["AutoScalingGroups"]:
    found[it["AutoScalingGroupName"]] = {
        "template": it["LaunchTemplate"], "sizes": [it["MinSize"], it["DesiredCapacity"], it["MaxSize"]],
        "instances": sorted(one["InstanceId"] for one in it["Instances"]),
        "tags": {tag["Key"]: tag["Value"] for tag in it["Tags"]},
        "balancers": it["LoadBalancerNames"],
        "suspended": sorted(one["ProcessName"] for one in it["SuspendedProcesses"])}
records = [it for zone in route53.list_hosted_zones()["HostedZones"]
    for it in route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    if it["Type"] not in ("NS", "SOA")]
reservations = ec2.describe_instances(Filters=[running, ours])["Reservations"]
print(json.dumps({
    "balancers": [it["LoadBalancerName"] for it in balancers],
    "classic": {it["LoadBalancerName"]: sorted(one["InstanceId"] for one in it["Instances"])
        for it in classic.describe_load_balancers()["LoadBalancerDescriptions"]},
    "listeners": [[it["Port"], it["Protocol"]] for it in listeners],
    "weights": weights, "targets": targets, "groups": found, "records": records,
    "templates": sorted(it["LaunchTemplateName"] for it in ec2.describe_launch_templates()["LaunchTemplates"]),
    "instances": sorted(it["InstanceId"] for one in reservations for it in one["Instances"]),
    "parameters": sorted(it["Name"] for it in ssm.describe_parameters()["Parameters"]),
}))
"#;

/// The deployer, and an emulated region with two images.
struct Region {
    emulator: Emulator,
    rig: Rig,
    images: [String; 2],
}

impl Region {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A region, and a component with changed settings.
    fn with(change: impl Fn(&mut FleetSettings)) -> Self {
        let mut rig = Rig::new();
        let emulator = Emulator::start(rig.path(), None);
        rig.on_aws(&emulator);
        let prepared = emulator.python(PREPARE, &[]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let images = [0, 1].map(|number| text(&prepared["images"][number]));
        let region = Self { rig, emulator, images };
        let mut fleet = FleetSettings {
            dns: Some(NAME.to_owned()),
            step_millis: Some(10),
            healthy_checks: Some(1),
            healthy_seconds: Some(2),
            aws: Some(AwsFleet {
                vpc: Some(text(&prepared["vpc"])),
                hosted_zone: Some("example.com".to_owned()),
                max_size: Some(4),
                instances: Placement {
                    instance_type: Some("t3.small".to_owned()),
                    subnets: [0, 1].map(|number| text(&prepared["subnets"][number])).into(),
                    ..Placement::default()
                },
                ..AwsFleet::default()
            }),
            ..FleetSettings::default()
        };
        change(&mut fleet);
        for image in 0..2 {
            let manifest = manifest(&region.images[image], &fleet);
            fs::write(region.manifest(image), serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
        }
        region
    }

    fn manifest(&self, image: usize) -> String {
        self.rig.path().join(format!("{image}.json")).display().to_string()
    }

    fn ask(&self, command: &str, image: usize) -> Ended {
        self.rig.ask("deployer", &[command, "--manifest", &self.manifest(image)])
    }

    /// Runs a command that must succeed. Returns what it printed.
    fn run(&self, command: &str, image: usize) -> String {
        let ended = self.ask(command, image);
        assert_eq!(ended.code, Some(0), "{command}:\n{}", ended.stderr);
        ended.stdout.trim().to_owned()
    }

    /// Runs a command that concerns all services and must succeed.
    fn run_plain(&self, command: &str) {
        let ended = self.rig.ask("deployer", &[command]);
        assert_eq!(ended.code, Some(0), "{command}:\n{}", ended.stderr);
    }

    /// The group that has the traffic, as the deployer says.
    fn status_of_carrier(&self) -> String {
        let ended = self.rig.run("deployer", &["status", "--json", "--manifest", &self.manifest(0)]);
        let status: Value = serde_json::from_str(&ended.stdout).unwrap();
        let mut carrying = status["groups"].as_array().unwrap().iter().filter(|group| group["weight"] == 100);
        carrying.next().expect("a group with traffic")["name"].as_str().unwrap().to_owned()
    }

    fn look(&self) -> Value {
        self.emulator.python(LOOK, &[])
    }

    /// Fails unless what there is belongs together: one group has all of the traffic, no group's part is without the
    /// others, and none is there twice. Returns the groups that are there, and which one has the traffic.
    fn assert_whole(&self) -> (Value, Vec<String>, String) {
        let look = self.look();
        let groups: Vec<_> = look["groups"].as_object().unwrap().keys().cloned().collect();
        let mut weights = look["weights"].as_object().unwrap().clone();
        assert_eq!(weights.remove("hello-local-none"), Some(json!(0)), "{look:#}");
        assert_eq!(weights.keys().cloned().collect::<Vec<_>>(), groups, "{look:#}");
        let mut carrying = weights.iter().filter(|(_, weight)| **weight != json!(0));
        let (carrier, weight) = carrying.next().expect("a group with traffic");
        assert!(carrying.next().is_none() && *weight == json!(100), "{look:#}");
        assert_eq!(look["templates"], json!(groups), "{look:#}");
        assert_eq!(look["targets"].as_object().unwrap().len(), groups.len() + 1, "{look:#}");
        let mut instances = Vec::new();
        for name in &groups {
            let its = &look["groups"][name]["instances"];
            assert_eq!((its.as_array().unwrap().len(), &look["targets"][name]), (2, its), "{look:#}");
            instances.extend(its.as_array().unwrap().clone());
        }
        instances.sort_by_key(ToString::to_string);
        assert_eq!(look["instances"], json!(instances), "{look:#}");
        assert_eq!(look["records"].as_array().unwrap().len(), 1, "{look:#}");
        assert_eq!((&look["balancers"], look["listeners"].as_array().unwrap().len()), (&json!([SERVICE]), 1));
        assert_eq!(look["groups"][carrier]["suspended"], json!([]), "{look:#}");
        let carrier = carrier.clone();
        (look, groups, carrier)
    }

    /// Fails unless one group has all of the traffic and runs the image, and nothing is there but it and, perhaps,
    /// one that is kept for a rollback.
    fn assert_serves(&self, group: &str, kept: Option<&str>, image: usize) -> Value {
        let (look, groups, carrier) = self.assert_whole();
        let mut expected: Vec<_> = kept.into_iter().chain([group]).collect();
        expected.sort_unstable();
        assert_eq!((carrier.as_str(), groups), (group, expected.into_iter().map(str::to_owned).collect()));
        assert_eq!(look["groups"][group]["tags"]["kiln:image"], json!(self.images[image]), "{look:#}");
        look
    }

    /// Runs a command and kills it as soon as its change number `number` has been made and before it knows. `None` if
    /// it ended before that.
    fn kill_at(&self, number: usize, command: &str, image: usize) -> Option<String> {
        let before = self.emulator.calls().len();
        self.emulator.script(&json!({"call": "*", "only": "changes", "after": number, "do": "hang"}));
        let mut deployer = self.rig.spawn("deployer", &[command, "--manifest", &self.manifest(image)]);
        let killed = wait_for("the deployer to be stopped", || {
            let calls = self.emulator.calls().split_off(before);
            let hung = calls.iter().find(|call| call["rule"] == "hang");
            let name = hung.map(|call| call["call"].as_str().unwrap().to_owned());
            if name.is_none() && deployer.try_wait().unwrap().is_none() { None } else { Some(name) }
        });
        deployer.kill().unwrap();
        let ended = Ended::of(deployer.wait_with_output().unwrap());
        assert!(killed.is_some() || ended.code == Some(0), "{command}:\n{}", ended.stderr);
        self.emulator.forget_script();
        killed
    }

    fn assert_empty(&self) {
        let look = self.look();
        for (kind, found) in look.as_object().unwrap() {
            let is_empty =
                found.as_array().is_some_and(Vec::is_empty) || found.as_object().is_some_and(|it| it.is_empty());
            assert!(is_empty, "{kind} are left: {look:#}");
        }
    }

    /// Names of the calls that changed something since `before` calls had been made.
    fn changes_since(&self, before: usize) -> Vec<String> {
        let calls = self.emulator.calls().split_off(before);
        let names = calls.into_iter().map(|call| call["call"].as_str().unwrap().to_owned());
        let reads = ["Describe", "Get", "List", "GET"];
        names.filter(|name| !reads.iter().any(|read| name.split(':').nth(1).unwrap().starts_with(read))).collect()
    }
}

/// The manifest of a component whose image has been tested.
fn manifest(image: &str, fleet: &FleetSettings) -> Value {
    let component = Component {
        name: "hello".to_owned(),
        build: manifest::component::Build { commands: Vec::new() },
        package: Package::Tree(Tree { path: "files".to_owned(), prefix: "/opt".to_owned() }),
        image: Some(ImageRecipe { template: "image.json".to_owned(), builder: "hvm".to_owned() }),
        test: Some(Test { gossfile: "goss.yaml".to_owned(), boot_seconds: 60, tags: BTreeMap::new(), aws: None }),
        deploy: Some(Deploy {
            port: 8000,
            health: "/healthz".to_owned(),
            dns: NAME.to_owned(),
            fleet: fleet.clone(),
            environments: BTreeMap::new(),
        }),
    };
    // The whole chain: an entry that rests on nothing is stale.
    let digest = |text: &str| json!({"kind": "sha256", "value": text.repeat(64)});
    let stamped = |consumed: &Value, mut entry: Value| {
        let stamp = json!({
            "tool_version": "0", "started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:00Z", "consumed": consumed
        });
        entry.as_object_mut().unwrap().extend(stamp.as_object().unwrap().clone());
        entry
    };
    let (archive, artifact, key, gossfile) = (digest("1"), digest("2"), digest("3"), digest("4"));
    let volume = json!({"kind": "aws-volume", "value": "vol-0123456789abcdef0"});
    let image = json!({"kind": "aws-image", "value": image});
    let source = json!({
        "repository": "/hello", "commit": "0123", "component_commit": "0123", "tree": "4567", "version": "1.0", "epoch": 1,
        "archive": archive
    });
    let mut manifest = serde_json::to_value(Manifest::new(component)).unwrap();
    let built = json!({"identity": artifact, "file_name": "hello.tar", "size": 1, "store": "s3://artifacts"});
    let provisioned = json!({
        "identity": volume, "artifact": artifact, "image_name": "hello", "virtualization_type": "hvm", "provisioners": []
    });
    let registered = json!({"identity": image, "digest": image, "name": "hello", "size": 1 << 30});
    let tested = json!({"digest": image, "gossfile": gossfile, "passed": true, "boot_millis": 1, "checks": []});
    manifest["source"] = source;
    manifest["artifact"] = stamped(&archive, built);
    manifest["volumes"] = json!({"hvm": stamped(&key, provisioned)});
    manifest["images"] = json!({"hvm": stamped(&volume, registered)});
    manifest["tests"] = json!({"hvm": stamped(&image, tested)});
    manifest
}

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

    region.run("rollback", 1);
    region.assert_serves("hello-local-v000", Some("hello-local-v001"), 0);
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
        if number % 2 == 1 {
            region.run_plain("repair");
        }
        region.run("deploy", 0);
        let (look, groups, _) = region.assert_whole();
        assert_eq!(groups.len(), 1, "{killed:?}: {look:#}");
        let destroying = region.kill_at(number, "destroy", 0);
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

/// Everything that can be done to a service, while the rule holds for every call.
fn all_of_it(rule: &Value) {
    let region = Region::new();
    region.emulator.script(rule);
    region.run("deploy", 0);
    region.run("deploy", 1);
    region.run("rollback", 1);
    region.assert_serves("hello-local-v000", Some("hello-local-v001"), 0);
    region.run("destroy", 0);
    region.emulator.forget_script();
    region.assert_empty();
}

#[test]
fn calls_that_are_throttled_are_made_again() {
    all_of_it(&json!({"call": "*", "only": "changes", "each": true, "do": "throttle"}));
}

#[test]
fn changes_whose_answer_is_lost_are_made_once() {
    all_of_it(&json!({"call": "*", "only": "changes", "each": true, "do": "lose"}));
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
