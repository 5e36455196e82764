//! An emulated region with two tested images, and what the deployer has made of it, as another client sees it.

use std::collections::BTreeMap;
use std::fs;

use manifest::component::{Deploy, FleetSettings, ImageRecipe, Package, Test, Tree};
use manifest::{AwsFleet, Component, Manifest, Placement};
use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, wait_for};

pub const SERVICE: &str = "hello-local";
const NAME: &str = "hello.example.com";

/// Two tested images. Prints their ids.
const IMAGES: &str = r#"
import boto3, json
ec2, images = boto3.client("ec2"), []
for name in ("one", "two"):
    image = ec2.register_image(Name=name)["ImageId"]
    ec2.create_tags(Resources=[image], Tags=[{"Key": "kiln:verdict", "Value": f"passed {image} 2026-01-01T00:00:00Z"}])
    images.append(image)
print(json.dumps(images))
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

/// What there is of all services.
pub fn look(emulator: &Emulator) -> Value {
    emulator.python(LOOK, &[])
}

/// The deployer, and an emulated region with two images.
pub struct Region {
    pub emulator: Emulator,
    pub rig: Rig,
    pub images: [String; 2],
}

impl Region {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A region, and a component with changed settings.
    pub fn with(change: impl Fn(&mut FleetSettings)) -> Self {
        let mut rig = Rig::new();
        let emulator = Emulator::start(rig.path(), None);
        rig.on_aws(&emulator);
        let images = emulator.python(IMAGES, &[]);
        let images = [0, 1].map(|number| images[number].as_str().unwrap().to_owned());
        let mut fleet = fleet(&emulator);
        change(&mut fleet);
        let region = Self { rig, emulator, images };
        for image in 0..2 {
            let manifest = manifest(&region.images[image], &fleet);
            fs::write(region.manifest(image), serde_json::to_string_pretty(&manifest).unwrap()).unwrap();
        }
        region
    }

    pub fn manifest(&self, image: usize) -> String {
        self.rig.path().join(format!("{image}.json")).display().to_string()
    }

    /// Has the component's `[deploy.fleet]` say something else for this image.
    pub fn change_settings(&self, image: usize, change: impl Fn(&mut Value)) {
        let path = self.manifest(image);
        let mut manifest: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut manifest["component"]["deploy"]["fleet"]);
        fs::write(path, manifest.to_string()).unwrap();
    }

    /// The journal that the manifest has.
    pub fn journal_in_manifest(&self, image: usize) -> Value {
        json!(manifest::read(self.manifest(image).as_ref()).unwrap().journals["local"])
    }

    /// The journal that the tags of a group have.
    pub fn journal_in_tags(&self, group: &str) -> Value {
        let tags = self.look()["groups"][group]["tags"].clone();
        let parts = (1..).map_while(|number| tags[format!("kiln:journal-{number}")].as_str().map(str::to_owned));
        let text = String::from_iter(parts);
        serde_json::Deserializer::from_str(&text).into_iter().next().expect("a journal").unwrap()
    }

    /// Removes the parameter that has the journal.
    pub fn lose_journal(&self) {
        let name = format!("/kiln/services/{SERVICE}/journal");
        self.emulator.ask("ssm", "delete_parameters", &json!({"Names": [name]}));
    }

    pub fn ask(&self, command: &str, image: usize) -> Ended {
        self.rig.ask("deployer", &[command, "--manifest", &self.manifest(image)])
    }

    /// Runs a command that must succeed. Returns what it printed.
    pub fn run(&self, command: &str, image: usize) -> String {
        let ended = self.ask(command, image);
        assert_eq!(ended.code, Some(0), "{command}:\n{}", ended.stderr);
        ended.stdout.trim().to_owned()
    }

    /// Runs a command that concerns all services and must succeed.
    pub fn run_plain(&self, command: &str) {
        let ended = self.rig.ask("deployer", &[command]);
        assert_eq!(ended.code, Some(0), "{command}:\n{}", ended.stderr);
    }

    /// The group that has the traffic, as the deployer says.
    pub fn status_of_carrier(&self) -> String {
        let ended = self.rig.run("deployer", &["status", "--json", "--manifest", &self.manifest(0)]);
        let status: Value = serde_json::from_str(&ended.stdout).unwrap();
        let mut carrying = status["groups"].as_array().unwrap().iter().filter(|group| group["weight"] == 100);
        carrying.next().expect("a group with traffic")["name"].as_str().unwrap().to_owned()
    }

    pub fn look(&self) -> Value {
        look(&self.emulator)
    }

    /// Fails unless what there is belongs together: one group has all of the traffic, no group's part is without the
    /// others, and none is there twice. Returns the groups that are there, and which one has the traffic.
    pub fn assert_whole(&self) -> (Value, Vec<String>, String) {
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
    pub fn assert_serves(&self, group: &str, kept: Option<&str>, image: usize) -> Value {
        let (look, groups, carrier) = self.assert_whole();
        let mut expected: Vec<_> = kept.into_iter().chain([group]).collect();
        expected.sort_unstable();
        assert_eq!((carrier.as_str(), groups), (group, expected.into_iter().map(str::to_owned).collect()));
        assert_eq!(look["groups"][group]["tags"]["kiln:image"], json!(self.images[image]), "{look:#}");
        look
    }

    /// Runs a command and kills it as soon as its change number `number` has been made and before it knows. `None` if
    /// it ended before that.
    pub fn kill_at(&self, number: usize, command: &str, image: usize) -> Option<String> {
        self.emulator.script(&json!({"call": "*", "only": "changes", "after": number, "do": "hang"}));
        self.kill_when_hung(&[command, "--manifest", &self.manifest(image)])
    }

    /// Runs the deployer and kills it when a call hangs, as the script says. The call; `None` if it ended before that.
    pub fn kill_when_hung(&self, arguments: &[&str]) -> Option<String> {
        let before = self.emulator.calls().len();
        let mut deployer = self.rig.spawn("deployer", arguments);
        let killed = wait_for("the deployer to be stopped", || {
            let calls = self.emulator.calls().split_off(before);
            let hung = calls.iter().find(|call| call["rule"] == "hang");
            let name = hung.map(|call| call["call"].as_str().unwrap().to_owned());
            if name.is_none() && deployer.try_wait().unwrap().is_none() { None } else { Some(name) }
        });
        deployer.kill().unwrap();
        let ended = Ended::of(deployer.wait_with_output().unwrap());
        assert!(killed.is_some() || ended.code == Some(0), "{arguments:?}:\n{}", ended.stderr);
        self.emulator.forget_script();
        killed
    }

    pub fn assert_empty(&self) {
        let look = self.look();
        for (kind, found) in look.as_object().unwrap() {
            let is_empty =
                found.as_array().is_some_and(Vec::is_empty) || found.as_object().is_some_and(serde_json::Map::is_empty);
            assert!(is_empty, "{kind} are left: {look:#}");
        }
    }

    /// Names of the calls that changed something since `before` calls had been made.
    pub fn changes_since(&self, before: usize) -> Vec<String> {
        self.emulator.changes_since(before)
    }
}

/// Settings of a fleet in the emulator's network, and in a zone that is made for it.
pub fn fleet(emulator: &Emulator) -> FleetSettings {
    emulator.ask("route53", "create_hosted_zone", &json!({"Name": "example.com", "CallerReference": "1"}));
    let subnets = emulator.ask("ec2", "describe_subnets", &json!({}))["Subnets"].clone();
    let text = |number: usize, key: &str| subnets[number][key].as_str().unwrap().to_owned();
    FleetSettings {
        dns: Some(NAME.to_owned()),
        step_millis: Some(10),
        healthy_checks: Some(1),
        healthy_seconds: Some(2),
        aws: Some(AwsFleet {
            vpc: Some(text(0, "VpcId")),
            hosted_zone: Some("example.com".to_owned()),
            max_size: Some(4),
            instances: Placement {
                instance_type: Some("t3.small".to_owned()),
                subnets: [0, 1].map(|number| text(number, "SubnetId")).into(),
                ..Placement::default()
            },
            ..AwsFleet::default()
        }),
        ..FleetSettings::default()
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
