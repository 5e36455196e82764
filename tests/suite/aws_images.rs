//! Images on AWS: amazon-chroot from a source image to a registered one, on an emulator with real disks.

use serde_json::json;

use crate::aws_account::{
    assert_one_of_each, build, described, disk, on_aws, only, pairs, requests, tag, template, with_artifact,
    with_disk_of,
};
use crate::rig::{Rig, shell, succeeded};

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
    // The image that had the name; that had it there; the copy under a name of its own; the interim images of both.
    let given_up = |times: usize| std::iter::repeat_n(given_up.clone(), times);
    assert_eq!(order[1..], given_up(1).chain([copied]).chain(given_up(4)).collect::<Vec<_>>());
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

#[test]
fn an_image_of_a_paravirtual_source_has_its_kernel() {
    let mut rig = Rig::new();
    rig.without_manifest();
    let local = r#"{ "builders": [{ "name": "b", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "source",
        "ami_virtualization_type": "paravirtual" }] }"#;
    let path = rig.template(local);
    succeeded(rig.ask("imager", &["build", &path]));
    let (rig, emulator) = with_disk_of(rig, "source");
    let source = emulator.ask("ec2", "describe_images", &json!({ "ImageIds": [emulator.source_ami] }));
    let ebs = &source["Images"][0]["BlockDeviceMappings"][0]["Ebs"];
    let (kernel, ramdisk) = ("aki-919dcaf8", "ari-0123abcd");
    let source = json!({
        "Name": "paravirtual", "VirtualizationType": "paravirtual", "Architecture": "x86_64", "KernelId": kernel,
        "RamdiskId": ramdisk, "RootDeviceName": "/dev/sda1", "EnaSupport": true, "SriovNetSupport": "simple",
        "BlockDeviceMappings": [
            { "DeviceName": "/dev/sda1", "Ebs": { "SnapshotId": ebs["SnapshotId"], "VolumeSize": ebs["VolumeSize"] } }
        ]
    });
    let source = emulator.ask("ec2", "register_image", &source)["ImageId"].clone();

    let text = template(&emulator, "", &[&shell("echo baked > /baked")]);
    let text = text.replace(&emulator.source_ami, source.as_str().unwrap());
    let built = succeeded(build(&rig, &text, &[]));
    let (image, snapshot) = assert_one_of_each(&emulator);
    let found = ["ImageId", "VirtualizationType", "KernelId", "RamdiskId"].map(|name| image[name].as_str().unwrap());
    assert_eq!(found, [built.stdout.trim(), "paravirtual", kernel, ramdisk]);
    let registered = requests(&emulator, "ec2:RegisterImage").pop().unwrap();
    for (name, value) in [
        ("VirtualizationType", Some("paravirtual")),
        ("KernelId", Some(kernel)),
        ("RamdiskId", Some(ramdisk)),
        ("RootDeviceName", Some("/dev/sda1")),
        // Only hvm has these.
        ("EnaSupport", None),
        ("SriovNetSupport", None),
        ("BootMode", None),
    ] {
        assert_eq!(registered[name].as_str(), value, "{name}: {registered:#}");
    }
    // Its file system is on the whole disk.
    let look = cli::Command::new("debugfs").args(["-R", "cat /baked"]).arg(disk(&emulator, &snapshot["SnapshotId"]));
    assert_eq!(look.run().unwrap().text(), "baked");
}

#[test]
fn an_alias_stands_for_one_image_at_a_time() {
    let (rig, emulator) = on_aws();
    let first = succeeded(build(&rig, &template(&emulator, "", &[&shell("echo 1 > /content")]), &[])).stdout;
    let alias = |image: &str| succeeded(rig.ask("imager", &["alias", "golden", image])).stdout;
    assert_eq!(alias("image-b"), first);
    let next = template(&emulator, "", &[&shell("echo 2 >> /content")]);
    let next = next.replace(&emulator.source_ami, "golden").replace("image-b", "image-c");
    let second = succeeded(build(&rig, &next, &[])).stdout;
    assert_eq!(alias("image-c"), second);
    assert_eq!(alias("golden"), second, "it is an image's name as well");

    let images = described(&emulator, "Images");
    let of = |id: &str| images.iter().find(|image| image["ImageId"] == id.trim()).unwrap();
    assert_eq!(tag(of(&second), "kiln:source-image"), Some(first.trim()));
    assert_eq!([&first, &second].map(|id| tag(of(id), "kiln:alias:golden")), [None, Some("")]);
    let content = disk(&emulator, &of(&second)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]);
    assert_eq!(rig.read_from(&content, "/content"), "1\n2");
    let listed = succeeded(rig.ask("imager", &["images"])).stdout;
    let aliased: Vec<_> = listed.lines().filter(|line| line.contains("golden")).collect();
    assert!(aliased.len() == 1 && aliased[0].contains(second.trim()), "{listed}");

    let missing = rig.ask("imager", &["alias", "golden", "image-d"]);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains("there is no image 'image-d'"), "{}", missing.stderr);
}
