//! The tester on AWS: what it launches, how the verdict comes out, and that nothing stays.

use std::fs;
use std::process::Child;

use manifest::CheckOutcome;
use serde_json::{Value, json};

use crate::aws_account::{described, tag, with_source};
use crate::aws_instance::{console, instances, launches, report, states, task};
use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, wait_for};

const STORE: &str = "s3://artifacts/line";

/// A machine on AWS with an untested image of a component whose instances are put as `placement` says.
fn image(placement: &str) -> (Rig, Emulator) {
    let (rig, emulator) = with_source(Rig::new());
    emulator.ask("iam", "create_instance_profile", &json!({"InstanceProfileName": "tested"}));
    build_artifact(&rig, &emulator, placement, |template| template.replace("bookworm", &emulator.source_ami));
    rig.run("imager", &["build"]);
    (rig, emulator)
}

/// Builds the artifact of a component that can be tested on AWS, with its instances where `placement` says.
pub fn build_artifact(rig: &Rig, emulator: &Emulator, placement: &str, template: impl FnOnce(String) -> String) {
    emulator.ask("s3", "create_bucket", &json!({"Bucket": "artifacts"}));
    let component = rig.own_small_component();
    let text = fs::read_to_string(component.path().join("component.toml")).unwrap();
    let subnets = emulator.ask("ec2", "describe_subnets", &json!({}))["Subnets"].clone();
    let subnet = |number: usize| subnets[number]["SubnetId"].as_str().unwrap();
    let placement = placement.replace("FIRST", subnet(0)).replace("SECOND", subnet(1));
    component.write("component.toml", &text.replace("[deploy]", &format!("[test.aws]\n{placement}\n[deploy]")));
    let written = fs::read_to_string(component.path().join("image.json")).unwrap();
    component.write("image.json", &template(written));
    // What is so on this machine, too.
    component.write("goss.yaml", "file:\n  /etc/passwd:\n    exists: true\n");
    component.commit_change("for AWS");
    let source = component.repository.display().to_string();
    rig.run("artifact", &["build", "--store", STORE, "--source", &source]);
}

fn test(rig: &Rig, arguments: &[&str]) -> Child {
    rig.spawn("tester", &[&["run"], arguments].concat())
}

fn ended(tester: Child) -> Ended {
    Ended::of(tester.wait_with_output().unwrap())
}

#[test]
fn an_image_is_tested_by_an_instance_that_is_gone_afterwards() {
    let (rig, emulator) =
        image("instance_type = \"t3.micro\"\nsubnets = [\"FIRST\", \"SECOND\"]\ninstance_profile = \"tested\"");
    emulator.script(&json!({"call": "ec2:RunInstances", "do": "refuse", "code": "InsufficientInstanceCapacity"}));
    for service in ["ec2:*", "s3:*"] {
        emulator.trouble_each(service);
    }
    // Only instances of Nitro's kind have a console of now.
    emulator.script(&json!({"call": "ec2:GetConsoleOutput", "do": "refuse", "code": "UnsupportedOperation"}));
    let tester = test(&rig, &[]);
    let written = report(&rig, &task(&emulator, 0));
    console(&emulator, &format!("[    0.000000] Linux version 6.1\n{written}debian login: "));
    let ended = ended(tester);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    emulator.forget_script();

    let manifest = rig.manifest();
    let verdict = &manifest.tests["small"];
    assert!(verdict.passed, "{verdict:#?}");
    let phases = ["offline", "booted"].map(|phase| verdict.checks.iter().filter(|check| check.phase == phase).count());
    assert!(phases[0] > 3 && phases[1] == 2, "{phases:?}");
    let image = json!({"ImageIds": [manifest.images["small"].identity.value]});
    let image = &emulator.ask("ec2", "describe_images", &image)["Images"][0];
    assert!(tag(image, "kiln:verdict").unwrap().starts_with("passed "), "{image}");

    let all = instances(&emulator);
    assert_eq!(all.len(), 1, "an answer that was lost has launched another instance");
    let instance = &all[0];
    assert_eq!(instance["State"]["Name"], "terminated");
    assert_eq!(instance["MetadataOptions"]["HttpTokens"], "required");
    assert_eq!(tag(instance, "kiln:component"), Some(manifest.component.name.as_str()));
    assert_eq!(tag(instance, "kiln:purpose"), Some("test of small"));
    let expires: jiff::Timestamp = tag(instance, "kiln:expires").unwrap().parse().unwrap();
    let hours = expires.duration_since(jiff::Timestamp::now()).as_hours();
    assert!(expires > jiff::Timestamp::now() && hours == 0, "{expires}");
    let volumes = emulator.ask("ec2", "describe_volumes", &json!({}))["Volumes"].as_array().unwrap().clone();
    assert!(!volumes.iter().any(|volume| tag(volume, "kiln:stage") == Some("tester")), "{volumes:#?}");

    let launches = launches(&emulator);
    assert_ne!(launches[0]["SubnetId"], launches[1]["SubnetId"], "the first is full");
    let launches = &launches[1..];
    assert_eq!(instance["SubnetId"], launches[0]["SubnetId"]);
    let tokens: Vec<_> = launches.iter().map(|it| it["ClientToken"].as_str().unwrap()).collect();
    assert!(tokens.len() == 3 && tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
    for (name, value) in [
        ("MetadataOptions.HttpTokens", "required"),
        ("MetadataOptions.InstanceMetadataTags", "enabled"),
        ("InstanceInitiatedShutdownBehavior", "terminate"),
        ("InstanceType", "t3.micro"),
        ("IamInstanceProfile.Name", "tested"),
        ("BlockDeviceMapping.1.Ebs.DeleteOnTermination", "true"),
        ("TagSpecification.1.ResourceType", "instance"),
        ("TagSpecification.2.ResourceType", "volume"),
    ] {
        assert_eq!(launches[0][name], value, "{name}: {:#}", launches[0]);
    }
    assert!(launches[0].get("KeyName").is_none());
    let of_now = |call: &Value| call["parameters"]["Latest"].as_str() == Some("true");
    let consoles: Vec<_> = emulator.calls().into_iter().filter(|it| it["call"] == "ec2:GetConsoleOutput").collect();
    assert!(consoles.iter().any(of_now) && !consoles.iter().all(of_now));

    let again = rig.run("tester", &["run"]);
    assert!(again.stderr.contains("unchanged: "), "{}", again.stderr);
}

#[test]
fn no_instance_stays_whatever_happens() {
    let (rig, emulator) = image("");
    let said = |ended: &Ended, code: i32, words: &[&str]| {
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        for word in words {
            assert!(ended.stderr.contains(word), "no word of '{word}': {}", ended.stderr);
        }
    };

    // Refusals: nothing is launched.
    for (call, code, words) in [
        ("s3:PUT *", "AccessDenied", ["allow the action s3:PutObject", "offering the probe"]),
        ("ec2:RunInstances", "VcpuLimitExceeded", ["VcpuLimitExceeded", "have the quota raised"]),
        ("ec2:RunInstances", "UnauthorizedOperation", ["allow the action ec2:RunInstances", "launching"]),
    ] {
        emulator.script(&json!({"call": call, "do": "refuse", "status": 403, "code": code, "message": "no"}));
        said(&rig.ask("tester", &["run"]), 3, &words);
    }
    let elsewhere = rig.path().join("store").display().to_string();
    said(&rig.ask("tester", &["run", "--store", &elsewhere]), 2, &[&elsewhere, "--store s3://BUCKET/PREFIX"]);
    said(&rig.ask("tester", &["run", "--via", "ssm"]), 2, &["set instance_profile in [test.aws]"]);
    assert!(instances(&emulator).is_empty());

    // It ends by itself.
    let tester = test(&rig, &[]);
    let running = || instances(&emulator).into_iter().find(|it| it["State"]["Name"] == "running");
    let instance = wait_for("an instance", running);
    emulator.ask("ec2", "terminate_instances", &json!({"InstanceIds": [instance["InstanceId"]]}));
    said(&ended(tester), 3, &["ended before it had been checked", "no word of cloud-init"]);

    // Ctrl-C, or a service manager's end.
    let interrupt = |signal: &str, tester: Child| {
        cli::Command::new("kill").args([signal, &tester.id().to_string()]).run().unwrap();
        said(&ended(tester), 130, &["interrupted"]);
    };
    for signal in ["-INT", "-TERM"] {
        let tester = test(&rig, &[]);
        wait_for("an instance", running);
        interrupt(signal, tester);
    }
    assert_eq!(states(&emulator), ["terminated"; 3]);

    // The same while the volume is being attached on which the disk is audited.
    let volumes = described(&emulator, "Volumes");
    for signal in ["-INT", "-TERM"] {
        let before = emulator.calls().len();
        emulator.script(&json!({
            "call": "ec2:DescribeVolumes", "times": 1000, "do": "replace", "old": "<status>attached</status>",
            "new": "<status>attaching</status>"
        }));
        let tester = test(&rig, &[]);
        let attached = |call: &Value| call["call"] == "ec2:AttachVolume";
        wait_for("a volume", || emulator.calls()[before..].iter().any(attached).then_some(()));
        interrupt(signal, tester);
        emulator.forget_script();
        assert_eq!(described(&emulator, "Volumes"), volumes);
    }
    assert_eq!(states(&emulator).len(), 3);

    // kill -9: what is left is ended when its time is over, and nothing else is.
    let mut tester = test(&rig, &[]);
    let left = wait_for("an instance", running)["InstanceId"].clone();
    tester.kill().unwrap();
    tester.wait().unwrap();
    let early = rig.run("tester", &["gc"]);
    assert!(early.stderr.contains("unchanged: no instance has outlived its test"), "{}", early.stderr);
    let past = json!([{"Key": "kiln:expires", "Value": "2020-01-01T00:00:00Z"}]);
    let foreign = json!(emulator.instance);
    emulator.ask("ec2", "create_tags", &json!({"Resources": [left, foreign], "Tags": past}));
    let collected = rig.run("tester", &["gc"]);
    assert_eq!(collected.stdout.trim(), left.as_str().unwrap());
    assert_eq!(states(&emulator), ["terminated"; 4]);
    let foreign = emulator.ask("ec2", "describe_instances", &json!({"InstanceIds": [foreign]}));
    assert_eq!(foreign["Reservations"][0]["Instances"][0]["State"]["Name"], "running");
}

#[test]
fn a_report_comes_by_systems_manager_and_a_disk_out_of_reach_is_said_to_be() {
    let (rig, emulator) = image("instance_profile = \"tested\"");
    emulator.trouble_each("ssm:*");
    // Its agent has not reported yet, then the file is not there yet.
    emulator.script(&json!({"call": "ssm:SendCommand", "do": "refuse", "code": "InvalidInstanceId"}));
    let answer = |status: &str, text: &str| {
        let body = json!({"Status": status, "StandardOutputContent": text}).to_string();
        emulator.script(&json!({"call": "ssm:GetCommandInvocation", "do": "answer", "body": body}));
    };
    emulator.script(&json!({"call": "ssm:GetCommandInvocation", "do": "refuse", "code": "InvocationDoesNotExist"}));
    answer("InProgress", "");
    answer("Failed", "");
    // This machine is no instance.
    let nowhere = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1");
    let tester = rig.program("tester").args(["run", "--via", "ssm"]).env(nowhere.0, nowhere.1);
    let tester =
        tester.configure(|it| _ = it.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()));
    let tester = tester.spawn().unwrap();
    let task = task(&emulator, 0);
    assert_eq!(task["report"], "/var/lib/kiln-probe/report");
    answer("Success", &report(&rig, &task));
    let ended = ended(tester);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("the disk is not audited"), "{}", ended.stderr);
    let verdict = &rig.manifest().tests["small"];
    let audit = verdict.checks.iter().find(|check| check.phase == "offline").unwrap();
    assert_eq!(audit.outcome, CheckOutcome::Skipped);
    assert!(audit.message.as_ref().unwrap().contains("on an EC2 instance only"), "{audit:?}");
    assert_eq!(states(&emulator), ["terminated"]);
}
