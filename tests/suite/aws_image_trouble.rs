//! Images on AWS when something is in the way: runs that are killed or interrupted, calls that are refused or not
//! answered, names that are taken. At the end the same is there as without it, or nothing.

use serde_json::{Value, json};

use crate::aws_account::{assert_one_of_each, build, described, disk, on_aws, only, tag, template, with_artifact};
use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, loop_devices, processes_with, shell, succeeded, wait_for};

/// Kills the imager at each of these calls, before it was carried out and after; what is asserted `then` runs it again.
/// `set` is done ahead of each. Returns how often it was killed.
fn kill_at_each(
    rig: &Rig,
    emulator: &Emulator,
    arguments: &[&str],
    calls: &Value,
    set: impl Fn(),
    then: impl Fn(&str),
) -> u32 {
    let before = std::fs::read(rig.manifest_path()).unwrap();
    let mut killed = 0;
    for how in ["stall", "hang"] {
        for after in 0.. {
            set();
            let done = emulator.calls().len();
            let mut rule = json!({ "after": after, "do": how });
            rule.as_object_mut().unwrap().extend(calls.as_object().unwrap().clone());
            emulator.script(&rule);
            let mut child = rig.spawn("imager", arguments);
            let reached = wait_for("the call, or the end", || {
                let ended = child.try_wait().unwrap().is_some();
                let held = emulator.calls().split_off(done).into_iter().find(|call| call["held"] == true);
                (ended || held.is_some()).then_some(held)
            });
            child.kill().unwrap();
            child.wait().unwrap();
            emulator.forget_script();
            let call = reached.as_ref().map_or("none", |call| call["call"].as_str().unwrap());
            then(call);
            std::fs::write(rig.manifest_path(), &before).unwrap();
            if reached.is_none() {
                break;
            }
            killed += 1;
        }
    }
    killed
}

/// Kills `imager snapshot` at each of these calls and runs it again: all is as after one undisturbed run. Returns how
/// often it was killed.
fn kill_snapshot_at(rig: &Rig, emulator: &Emulator, calls: &str, set: impl Fn()) -> u32 {
    kill_at_each(rig, emulator, &["snapshot"], &json!({ "call": calls }), set, |_| {
        let taken = succeeded(rig.ask("imager", &["snapshot"]));
        let (image, _) = assert_one_of_each(emulator);
        assert_eq!(image["ImageId"], taken.stdout.trim());
        succeeded(rig.ask("imager", &["remove", taken.stdout.trim()]));
    })
}

#[test]
fn a_provisioning_that_is_killed_anywhere_leaves_no_more_than_a_layer_for_the_next() {
    let (rig, emulator) = with_artifact();
    let text = template(&emulator, "", &[&shell("echo 1 > /one"), r#"{ "type": "artifact" }"#]);
    let path = rig.template(&text);
    let changes = json!({ "call": "ec2:*", "only": "changes" });
    let killed = kill_at_each(
        &rig,
        &emulator,
        &["provision", &path],
        &changes,
        || {},
        |call| {
            let provisioned = succeeded(rig.provision(&text, &[]));
            let volume = only(described(&emulator, "Volumes"));
            assert_eq!(
                (&volume["VolumeId"], &volume["State"]),
                (&provisioned.stdout.trim().into(), &"available".into())
            );
            assert!(tag(&volume, "kiln:layer").is_some(), "{call}: {volume:#}");
            assert!(tag(&only(described(&emulator, "Snapshots")), "kiln:made-by").is_some(), "{call}");
            succeeded(rig.ask("imager", &["layers", "--prune", "--older-than", "0"]));
            emulator.ask("ec2", "delete_volume", &json!({ "VolumeId": volume["VolumeId"] }));
        },
    );
    assert!(killed >= 2 * 5, "{killed}");
}

#[test]
fn a_snapshot_that_is_killed_anywhere_is_taken_up() {
    let (rig, emulator) = with_artifact();
    let text = template(&emulator, r#", "ami_users": ["111111111111"]"#, &[r#"{ "type": "artifact" }"#]);
    succeeded(rig.provision(&text, &[]));
    let killed = kill_snapshot_at(&rig, &emulator, "ec2:*", || {});
    assert!(killed > 16, "{killed}");
}

#[test]
fn a_name_is_taken_over_by_who_is_killed_anywhere() {
    let (rig, emulator) = with_artifact();
    let text = template(&emulator, r#", "force_deregister": true"#, &[r#"{ "type": "artifact" }"#]);
    succeeded(rig.provision(&text, &[]));
    let somebodys = || drop(emulator.ask("ec2", "register_image", &json!({"Name": "image-b"})));
    let killed = kill_snapshot_at(&rig, &emulator, "ec2:DeregisterImage", somebodys);
    // It is refused, registered under another name, and under its own; the old one and the interim one are given up.
    assert_eq!(killed, 2 * 2);
    let killed = kill_snapshot_at(&rig, &emulator, "ec2:RegisterImage", somebodys);
    assert_eq!(killed, 2 * 3);
}

#[test]
fn throttled_and_unanswered_calls_change_nothing() {
    let (rig, emulator) = on_aws();
    for (kind, content) in [("throttle", "1"), ("lose", "2")] {
        // We repeat CreateSnapshot ourselves, so that every attempt is a call.
        emulator.script(&json!({ "call": "ec2:CreateSnapshot", "do": kind }));
        for others in ["ec2:[!C]*", "ec2:Create[!S]*"] {
            emulator.script(&json!({ "call": others, "each": true, "do": kind }));
        }
        let line = shell(&format!("echo {content} > /content"));
        let built = succeeded(build(&rig, &template(&emulator, "", &[&line]), &[]));
        let (image, snapshot) = assert_one_of_each(&emulator);
        assert_eq!(image["ImageId"], built.stdout.trim());
        assert_eq!(rig.read_from(&disk(&emulator, &snapshot["SnapshotId"]), "/content"), content);
        let volume = only(described(&emulator, "Volumes"));
        succeeded(rig.ask("imager", &["remove", built.stdout.trim()]));
        emulator.forget_script();
        emulator.ask("ec2", "delete_volume", &json!({ "VolumeId": volume["VolumeId"] }));
    }
    assert!(described(&emulator, "Snapshots").is_empty());
}

#[test]
fn a_name_is_taken_over_when_nothing_else_is_wrong() {
    let (rig, emulator) = on_aws();
    let first = succeeded(build(&rig, &template(&emulator, "", &[&shell("echo 1 > /content")]), &[]));
    let second = template(&emulator, "", &[&shell("echo 2 > /content")]);
    let refused = build(&rig, &second, &[]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("the image name 'image-b' is taken by ami-"), "{}", refused.stderr);

    // EC2 refuses the new one for its name, and then for another reason: the old one is not given up.
    let reason = |after: u32| json!({ "call": "ec2:RegisterImage", "after": after, "do": "refuse", "code": "InvalidParameterValue", "message": "no" });
    emulator.script(&reason(1));
    let failed = build(&rig, &second, &["-force"]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert_eq!(only(described(&emulator, "Images"))["ImageId"], first.stdout.trim());

    // It refuses it again once the old one is given up: the new one is there all the same.
    emulator.script(&reason(2));
    let failed = build(&rig, &second, &["-force"]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    let image = only(described(&emulator, "Images"));
    let id = image["ImageId"].as_str().unwrap();
    assert!(failed.stderr.contains(&format!("the new image is {id}, called 'image-b (interim)'")), "{}", failed.stderr);
    let content = disk(&emulator, &image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]);
    assert_eq!(rig.read_from(&content, "/content"), "2");
    let built = succeeded(build(&rig, &second, &["-force"]));
    let image = only(described(&emulator, "Images"));
    assert_eq!((image["ImageId"].as_str(), &image["Name"]), (Some(built.stdout.trim()), &json!("image-b")));
    assert_eq!(tag(&image, "kiln:expires"), None);
    let replaced = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"].clone();

    let options = r#", "force_deregister": true, "force_delete_snapshot": true"#;
    let third = template(&emulator, options, &[&shell("echo 3 > /content")]);
    let built = succeeded(build(&rig, &third, &[]));
    let image = only(described(&emulator, "Images"));
    assert_eq!(image["ImageId"], built.stdout.trim());
    let snapshot = &image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"];
    assert_eq!(rig.read_from(&disk(&emulator, snapshot), "/content"), "3");
    assert!(!described(&emulator, "Snapshots").iter().any(|snapshot| snapshot["SnapshotId"] == replaced));
}

#[test]
fn only_what_is_ours_and_over_is_collected() {
    let (rig, emulator) = on_aws();
    let failing = template(&emulator, "", &[&shell("false")]);
    let failed = build(&rig, &failing, &["-on-error=abort"]);
    assert!(failed.stderr.contains("and `imager gc` deletes it after"), "{}", failed.stderr);
    let left = only(described(&emulator, "Volumes"));
    assert_eq!(left["State"], "in-use");
    let none = succeeded(rig.ask("imager", &["gc"]));
    assert!(none.stderr.contains("unchanged: dead runs have left nothing"), "{}", none.stderr);

    let stranger = emulator.ask("ec2", "create_volume", &json!({ "AvailabilityZone": "us-east-1a", "Size": 1 }));
    let over = json!([{ "Key": "kiln:expires", "Value": "2020-01-01T00:00:00Z" }]);
    emulator.ask("ec2", "create_tags", &json!({ "Resources": [stranger["VolumeId"], left["VolumeId"]], "Tags": over }));
    let dry = succeeded(rig.ask("imager", &["gc", "--dry-run"]));
    assert_eq!(left["VolumeId"], dry.stdout.trim());
    assert_eq!(described(&emulator, "Volumes").len(), 1);
    let collected = succeeded(rig.ask("imager", &["gc"]));
    assert_eq!(left["VolumeId"], collected.stdout.trim());
    assert!(described(&emulator, "Volumes").is_empty());
    let all = emulator.ask("ec2", "describe_volumes", &json!({}));
    assert!(all["Volumes"].as_array().unwrap().iter().any(|it| it["VolumeId"] == stranger["VolumeId"]));

    // Ctrl-C, and any failure, leave nothing.
    assert_eq!(build(&rig, &failing, &[]).code, Some(3));
    assert!(described(&emulator, "Volumes").is_empty());
}

#[test]
fn what_is_not_known_yet_is_waited_for() {
    let (rig, emulator) = on_aws();
    for (call, with, code) in [
        ("DescribeVolumes", Some("VolumeId.1"), "InvalidVolume.NotFound"),
        ("DescribeSnapshots", Some("SnapshotId.1"), "InvalidSnapshot.NotFound"),
        ("RegisterImage", None, "InvalidSnapshot.NotFound"),
        ("DescribeImages", Some("ImageId.1"), "InvalidAMIID.NotFound"),
    ] {
        // The first look at an image is at the source, and that for its volume the second.
        let skip = if call == "DescribeImages" { 3 } else { 0 };
        let mut rule =
            json!({ "call": format!("ec2:{call}"), "after": skip, "do": "refuse", "code": code, "message": "not yet" });
        if let Some(with) = with {
            rule["with"] = json!({ with: "*" });
        }
        emulator.script(&rule);
    }
    succeeded(build(&rig, &template(&emulator, "", &[&shell("true")]), &[]));
    assert_one_of_each(&emulator);
}

#[test]
fn messages_say_what_to_do() {
    let (rig, emulator) = on_aws();
    let text = template(&emulator, "", &[&shell("true")]);
    for (call, code, remedy) in [
        ("CreateVolume", "UnauthorizedOperation", "allow the action ec2:CreateVolume in the policy"),
        ("CreateVolume", "VolumeLimitExceeded", "have the quota raised"),
        ("AttachVolume", "UnauthorizedOperation", "allow the action ec2:AttachVolume in the policy"),
        ("DescribeImages", "AuthFailure", "not valid in this region"),
    ] {
        emulator.script(&json!({ "call": format!("ec2:{call}"), "do": "refuse", "code": code, "message": "no" }));
        let ended = build(&rig, &text, &[]);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(remedy), "{}", ended.stderr);
        assert!(described(&emulator, "Volumes").is_empty());
    }
    let path = rig.template(&text);
    let with = |environment: &[(&str, &str)]| {
        let child = rig.program("imager").args(["build", &path]);
        let child = environment.iter().fold(child, |child, (name, value)| child.env(name, value));
        child.configure(|it| _ = it.stderr(std::process::Stdio::piped())).spawn().unwrap().wait_with_output().unwrap()
    };
    let nobody = with(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_EC2_METADATA_DISABLED", "true")]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(said.contains("set AWS_PROFILE or AWS_ACCESS_KEY_ID"), "{said}");
    let elsewhere = with(&[("AWS_REGION", "eu-west-1")]);
    let said = String::from_utf8_lossy(&elsewhere.stderr).into_owned();
    assert!(said.contains("this instance is in us-east-1, and the volume would be in eu-west-1"), "{said}");
}

#[test]
fn an_interrupted_build_is_cleaned_up() {
    let (rig, emulator) = on_aws();
    let interrupt = |signal: &str, path: &str, is_reached: &dyn Fn() -> bool| {
        let imager = rig.spawn("imager", &["build", path]);
        wait_for("the build to be where it is to end", || is_reached().then_some(()));
        cli::Command::new("kill").args([signal, &imager.id().to_string()]).run().unwrap();
        let ended = Ended::of(imager.wait_with_output().unwrap());
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        assert!(ended.stderr.contains("interrupted"), "{}", ended.stderr);
        assert_eq!(loop_devices(&rig.path().display().to_string()), Vec::<String>::new());
    };
    // Nobody else sleeps for so long.
    let sleep = format!("sleep 9{}", std::process::id());
    let sleeping = rig.template(&template(&emulator, "", &[&shell(&sleep)]));
    for signal in ["-INT", "-TERM"] {
        interrupt(signal, &sleeping, &|| !processes_with(&sleep).is_empty());
        assert_eq!(processes_with(&sleep), Vec::<String>::new());
        for kind in ["Volumes", "Snapshots", "Images"] {
            assert!(described(&emulator, kind).is_empty(), "{signal}: {kind}");
        }
    }

    // What is complete stays, under a lease, and the next run goes on with it.
    let pending = json!({
        "call": "ec2:DescribeSnapshots", "with": { "SnapshotId.1": "*" }, "times": 1000, "do": "replace",
        "old": "<status>completed</status>", "new": "<status>pending</status>"
    });
    let quick = rig.template(&template(&emulator, "", &[&shell("echo baked > /baked")]));
    for signal in ["-INT", "-TERM"] {
        let before = emulator.calls().len();
        emulator.script(&pending);
        interrupt(signal, &quick, &|| emulator.calls()[before..].iter().any(|call| call["rule"] == "replace"));
        emulator.forget_script();
        for kind in ["Volumes", "Snapshots"] {
            assert!(tag(&only(described(&emulator, kind)), "kiln:expires").is_some(), "{signal}: {kind}");
        }
    }
    succeeded(rig.ask("imager", &["build", &quick]));
    assert_one_of_each(&emulator);
}
