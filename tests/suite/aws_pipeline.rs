//! The whole line on AWS, from a commit to a fleet behind a name: stage by stage with the programs, each on a machine of
//! its own as Jenkins runs them, and by `cargo xtask pipeline`. Artifacts and the manifest are in S3.

use std::fs;
use std::process::{Child, Stdio};

use manifest::{IdentityKind, Manifest};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aws_account::{described, disk, only, tag, with_source};
use crate::aws_instance::{console, launches, report, states, task};
use crate::aws_region::look;
use crate::emulator::Emulator;
use crate::rig::{Component, Ended, Rig, loop_devices, succeeded};

const STORE: &str = "s3://line/artifacts";
const MANIFEST: &str = "s3://line/manifests/small.json";

/// An account, a component that is to be deployed in it, and machines that build and deploy.
struct Line {
    /// Before the rig, which looks for what is left.
    aws: Emulator,
    rig: Rig,
    component: Component,
}

impl Line {
    fn new() -> Self {
        let (mut rig, aws) = with_source(Rig::new());
        // Where they work is said on the command line.
        rig.beside_aws(&aws);
        rig.without_manifest();
        aws.ask("s3", "create_bucket", &json!({"Bucket": "line"}));
        aws.ask("route53", "create_hosted_zone", &json!({"Name": "example.com", "CallerReference": "1"}));
        let subnets = aws.ask("ec2", "describe_subnets", &json!({}))["Subnets"].clone();
        let (vpc, subnet) = (&subnets[0]["VpcId"], &subnets[0]["SubnetId"]);

        let component = rig.own_small_component();
        let text = fs::read_to_string(component.path().join("component.toml")).unwrap();
        let fleet = format!(
            "[deploy.environments.live]\ndns = \"small.example.com\"\nstep_millis = 10\nhealthy_checks = 1\n\n\
             [deploy.environments.live.aws]\nvpc = {vpc}\nhosted_zone = \"example.com\"\n\n\
             [deploy.environments.live.aws.instances]\ninstance_type = \"t3.small\"\nsubnets = [{subnet}]\n"
        );
        component.write("component.toml", &format!("{text}\n{fleet}"));
        let template = json!({
            "variables": {"version": ""},
            "builders": [{
                "name": "small", "type": "amazon-chroot", "source_ami": aws.source_ami, "ami_name": "small-{{user `version`}}"
            }],
            "provisioners": [{"type": "shell", "inline": ["echo below > /below"]}, {"type": "artifact"}],
        });
        component.write("image.json", &template.to_string());
        // What is so on this machine, too.
        component.write("goss.yaml", "file:\n  /etc/passwd:\n    exists: true\n");
        component.commit_change("for AWS");
        Self { aws, rig, component }
    }

    /// Starts a stage in the run `run`. Its machine has nothing of the others'.
    fn start(&self, run: &str, stage: &[&str]) -> Child {
        let machine = self.rig.path().join("machines").join(stage[0]);
        let program = self.rig.program(stage[0]).args(&stage[1..]).args(["--provider", "aws", "--manifest", MANIFEST]);
        let program = program.env("KILN_STATE_DIR", machine).env("BUILD_TAG", run);
        program.configure(|it| _ = it.stdout(Stdio::piped()).stderr(Stdio::piped())).spawn().unwrap()
    }

    fn run(&self, run: &str, stage: &[&str]) -> Ended {
        succeeded(ended(self.start(run, stage)))
    }

    /// The stages in order, each with its arguments.
    fn stages(&self) -> [Vec<&str>; 5] {
        let source = self.component.repository.to_str().unwrap();
        [
            vec!["artifact", "build", "--store", STORE, "--source", source],
            vec!["imager", "provision"],
            vec!["imager", "snapshot"],
            vec!["tester", "run"],
            vec!["deployer", "deploy", "--environment", "live"],
        ]
    }

    /// `cargo xtask pipeline` as it is started on one machine.
    fn pipeline(&self, arguments: &[&str]) -> Child {
        let component = self.component.path().display().to_string();
        let order =
            ["pipeline", "--provider", "aws", "--store", STORE, "--manifest", MANIFEST, "--environment", "live"];
        let order = [&order[..], &["--json", "--component", &component], arguments].concat();
        self.rig.spawn("xtask", &order)
    }

    /// The name of the last run of `pipeline` that has made an image: that of its logs.
    fn last_run(&self) -> String {
        let logs = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("pipeline");
        let images = described(&self.aws, "Images");
        let mut runs = images.iter().filter_map(|image| tag(image, "kiln:run").map(str::to_owned));
        runs.find(|run| logs.join(run).join("snapshot.log").is_file()).expect("an image of a run whose logs are there")
    }

    /// Does what the instance does that a test launches, and waits for the test's end.
    fn tested(&self, before: usize, test: Child) -> Ended {
        let report = report(&self.rig, &task(&self.aws, before));
        self.aws.forget_script();
        console(&self.aws, &report);
        succeeded(ended(test))
    }

    fn manifest(&self) -> Manifest {
        serde_json::from_slice(&self.aws.object("line", "manifests/small.json")).unwrap()
    }

    fn service(&self) -> String {
        format!("{}-live", self.manifest().component.name)
    }

    fn group(&self, number: usize) -> String {
        format!("{}-v{number:03}", self.service())
    }

    /// Fails unless the commit has become what the manifest says, and that is there. Returns the id of its image.
    fn assert_made(&self, run: &str, greeting: &str) -> String {
        let manifest = self.manifest();
        let (source, artifact) = (manifest.source.as_ref().unwrap(), manifest.artifact.as_ref().unwrap());
        let head = cli::Command::new("git").arg("-C").arg(&self.component.repository).args(["rev-parse", "HEAD"]);
        assert_eq!(source.commit, head.run().unwrap().text());
        assert_eq!(artifact.store, STORE);
        let digest = &artifact.identity.value;
        let object = self.aws.object("line", &format!("artifacts/sha256/{}/{digest}", &digest[..2]));
        assert_eq!((hex::encode(Sha256::digest(&object)), object.len() as u64), (digest.clone(), artifact.size));

        let volume = self.volume();
        assert_eq!(volume["VolumeId"], manifest.volumes["small"].identity.value);
        assert_eq!(volume["State"], "available");
        assert!(tag(&volume, "kiln:expires").is_some(), "it is only kept for builds to come");

        let recorded = &manifest.images["small"];
        assert_eq!(recorded.identity.kind, IdentityKind::AwsImage);
        let images = described(&self.aws, "Images");
        let image = images.iter().find(|image| image["ImageId"] == recorded.identity.value).unwrap();
        assert_eq!(image["Name"], format!("small-{}", source.version));
        for (name, value) in [
            ("kiln:stage", Some("imager")),
            ("kiln:component", Some(manifest.component.name.as_str())),
            ("kiln:version", Some(&source.version)),
            ("kiln:commit", Some(&source.component_commit)),
            ("kiln:run", Some(run)),
            ("kiln:source-image", Some(&self.aws.source_ami)),
            ("kiln:expires", None),
        ] {
            assert_eq!(tag(image, name), value, "{name}: {image:#}");
        }
        let content = disk(&self.aws, &image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]);
        let read = |file: &str| self.rig.read_from(&content, file);
        assert_eq!([read("/opt/small/greeting"), read("/below")], [greeting, "below"]);

        let verdict = &manifest.tests["small"];
        assert!(verdict.passed && verdict.digest == recorded.digest, "{verdict:#?}");
        assert!(tag(image, "kiln:verdict").unwrap().starts_with(&format!("passed {} ", recorded.identity.value)));
        let stamps = [
            &artifact.stamp,
            &manifest.volumes["small"].stamp,
            &recorded.stamp,
            &verdict.stamp,
            &manifest.deployments["live"].stamp,
        ];
        assert!(stamps.iter().all(|stamp| stamp.stale.is_none()), "{stamps:#?}");
        recorded.identity.value.clone()
    }

    /// The volume that the imager has made, of which there is one.
    fn volume(&self) -> Value {
        let mut volumes = described(&self.aws, "Volumes");
        // Those of the fleet's instances go with them.
        volumes.retain(|volume| tag(volume, "kiln:stage") == Some("imager"));
        only(volumes)
    }

    /// Fails unless group `number` runs the image and has all of the traffic of the name, beside none or one that is kept.
    fn assert_serves(&self, number: usize, kept: Option<usize>, image: &str) {
        let (group, look) = (self.group(number), look(&self.aws));
        let deployment = &self.manifest().deployments["live"];
        assert_eq!((&deployment.group.value, deployment.url.as_str()), (&group, "http://small.example.com/"));
        assert_eq!(deployment.previous_group.as_ref().map(|it| &it.value), kept.map(|kept| self.group(kept)).as_ref());

        let mut weights = look["weights"].as_object().unwrap().clone();
        weights.retain(|_, weight| *weight != 0);
        assert_eq!(json!(weights), json!({&group: 100}), "{look:#}");
        let groups: Vec<_> = look["groups"].as_object().unwrap().keys().cloned().collect();
        let expected: Vec<_> = kept.into_iter().chain([number]).map(|number| self.group(number)).collect();
        assert_eq!((&groups, &look["templates"]), (&expected, &json!(expected)), "{look:#}");
        assert_eq!(look["groups"][&group]["template"]["Version"], "1");
        let version = json!({"LaunchTemplateName": group, "Versions": ["1"]});
        let version = self.aws.ask("ec2", "describe_launch_template_versions", &version);
        assert_eq!(version["LaunchTemplateVersions"][0]["LaunchTemplateData"]["ImageId"], image);
        let its = &look["groups"][&group]["instances"];
        assert_eq!((its.as_array().unwrap().len(), &look["targets"][&group]), (2, its), "{look:#}");
        let instances = self.aws.ask("ec2", "describe_instances", &json!({"InstanceIds": its}));
        let instances = instances["Reservations"].as_array().unwrap().iter().flat_map(|it| it["Instances"].as_array());
        assert!(instances.flatten().all(|instance| instance["ImageId"] == image));

        let record = only(look["records"].as_array().unwrap().clone());
        let balancer = self.aws.ask("elbv2", "describe_load_balancers", &json!({"Names": [self.service()]}));
        assert_eq!((&record["Name"], &record["Type"]), (&json!("small.example.com."), &json!("A")));
        let alias = record["AliasTarget"]["DNSName"].as_str().unwrap();
        assert_eq!(alias.trim_end_matches('.'), balancer["LoadBalancers"][0]["DNSName"]);
    }

    /// Fails if more is left of stages than what they made: `images` images with their snapshots, one volume, one layer.
    fn assert_nothing_beside(&self, images: usize) {
        assert_eq!(described(&self.aws, "Images").len(), images);
        self.volume();
        let (layers, snapshots): (Vec<_>, Vec<_>) =
            described(&self.aws, "Snapshots").into_iter().partition(|it| tag(it, "kiln:made-by").is_some());
        assert_eq!(tag(&only(layers), "kiln:made-by"), Some("small: shell"));
        assert_eq!(snapshots.len(), images);
        assert!(snapshots.iter().all(|snapshot| tag(snapshot, "kiln:expires").is_none()), "{snapshots:#?}");
        assert!(states(&self.aws).iter().all(|state| state == "terminated"), "an instance of the tester runs");
        assert_eq!(loop_devices(&self.rig.path().display().to_string()), Vec::<String>::new());
    }
}

fn ended(child: Child) -> Ended {
    Ended::of(child.wait_with_output().unwrap())
}

#[test]
fn a_commit_becomes_a_fleet_and_the_next_one_replaces_it() {
    let line = Line::new();
    let [artifact, provision, snapshot, test, deploy] = line.stages();
    for stage in [&artifact, &provision, &snapshot] {
        line.run("jenkins-1", stage);
    }
    line.tested(0, line.start("jenkins-1", &test));
    let deployed = line.run("jenkins-1", &deploy);
    assert_eq!(deployed.stdout.trim(), "http://small.example.com/");
    let first = line.assert_made("jenkins-1", "hello");
    line.assert_serves(0, None, &first);
    line.assert_nothing_beside(1);

    // Again: nothing happens, but that the deployer takes its lock.
    let manifest = line.aws.object("line", "manifests/small.json");
    for stage in line.stages() {
        let before = line.aws.calls().len();
        let again = line.run("jenkins-2", &stage);
        assert!(again.stderr.lines().last().unwrap().starts_with("unchanged: "), "{stage:?}: {}", again.stderr);
        let lock: &[&str] = match stage[0] {
            "deployer" => &["ssm:PutParameter", "ssm:DeleteParameters", "ssm:PutParameter"],
            _ => &[],
        };
        assert_eq!(line.aws.changes_since(before), lock, "{stage:?}");
    }
    assert_eq!(line.aws.object("line", "manifests/small.json"), manifest);

    // The next commit goes down the line with one command, or some stages of it do.
    line.component.write("files/greeting", "good evening\n");
    line.component.commit_change("another greeting");
    succeeded(ended(line.pipeline(&["--only", "artifact"])));
    let provisioned = succeeded(ended(line.pipeline(&["--only", "provision"])));
    assert!(provisioned.stderr.contains("shell: cached"), "{}", provisioned.stderr);
    let before = launches(&line.aws).len();
    let report = line.tested(before, line.pipeline(&["--from", "snapshot"]));
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    assert_eq!((&report["url"], &report["manifest"]), (&json!("http://small.example.com/"), &json!(MANIFEST)));
    let second = line.assert_made(&line.last_run(), "good evening");
    assert_ne!(first, second);
    line.assert_serves(1, Some(0), &second);
    line.assert_nothing_beside(2);
    let before = line.aws.calls().len();
    let report = succeeded(ended(line.pipeline(&[])));
    let report: Value = serde_json::from_str(&report.stdout).unwrap();
    let stages = report["stages"].as_array().unwrap().iter();
    let results: Vec<_> = stages.map(|it| (it["stage"].as_str().unwrap(), it["result"].as_str().unwrap())).collect();
    let expected = ["setup", "artifact", "provision", "snapshot", "test", "deploy"].map(|stage| (stage, "unchanged"));
    assert_eq!(results, expected);
    assert_eq!(line.aws.changes_since(before).len(), 3, "the lock");

    // The end: what is used is not removed, and what is only kept for builds to come is, once its time is over.
    let imager = |arguments: &[&str]| line.rig.ask("imager", &[arguments, &["--provider", "aws"]].concat());
    let in_use = imager(&["remove", &second]);
    assert_eq!(in_use.code, Some(3), "{}", in_use.stderr);
    assert!(in_use.stderr.contains("is in use by i-"), "{}", in_use.stderr);
    line.run("by hand", &["deployer", "destroy", "--environment", "live"]);
    assert!(line.manifest().deployments.is_empty());
    let left = look(&line.aws);
    for (kind, left) in left.as_object().unwrap() {
        assert!(*left == json!([]) || *left == json!({}), "{kind}: {left:#}");
    }
    succeeded(imager(&["remove", &first, &second]));
    line.assert_nothing_beside(0);
    assert!(succeeded(imager(&["gc"])).stderr.contains("unchanged: "));
    let (volume, layer) = (line.volume(), only(described(&line.aws, "Snapshots")));
    let ids = [&volume["VolumeId"], &layer["SnapshotId"]].map(|id| id.as_str().unwrap());
    let over = json!([{"Key": "kiln:expires", "Value": "2020-01-01T00:00:00Z"}]);
    line.aws.ask("ec2", "create_tags", &json!({"Resources": ids, "Tags": over}));
    assert_eq!(succeeded(imager(&["gc"])).stdout.lines().collect::<Vec<_>>(), ids);
    assert!(described(&line.aws, "Volumes").is_empty() && described(&line.aws, "Snapshots").is_empty());
}
