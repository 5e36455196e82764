//! What a template says of an image on AWS: the image is so, wherever it was built.

use std::fs;
use std::process::Stdio;

use manifest::{Manifest, Medium};
use serde_json::{Value, json};

use crate::aws_images::{build, described, on_aws, only, pairs, requests, tag, template};
use crate::aws_published::{built_here, refused};
use crate::emulator::Emulator;
use crate::rig::{Ended, shell, succeeded};

/// What a template can say of an image, beside its name, its size and how it is encrypted.
const OF_IMAGE: &str = r#""tags": { "team": "web" }, "snapshot_tags": { "backup": "no" }, "root_volume_type": "gp2",
    "ami_description": "of {{.SourceAMI}}", "root_device_name": "/dev/sda1",
    "ami_block_device_mappings": [
      { "device_name": "/dev/sda1", "volume_type": "gp3", "delete_on_termination": true },
      { "device_name": "/dev/sdb", "virtual_name": "ephemeral0" },
      { "device_name": "/dev/sdc", "volume_size": 10, "volume_type": "io2", "iops": 500, "encrypted": true, "kms_key_id": "alias/data" }],
    "ena_support": true, "sriov_support": true, "boot_mode": "legacy-bios", "imds_support": "v2.0", "tpm_support": "v2.0",
    "uefi_data": "dmFycw==", "ami_regions": ["eu-west-1", "us-east-1"],
    "ami_users": ["111111111111"], "ami_groups": ["all"], "ami_org_arns": ["arn:aws:organizations::1:organization/o-1"],
    "ami_ou_arns": ["arn:aws:organizations::1:ou/o-1/ou-1"], "ami_product_codes": ["code"],
    "snapshot_users": ["222222222222"], "snapshot_groups": ["all"], "deprecate_at": "2030-01-31T12:00:00Z",
    "deregistration_protection": { "enabled": true, "with_cooldown": true }"#;

/// Answers calls for moto, which does not know them.
fn answer_what_moto_has_not(emulator: &Emulator) {
    for call in ["EnableImageDeprecation", "EnableImageDeregistrationProtection"] {
        let body = format!(
            "<{call}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><return>true</return></{call}Response>"
        );
        emulator.script(&json!({ "call": format!("ec2:{call}"), "times": 1000, "do": "answer", "body": body }));
    }
}

/// Fails unless the one image that was made is as [`OF_IMAGE`] says, and so is its copy in the other region.
fn assert_image_is_so(emulator: &Emulator, id: &str, name: &str, source: &str, gib: &str) {
    let (image, snapshot) = (only(described(emulator, "Images")), only(described(emulator, "Snapshots")));
    assert_eq!((&image["ImageId"], &image["Description"]), (&json!(id), &json!(format!("of {source}"))));
    assert_eq!((tag(&image, "team"), tag(&image, "backup")), (Some("web"), None));
    assert_eq!((tag(&snapshot, "team"), tag(&snapshot, "backup")), (Some("web"), Some("no")));

    let mut registered = only(requests(emulator, "ec2:RegisterImage"));
    let tags = pairs(&registered, "TagSpecification.1.Tag");
    assert!(tags.contains(&"team=web".to_owned()), "{tags:?}");
    assert_eq!(registered["BlockDeviceMapping.1.Ebs.SnapshotId"], snapshot["SnapshotId"]);
    let request = registered.as_object_mut().unwrap();
    request.retain(|name, _| !name.starts_with("TagSpecification") && name != "BlockDeviceMapping.1.Ebs.SnapshotId");
    let expected = json!({
        "Action": "RegisterImage", "Version": "2016-11-15", "Name": name, "Description": format!("of {source}"),
        "Architecture": "x86_64", "VirtualizationType": "hvm", "RootDeviceName": "/dev/sda1", "BootMode": "legacy-bios",
        "ImdsSupport": "v2.0", "TpmSupport": "v2.0", "UefiData": "dmFycw==", "EnaSupport": "true", "SriovNetSupport": "simple",
        "BlockDeviceMapping.1.DeviceName": "/dev/sda1", "BlockDeviceMapping.1.Ebs.VolumeSize": gib,
        "BlockDeviceMapping.1.Ebs.VolumeType": "gp2", "BlockDeviceMapping.1.Ebs.DeleteOnTermination": "true",
        "BlockDeviceMapping.2.DeviceName": "/dev/sdb", "BlockDeviceMapping.2.VirtualName": "ephemeral0",
        "BlockDeviceMapping.3.DeviceName": "/dev/sdc", "BlockDeviceMapping.3.Ebs.VolumeSize": "10",
        "BlockDeviceMapping.3.Ebs.VolumeType": "io2", "BlockDeviceMapping.3.Ebs.Iops": "500",
        "BlockDeviceMapping.3.Ebs.Encrypted": "true", "BlockDeviceMapping.3.Ebs.KmsKeyId": "alias/data",
        "BlockDeviceMapping.3.Ebs.DeleteOnTermination": "false",
    });
    assert_eq!(registered, expected);

    let copied = only(requests(emulator, "ec2:CopyImage"));
    let of = |name: &str| copied[name].as_str().unwrap_or_default().to_owned();
    assert_eq!([of("SourceImageId"), of("SourceRegion"), of("Name")], [id, "us-east-1", name]);
    assert_eq!(of("TagSpecification.1.ResourceType"), "image");
    assert_eq!(of("TagSpecification.2.ResourceType"), "snapshot");
    // The image and its copy.
    let shared = requests(emulator, "ec2:ModifyImageAttribute");
    assert_eq!(shared.len(), 4, "{shared:#?}");
    for (name, value) in [
        ("LaunchPermission.Add.1.UserId", "111111111111"),
        ("LaunchPermission.Add.2.Group", "all"),
        ("LaunchPermission.Add.3.OrganizationArn", "arn:aws:organizations::1:organization/o-1"),
        ("LaunchPermission.Add.4.OrganizationalUnitArn", "arn:aws:organizations::1:ou/o-1/ou-1"),
    ] {
        assert_eq!([&shared[0][name], &shared[2][name]], [value, value]);
    }
    assert_eq!(shared[1]["ProductCode.1"], "code");
    let shared = requests(emulator, "ec2:ModifySnapshotAttribute");
    assert_eq!(shared[0]["CreateVolumePermission.Add.1.UserId"], "222222222222");
    assert_eq!(shared[0]["CreateVolumePermission.Add.2.Group"], "all");
    assert_eq!(requests(emulator, "ec2:EnableImageDeprecation")[0]["DeprecateAt"], "2030-01-31T12:00:00Z");
    assert_eq!(requests(emulator, "ec2:EnableImageDeregistrationProtection")[1]["WithCooldown"], "true");
}

#[test]
fn the_image_has_what_the_template_says() {
    let (rig, emulator) = on_aws();
    answer_what_moto_has_not(&emulator);
    let options = format!(
        r#", {OF_IMAGE}, "root_volume_tags": {{ "use": "{{{{build_name}}}}" }}, "root_volume_size": 5,
        "root_volume_encrypt_boot": true, "encrypt_boot": true, "kms_key_id": "alias/images", "device_path": "/dev/sdm",
        "region_kms_key_ids": {{ "eu-west-1": "alias/there" }}"#
    );
    let post = r#""post-processors": ["manifest"], "builders""#;
    let text = template(&emulator, &options, &[&shell("true")]).replacen("\"builders\"", post, 1);
    let built = succeeded(build(&rig, &text, &[]));

    let volume = only(requests(&emulator, "ec2:CreateVolume"));
    let of = |name: &str| volume[name].as_str().unwrap_or_default().to_owned();
    assert_eq!([of("Size"), of("VolumeType"), of("Encrypted"), of("KmsKeyId")], ["5", "gp2", "true", "alias/images"]);
    assert!(pairs(&volume, "TagSpecification.1.Tag").contains(&"use=b".to_owned()));
    assert_eq!(only(requests(&emulator, "ec2:AttachVolume"))["Device"], "/dev/sdm");
    assert_image_is_so(&emulator, built.stdout.trim(), "image-b", &emulator.source_ami, "5");
    let copied = only(requests(&emulator, "ec2:CopyImage"));
    assert_eq!((&copied["Encrypted"], &copied["KmsKeyId"]), (&json!("true"), &json!("alias/there")));

    let manifest: Value = serde_json::from_slice(&fs::read(rig.path().join("packer-manifest.json")).unwrap()).unwrap();
    let id = manifest["builds"][0]["artifact_id"].as_str().unwrap();
    let copy = id.split_once(",eu-west-1:ami-").map(|(image, _)| image);
    assert_eq!(copy, Some(format!("us-east-1:{}", built.stdout.trim()).as_str()));
}

#[test]
fn a_published_image_and_its_copies_are_as_the_template_says() {
    let (rig, emulator) = built_here(&format!(r#", {OF_IMAGE}, "device_path": "/dev/sdm""#));
    answer_what_moto_has_not(&emulator);
    let noted = rig.run("imager", &["build"]).stderr;
    assert!(noted.contains("device_path: only used with --provider aws"), "{noted}");
    assert!(noted.contains("ami_users, ami_groups"), "{noted}");
    let source = rig.run("imager", &["inspect", "bookworm"]).stdout;
    let source: Value = serde_json::from_str(&source).unwrap();

    // A key by a name that only a volume takes.
    let encrypt = |medium: &Medium| {
        let change = |manifest: &mut Manifest| manifest.volumes.get_mut("small").unwrap().medium = medium.clone();
        manifest::update(&rig.manifest_path(), None, change).unwrap();
    };
    let medium = rig.manifest().volumes["small"].medium.clone();
    encrypt(&Medium { encrypted: true, key: Some("alias/images".to_owned()), ..medium.clone() });
    let ended = rig.ask("imager", &["publish", "--to", "aws"]);
    refused(&ended, 2, &["'alias/images' is not the ARN of a key", "kms_key_id", "--kms-key"]);
    encrypt(&medium);

    let ended = rig.run("imager", &["publish", "--to", "aws"]);
    let ami = ended.stdout.trim();
    assert_image_is_so(&emulator, ami, "small", source["id"].as_str().unwrap(), "4");
    let image = &rig.manifest().images["small"];
    assert_eq!(image.published["aws us-east-1"].identity.value, ami);
    let look = "import boto3, json, sys\nec2 = boto3.client('ec2', region_name='eu-west-1')\n\
        print(json.dumps(ec2.describe_images(ImageIds=sys.argv[1:])['Images'][0], default=str))";
    let copy = emulator.python(look, &[&image.published["aws eu-west-1"].identity.value]);
    assert_eq!((tag(&copy, "kiln:copy-of"), tag(&copy, "team")), (Some(ami), Some("web")));
    assert_eq!(tag(&copy, "kiln:digest"), Some(image.digest.value.as_str()));
    let before = fs::read(rig.manifest_path()).unwrap();
    let again = rig.run("imager", &["publish", "--to", "aws"]);
    assert!(again.stderr.contains("unchanged:") && again.stdout == ended.stdout, "{}", again.stderr);
    assert_eq!(fs::read(rig.manifest_path()).unwrap(), before);
    assert!(!again.stderr.contains("is registered with another"), "{}", again.stderr);
    let other = |manifest: &mut Manifest| {
        let publication = manifest.volumes.get_mut("small").unwrap().publication.as_mut().unwrap();
        (publication.description, publication.boot_mode) = (None, Some("uefi".to_owned()));
    };
    manifest::update(&rig.manifest_path(), None, other).unwrap();
    let again = rig.run("imager", &["publish", "--to", "aws"]);
    let note = format!("{ami} is registered with another ami_description, boot_mode, which cannot be changed");
    assert!(again.stderr.contains(&note), "{}", again.stderr);

    // It goes on where its copy is, and nowhere else.
    let in_region = |region: &str| {
        let tester = rig.program("tester").args(["run", "--provider", "aws"]).env("AWS_REGION", region);
        let tester = tester.configure(|it| _ = it.stderr(Stdio::piped()));
        Ended::of(tester.spawn().unwrap().wait_with_output().unwrap())
    };
    refused(&in_region("us-west-2"), 2, &["is not known at aws us-west-2, only at aws eu-west-1 and aws us-east-1"]);
    emulator.script(&json!({"call": "ec2:RunInstances", "do": "refuse", "code": "VcpuLimitExceeded", "message": "no"}));
    refused(&in_region("eu-west-1"), 3, &["launching an instance", "VcpuLimitExceeded"]);
}
