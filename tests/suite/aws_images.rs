//! Images on AWS: amazon-chroot from a source image to a registered one, on an emulator with real disks.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, shell, succeeded, wait_for};

/// A machine on which programs work on AWS, where the source image has the disk of the base image.
pub fn on_aws() -> (Rig, Emulator) {
    let (mut rig, emulator) = with_source(Rig::new());
    rig.without_manifest();
    (rig, emulator)
}

/// The same with a manifest that has an artifact.
fn with_artifact() -> (Rig, Emulator) {
    with_source(crate::rig::rig_with_artifact())
}

fn with_source(mut rig: Rig) -> (Rig, Emulator) {
    let image = rig.run("imager", &["inspect", "bookworm"]).stdout;
    let image: Value = serde_json::from_str(&image).unwrap();
    let disk = rig.state().join("images").join(image["id"].as_str().unwrap()).join("disk.raw");
    let emulator = Emulator::start(rig.path(), Some(&disk));
    rig.on_aws(&emulator);
    (rig, emulator)
}

/// A template of one builder with these options beside the usual ones.
pub fn template(emulator: &Emulator, options: &str, provisioners: &[&str]) -> String {
    format!(
        r#"{{ "builders": [{{ "name": "b", "type": "amazon-chroot", "source_ami": "{}", "ami_name": "image-b"{options} }}],
  "provisioners": [{}] }}"#,
        emulator.source_ami,
        provisioners.join(",")
    )
}

/// What there is of images, snapshots and volumes.
const ALL: &str = "
import boto3, json
ec2 = boto3.client('ec2')
there = {**ec2.describe_images(Owners=['self']), **ec2.describe_snapshots(OwnerIds=['self']), **ec2.describe_volumes()}
print(json.dumps(there, default=str))
";

/// What our stages have made: moto makes images, snapshots and volumes of its own.
fn ours(there: &Value, kind: &str) -> Vec<Value> {
    let all = there[kind].as_array().unwrap().iter();
    all.filter(|it| tag(it, "kiln:stage").is_some()).cloned().collect()
}

/// What there is of a kind, such as `Volumes`.
pub fn described(emulator: &Emulator, kind: &str) -> Vec<Value> {
    ours(&emulator.python(ALL, &[]), kind)
}

/// The only one.
pub fn only(found: Vec<Value>) -> Value {
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

/// A tag of what EC2 tells of.
pub fn tag<'a>(it: &'a Value, name: &str) -> Option<&'a str> {
    let tags = it["Tags"].as_array()?;
    tags.iter().find(|tag| tag["Key"] == name).and_then(|tag| tag["Value"].as_str())
}

/// The requests of this name, in order.
pub fn requests(emulator: &Emulator, call: &str) -> Vec<Value> {
    let calls = emulator.calls().into_iter().filter(|it| it["call"] == call);
    calls.map(|it| it["parameters"].clone()).collect()
}

/// A list parameter's members as `name=value`, such as the tags of a request.
pub fn pairs(request: &Value, prefix: &str) -> Vec<String> {
    let member = |n: usize, part: &str| request[format!("{prefix}.{n}.{part}")].as_str();
    (1..).map_while(|n| Some(format!("{}={}", member(n, "Key")?, member(n, "Value").unwrap_or_default()))).collect()
}

/// That all is as after one undisturbed `build` or `snapshot`: an image, its snapshot, the volume, and no lease but its.
fn assert_one_of_each(emulator: &Emulator) -> (Value, Value) {
    let there = emulator.python(ALL, &[]);
    let (image, snapshot) = (only(ours(&there, "Images")), only(ours(&there, "Snapshots")));
    assert_eq!(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"], snapshot["SnapshotId"]);
    assert_eq!((tag(&image, "kiln:expires"), tag(&snapshot, "kiln:expires")), (None, None));
    assert_eq!(only(ours(&there, "Volumes"))["State"], "available");
    (image, snapshot)
}

pub fn build(rig: &Rig, template: &str, arguments: &[&str]) -> Ended {
    let path = rig.template(template);
    rig.ask("imager", &[&["build"], arguments, &[&path]].concat())
}

fn disk(emulator: &Emulator, id: &Value) -> PathBuf {
    emulator.disks.join(id.as_str().unwrap())
}

#[test]
fn a_template_becomes_an_image() {
    let (rig, emulator) = on_aws();
    let path = rig.template(&template(&emulator, "", &[&shell("echo baked > /baked")]));
    let built = succeeded(rig.ask("imager", &["build", &path]));

    let (image, snapshot) = assert_one_of_each(&emulator);
    assert_eq!(image["ImageId"], built.stdout.trim());
    assert_eq!(image["Name"], "image-b");
    assert_eq!(tag(&image, "kiln:source-image"), Some(emulator.source_ami.as_str()));
    assert_eq!(rig.read_from(&disk(&emulator, &snapshot["SnapshotId"]), "/baked"), "baked");
    let volume = only(described(&emulator, "Volumes"));
    assert_eq!(tag(&volume, "kiln:layer"), tag(&image, "kiln:layer"));
    assert!(tag(&volume, "kiln:expires").is_some(), "it is only kept for builds to come");
    for (call, specification) in [("CreateVolume", 1), ("CreateSnapshot", 1), ("RegisterImage", 1)] {
        let request = only(requests(&emulator, &format!("ec2:{call}")));
        let tags = pairs(&request, &format!("TagSpecification.{specification}.Tag"));
        assert!(tags.contains(&"kiln:stage=imager".to_owned()), "{call} is tagged in the call: {tags:?}");
        assert!(tags.iter().any(|tag| tag.starts_with("kiln:expires=")), "{call} has a lease: {tags:?}");
    }

    let again = succeeded(rig.ask("imager", &["build", &path]));
    assert_eq!(again.stdout, built.stdout);
    assert!(again.stderr.contains("unchanged: every image is there already"), "{}", again.stderr);

    let removed = succeeded(rig.ask("imager", &["remove", "image-b"]));
    assert_eq!(removed.stdout, built.stdout);
    assert!(described(&emulator, "Images").is_empty() && described(&emulator, "Snapshots").is_empty());
}

#[test]
fn stages_are_run_one_by_one_and_again() {
    let (rig, emulator) = with_artifact();
    let text = template(
        &emulator,
        r#", "ami_users": ["111111111111"]"#,
        &[&shell("echo 1 > /one"), r#"{ "type": "artifact" }"#],
    );
    let provisioned = succeeded(rig.provision(&text, &[]));
    let volume = only(described(&emulator, "Volumes"));
    assert_eq!((&volume["VolumeId"], &volume["State"]), (&provisioned.stdout.trim().into(), &"available".into()));
    assert!(tag(&volume, "kiln:version").is_some() && tag(&volume, "kiln:component") == Some("small"));
    let again = succeeded(rig.provision(&text, &[]));
    assert!(again.stderr.contains("unchanged: every volume is there already"), "{}", again.stderr);

    let taken = succeeded(rig.ask("imager", &["snapshot"]));
    let again = succeeded(rig.ask("imager", &["snapshot"]));
    assert_eq!(taken.stdout, again.stdout);
    assert!(again.stderr.contains("unchanged: every image is there already"), "{}", again.stderr);
    let image = only(described(&emulator, "Images"));
    assert_eq!(tag(&image, "kiln:component"), Some("small"));
    assert_eq!(requests(&emulator, "ec2:ModifyImageAttribute").len(), 1, "what the template says is in the manifest");
    let manifest = rig.manifest();
    assert_eq!(manifest.images["b"].identity.value, taken.stdout.trim());
    assert_eq!(manifest.images["b"].identity.kind, manifest::IdentityKind::AwsImage);

    // What comes before the artifact was kept as a snapshot, and another artifact starts from there.
    let layer = described(&emulator, "Snapshots").into_iter().find(|it| tag(it, "kiln:made-by").is_some()).unwrap();
    assert_eq!(tag(&layer, "kiln:made-by"), Some("b: shell"));
    assert_eq!(rig.read_from(&disk(&emulator, &layer["SnapshotId"]), "/one"), "1");
    assert_eq!(
        rig.debugfs(&disk(&emulator, &layer["SnapshotId"]), "stat /opt/small"),
        "",
        "the layer is of its moment"
    );
    let other = text.replace(r#""artifact" }"#, r#""artifact" }, { "type": "shell", "inline": ["echo 2 > /two"] }"#);
    let other = succeeded(rig.provision(&other, &[]));
    assert!(other.stderr.contains("b: shell: cached"), "{}", other.stderr);
    let volume = disk(&emulator, &other.stdout.trim().into());
    assert_eq!([rig.read_from(&volume, "/one"), rig.read_from(&volume, "/two")], ["1", "2"]);
    let listed = succeeded(rig.ask("imager", &["layers", "--prune", "--older-than", "0"]));
    assert!(listed.stdout.contains("b: shell"), "{}", listed.stdout);
    assert!(described(&emulator, "Snapshots").iter().all(|it| tag(it, "kiln:made-by").is_none()));
}

#[test]
fn a_snapshot_that_is_killed_anywhere_is_taken_up() {
    let (rig, emulator) = with_artifact();
    let text = template(&emulator, r#", "ami_users": ["111111111111"]"#, &[r#"{ "type": "artifact" }"#]);
    succeeded(rig.provision(&text, &[]));
    let provisioned = std::fs::read(rig.manifest_path()).unwrap();
    let mut killed = 0;
    for before in [true, false] {
        for call in 0.. {
            let done = emulator.calls().len();
            emulator.forget_script();
            emulator.script(&json!({ "call": "ec2:*", "after": call, "do": if before { "stall" } else { "hang" } }));
            let mut child = rig.spawn("imager", &["snapshot"]);
            let reached = wait_for("the call, or the end", || {
                let ended = child.try_wait().unwrap().is_some();
                let held = emulator.calls()[done..].iter().any(|call| call["held"] == true);
                (ended || held).then_some(held)
            });
            if !reached {
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            emulator.forget_script();
            killed += 1;
            let taken = succeeded(rig.ask("imager", &["snapshot"]));
            let (image, _) = assert_one_of_each(&emulator);
            assert_eq!(image["ImageId"], taken.stdout.trim());
            succeeded(rig.ask("imager", &["remove", taken.stdout.trim()]));
            std::fs::write(rig.manifest_path(), &provisioned).unwrap();
        }
        emulator.forget_script();
        let image = only(described(&emulator, "Images"));
        succeeded(rig.ask("imager", &["remove", image["ImageId"].as_str().unwrap()]));
        std::fs::write(rig.manifest_path(), &provisioned).unwrap();
    }
    assert!(killed > 16, "{killed}");
}

#[test]
fn throttled_and_unanswered_calls_change_nothing() {
    let (rig, emulator) = on_aws();
    for (kind, content) in [("throttle", "1"), ("lose", "2")] {
        emulator.script(&json!({ "call": "ec2:*", "each": "name", "do": kind }));
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

    // EC2 refuses the new one for its name, and then for another reason: the old one is registered again.
    let reason = json!({ "call": "ec2:RegisterImage", "after": 1, "do": "refuse", "code": "InvalidParameterValue", "message": "no" });
    emulator.script(&reason);
    let failed = build(&rig, &second, &["-force"]);
    assert_eq!(failed.code, Some(3), "{}", failed.stderr);
    assert!(failed.stderr.contains("which had the name, is registered again as ami-"), "{}", failed.stderr);
    let image = only(described(&emulator, "Images"));
    assert_ne!(image["ImageId"], first.stdout.trim());
    assert_eq!(tag(&image, "kiln:stage"), Some("imager"));
    let content = disk(&emulator, &image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]);
    assert_eq!(rig.read_from(&content, "/content"), "1");

    let options = r#", "force_deregister": true, "force_delete_snapshot": true"#;
    let third = template(&emulator, options, &[&shell("echo 2 > /content")]);
    let built = succeeded(build(&rig, &third, &[]));
    let image = only(described(&emulator, "Images"));
    assert_eq!(image["ImageId"], built.stdout.trim());
    let snapshot = only(described(&emulator, "Snapshots"));
    assert_eq!(rig.read_from(&disk(&emulator, &snapshot["SnapshotId"]), "/content"), "2");
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
fn a_builder_works_in_its_own_name() {
    let (rig, emulator) = on_aws();
    let options = format!(
        r#", "access_key": "AKIATEMPLATE", "secret_key": "template-secret", "token": "template-token", "region": "us-east-1",
            "custom_endpoint_ec2": "{}", "skip_region_validation": true,
            "assume_role": {{ "role_arn": "arn:aws:iam::123456789012:role/builder", "session_name": "s", "duration_seconds": 900 }}"#,
        emulator.endpoint
    );
    let built = succeeded(build(&rig, &template(&emulator, &options, &[&shell("true")]), &[]));
    assert!(!built.stderr.contains("template-secret") && !built.stderr.contains("template-token"), "{}", built.stderr);
    let taken = only(requests(&emulator, "sts:AssumeRole"));
    assert_eq!([&taken["RoleArn"], &taken["RoleSessionName"]], ["arn:aws:iam::123456789012:role/builder", "s"]);
    assert_one_of_each(&emulator);

    let nobody = template(&emulator, r#", "profile": "nobody""#, &[&shell("true")]);
    let ended = build(&rig, &nobody, &["-force"]);
    assert_eq!(ended.code, Some(3), "the keys of the environment are not this profile's: {}", ended.stderr);
    let wrong = template(&emulator, ",\n \"ena_support\": \"perhaps\"", &[&shell("true")]);
    let ended = build(&rig, &wrong, &[]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("template.json:2") && ended.stderr.contains("'ena_support'"), "{}", ended.stderr);
}

#[test]
fn a_copy_takes_its_name_over_as_well() {
    let (rig, emulator) = on_aws();
    let options = r#", "force_deregister": true, "ami_regions": ["eu-west-1"]"#;
    let mut built = Vec::new();
    for content in ["1", "2"] {
        let line = shell(&format!("echo {content} > /content"));
        built.push(succeeded(build(&rig, &template(&emulator, options, &[&line]), &[])).stdout);
    }
    let there = "
import boto3, json
images = boto3.client('ec2', region_name='eu-west-1').describe_images(Owners=['self'])['Images']
print(json.dumps([image for image in images if image.get('Tags')], default=str))
";
    let copy = emulator.python(there, &[]);
    let copy = only(copy.as_array().unwrap().clone());
    assert_eq!((copy["Name"].as_str(), tag(&copy, "kiln:copy-of")), (Some("image-b"), Some(built[1].trim())));
    let image = only(described(&emulator, "Images"));
    assert_eq!(tag(&image, "kiln:copy:eu-west-1"), copy["ImageId"].as_str());
    let order = emulator.calls().into_iter().map(|call| call["call"].as_str().unwrap().to_owned());
    let order: Vec<_> =
        order.filter(|call| ["ec2:CopyImage", "ec2:DeregisterImage"].contains(&call.as_str())).collect();
    let (copied, given_up) = ("ec2:CopyImage".to_owned(), "ec2:DeregisterImage".to_owned());
    // The image of the first name; the copy of it; the copy under a name of its own.
    assert_eq!(order[1..], [given_up.clone(), copied, given_up.clone(), given_up]);
    succeeded(rig.ask("imager", &["remove", "image-b"]));
    assert_eq!(emulator.python(there, &[]), json!([]));
}

#[test]
fn two_images_are_compared_in_volumes_of_theirs() {
    let (rig, emulator) = on_aws();
    let built = succeeded(build(&rig, &template(&emulator, "", &[&shell("echo baked > /etc/baked.conf")]), &[]));
    let diff = succeeded(rig.ask("imager", &["diff", built.stdout.trim()]));
    assert!(diff.stdout.contains("/etc/baked.conf"), "{}", diff.stdout);
    only(described(&emulator, "Volumes"));
}

#[test]
fn a_volume_from_scratch_becomes_an_image() {
    let (rig, emulator) = on_aws();
    let text = r#"{ "builders": [{ "name": "b", "type": "amazon-chroot", "from_scratch": true, "ami_name": "image-b",
        "ami_virtualization_type": "hvm", "root_volume_size": 1, "root_device_name": "/dev/xvda",
        "ami_block_device_mappings": [{ "device_name": "/dev/xvda", "delete_on_termination": true }],
        "pre_mount_commands": ["echo start=262144 | sfdisk --quiet --label gpt {{.Device}}", "mkfs.ext4 -q {{.Device}}1"],
        "post_mount_commands": ["echo made > {{.MountPath}}/made"] }] }"#;
    succeeded(build(&rig, text, &[]));
    let (image, snapshot) = assert_one_of_each(&emulator);
    assert_eq!(rig.read_from(&disk(&emulator, &snapshot["SnapshotId"]), "/made"), "made");
    assert_eq!(image["Architecture"], if cfg!(target_arch = "x86_64") { "x86_64" } else { "arm64" });
    assert_eq!(only(requests(&emulator, "ec2:RegisterImage"))["RootDeviceName"], "/dev/xvda");
}
