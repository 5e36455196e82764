//! Images on AWS: amazon-chroot from a source image to a registered one, on an emulator with real disks.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::rig::{Rig, shell, succeeded};

/// A machine on which programs work on AWS, where the source image has the disk of the base image.
fn on_aws() -> (Rig, Emulator) {
    let mut rig = Rig::new();
    let image = rig.run("imager", &["inspect", "bookworm"]).stdout;
    let image: Value = serde_json::from_str(&image).unwrap();
    let disk = rig.state().join("images").join(image["id"].as_str().unwrap()).join("disk.raw");
    let emulator = Emulator::start(rig.path(), Some(&disk));
    rig.on_aws(&emulator);
    (rig, emulator)
}

/// A template of one builder with these options beside the usual ones.
fn template(emulator: &Emulator, options: &str, provisioners: &[&str]) -> String {
    format!(
        r#"{{ "builders": [{{ "name": "b", "type": "amazon-chroot", "source_ami": "{}", "ami_name": "image-b"{options} }}],
  "provisioners": [{}] }}"#,
        emulator.source_ami,
        provisioners.join(",")
    )
}

/// What there is of a kind, such as `Volumes`, by describing it.
fn described(emulator: &Emulator, kind: &str) -> Vec<Value> {
    let (method, parameters) = match kind {
        "Images" => ("describe_images", json!({ "Owners": ["self"] })),
        "Snapshots" => ("describe_snapshots", json!({ "OwnerIds": ["self"] })),
        _ => ("describe_volumes", json!({})),
    };
    let all = emulator.ask("ec2", method, &parameters)[kind].as_array().unwrap().clone();
    // moto makes volumes, snapshots and images of its own.
    all.into_iter().filter(|it| tag(it, "kiln:stage").is_some()).collect()
}

fn only(found: Vec<Value>) -> Value {
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

fn tag<'a>(it: &'a Value, name: &str) -> Option<&'a str> {
    let tags = it["Tags"].as_array()?;
    tags.iter().find(|tag| tag["Key"] == name).and_then(|tag| tag["Value"].as_str())
}

fn disk(emulator: &Emulator, id: &Value) -> PathBuf {
    emulator.disks.join(id.as_str().unwrap())
}

#[test]
fn a_template_becomes_an_image() {
    let (mut rig, emulator) = on_aws();
    rig.without_manifest();
    let path = rig.template(&template(&emulator, "", &[&shell("echo baked > /baked")]));
    let built = succeeded(rig.ask("imager", &["build", &path]));

    let image = only(described(&emulator, "Images"));
    assert_eq!(image["ImageId"], built.stdout.trim());
    assert_eq!(image["Name"], "image-b");
    assert_eq!(tag(&image, "kiln:source-image"), Some(emulator.source_ami.as_str()));
    assert_eq!(tag(&image, "kiln:expires"), None, "what is complete is kept");
    let snapshot = only(described(&emulator, "Snapshots"));
    assert_eq!(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"], snapshot["SnapshotId"]);
    assert_eq!(tag(&snapshot, "kiln:expires"), None);
    assert_eq!(rig.read_from(&disk(&emulator, &snapshot["SnapshotId"]), "/baked"), "baked");

    let volume = only(described(&emulator, "Volumes"));
    assert_eq!(volume["State"], "available", "nothing stays attached");
    assert_eq!(tag(&volume, "kiln:layer"), tag(&image, "kiln:layer"));
    assert!(tag(&volume, "kiln:expires").is_some());

    let again = succeeded(rig.ask("imager", &["build", &path]));
    assert_eq!(again.stdout, built.stdout);
    assert!(again.stderr.contains("unchanged: every image is there already"), "{}", again.stderr);
}
