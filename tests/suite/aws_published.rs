//! What was built here and published on AWS goes on there: it is tested, and it is deployed.

use std::fs;

use manifest::IdentityKind;
use serde_json::json;

use crate::aws_account::tag;
use crate::aws_instance::{console, report, task};
use crate::aws_publish::Setting;
use crate::aws_region::fleet;
use crate::aws_tester::build_artifact;
use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, succeeded};

const PLACE: &str = "aws us-east-1";

/// A machine beside AWS with an image that was built on it, by a builder with these options beside the usual ones.
pub fn built_here(options: &str) -> (Rig, Emulator) {
    let mut rig = Rig::new();
    let emulator = Emulator::start(rig.path(), None);
    rig.beside_aws(&emulator);
    let name = r#""ami_name": "small""#;
    build_artifact(&rig, &emulator, "", |template| template.replace(name, &format!("{name}{options}")));
    rig.run("imager", &["build"]);
    (rig, emulator)
}

/// Fails unless the program said no with this code and these words.
pub fn refused(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, Some(code), "{}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "{word:?} is not in: {}", ended.stderr);
    }
}

#[test]
fn what_was_published_is_tested_and_deployed_there() {
    let (rig, emulator) = built_here("");
    let aws = |program: &str, command: &str| rig.ask(program, &[command, "--provider", "aws"]);
    let fleet = fleet(&emulator);
    let set_fleet = |manifest: &mut manifest::Manifest| {
        let deploy = manifest.component.deploy.as_mut().unwrap();
        (deploy.dns, deploy.fleet) = (fleet.dns.clone().unwrap(), fleet);
    };
    manifest::update(&rig.manifest_path(), None, set_fleet).unwrap();
    let image = rig.manifest().images["small"].clone();
    let local = image.identity.value.as_str();
    for (program, command) in [("tester", "run"), ("deployer", "plan"), ("deployer", "deploy")] {
        refused(&aws(program, command), 2, &[local, "is not known at aws us-east-1", "`imager publish --to aws`"]);
    }

    // What it has earned here is not enough there.
    rig.run("tester", &["run"]);
    let ami = rig.run("imager", &["publish", "--to", "aws"]).stdout.trim().to_owned();
    assert!(rig.manifest().tests["small"].stamp.stale.is_none());
    refused(&aws("deployer", "deploy"), 1, &[&ami, "has not been tested here", local]);

    // moto keeps blocks and no disk.
    let described = || emulator.ask("ec2", "describe_images", &json!({"ImageIds": [ami]}))["Images"][0].clone();
    let snapshot = described()["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"].as_str().unwrap().to_owned();
    fs::hard_link(rig.state().join("images").join(local).join("disk.raw"), emulator.disks.join(snapshot)).unwrap();
    let tester = rig.spawn("tester", &["run", "--provider", "aws"]);
    console(&emulator, &report(&rig, &task(&emulator, 0)));
    let tested = succeeded(Ended::of(tester.wait_with_output().unwrap()));
    assert_eq!(tested.stdout.trim(), format!("{ami} passed"));
    let verdict = &rig.manifest().tests["small"];
    assert_eq!((&verdict.stamp.consumed.value, &verdict.digest), (&ami, &image.digest));
    assert!(verdict.passed && verdict.stamp.stale.is_none() && verdict.checks.iter().any(|it| it.phase == "offline"));
    let written = format!("passed {} ", image.digest);
    assert!(tag(&described(), "kiln:verdict").unwrap().starts_with(&written), "{}", described());
    let again = succeeded(aws("tester", "run"));
    assert!(again.stderr.contains("unchanged: "), "{}", again.stderr);
    refused(&rig.ask("deployer", &["plan"]), 1, &[local, "has not been tested here", &ami]);

    // An image of other content is another image, whatever its id.
    let other = json!([{"Key": "kiln:digest", "Value": "0".repeat(64)}]);
    emulator.ask("ec2", "create_tags", &json!({"Resources": [ami], "Tags": other}));
    refused(&aws("deployer", "deploy"), 2, &[&ami, "sha256:0000", &image.digest.value, "`imager publish --to aws`"]);
    refused(&rig.ask("tester", &["run", "--provider", "aws", "--force"]), 3, &[&ami, "is damaged", "sha256:0000"]);
    rig.run("imager", &["publish", "--to", "aws"]);

    succeeded(aws("deployer", "deploy"));
    let manifest = rig.manifest();
    let deployment = &manifest.deployments["local"];
    assert_eq!(
        (deployment.stamp.consumed.kind, deployment.group.kind),
        (IdentityKind::AwsImage, IdentityKind::AwsGroup)
    );
    assert_eq!((&deployment.stamp.consumed.value, &deployment.stamp.stale), (&ami, &None));
    let of = json!({"LaunchTemplateName": deployment.group.value, "Versions": ["1"]});
    let template = emulator.ask("ec2", "describe_launch_template_versions", &of);
    assert_eq!(template["LaunchTemplateVersions"][0]["LaunchTemplateData"]["ImageId"], json!(ami));
    let again = succeeded(aws("deployer", "deploy"));
    assert!(again.stderr.contains("unchanged: "), "{}", again.stderr);

    // The same manifest goes on here as well; what is there stays what it is.
    assert_eq!(rig.run("tester", &["run"]).stdout.trim(), format!("{local} passed"));
    rig.run("deployer", &["plan"]);
    let manifest = rig.manifest();
    assert_eq!(manifest.tests["small"].stamp.consumed, image.identity);
    assert_eq!(manifest.deployments["local"].stamp.stale, None);
    assert_eq!(manifest.images["small"].published[PLACE].identity.value, ami);
}

#[test]
fn snapshots_of_the_image_that_is_replaced_go_where_the_template_says_so() {
    let setting = Setting::new();
    for (name, content) in [("old", b"1"), ("shared", b"2"), ("new", b"3")] {
        setting.image(name, 1 << 20, &[(100, content)]);
    }
    let replaces = |volume: &mut serde_json::Value| {
        volume["force_deregister"] = json!(true);
        volume["publication"] = json!({ "delete_replaced_snapshots": true });
    };
    let publish = |image: &str| {
        setting.write_manifest(image, replaces);
        succeeded(setting.publish(&["--name", "service"]));
        let snapshots = setting.snapshots();
        let of = |it: &serde_json::Value| it["Description"].as_str().unwrap().split(' ').next().unwrap().to_owned();
        snapshots.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(publish("img-old"), ["old"]);
    succeeded(setting.publish(&["img-shared", "--name", "other"]));
    assert_eq!(publish("img-shared"), ["shared"], "it is the snapshot of both");
    assert_eq!(publish("img-new"), ["shared", "new"], "the other image consists of it");
    assert_eq!(setting.images().len(), 2);
}

#[test]
fn what_an_image_cannot_have_is_refused_by_name() {
    let setting = Setting::new();
    setting.image("hello", 1 << 20, &[(100, b"1")]);
    let record = setting.rig.state().join("images/img-hello/image.json");
    fs::write(&record, fs::read_to_string(&record).unwrap().replace("\"hvm\"", "\"paravirtual\"")).unwrap();
    setting.write_manifest("img-hello", |volume| volume["publication"] = json!({ "ena": true, "boot_mode": "uefi" }));
    let words = ["registering a paravirtual image: the template says ena_support, boot_mode", "only hvm images"];
    refused(&setting.publish(&[]), 2, &words);
    assert!(setting.snapshots().is_empty());
}
