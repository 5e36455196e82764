//! The same template, built by Packer and by us: the same tree.
//!
//! Packer's amazon-chroot talks to moto, with loop devices in place of EBS volumes, see `tests/emulator`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::ansible_image;
use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, succeeded};
use crate::tree::{differences, tree};

/// What Packer leaves in an image that nobody asked for, or takes out that was there: beginnings of paths.
const LEFT_OVERS: &[&str] = &[
    // It is copied in for the build and then removed, whatever stood there.
    "etc/resolv.conf: ",
    // The staging directory stays.
    "tmp/packer-provisioner-ansible-local",
    // What apt has downloaded; ours is beside the image.
    "var/cache/apt/archives/",
];

const TEMPLATE: &str = r#"{
  "variables": { "source_ami": null, "endpoint": "", "device": "" },
  "builders": [{
    "name": "b", "type": "amazon-chroot", "source_ami": "{{user `source_ami`}}", "ami_name": "compared", "region": "us-east-1",
    "access_key": "test", "secret_key": "test", "custom_endpoint_ec2": "{{user `endpoint`}}", "skip_region_validation": true,
    "device_path": "{{user `device`}}", "isolation": "chroot"
  }],
  "provisioners": [
    { "type": "file", "source": "uploaded", "destination": "/etc/uploaded" },
    { "type": "shell", "environment_vars": ["WORD=it's", "DEBIAN_FRONTEND=noninteractive"],
      "inline": ["echo $WORD $PACKER_BUILD_NAME > /from-shell", "apt-get update", "apt-get install --yes hello"] },
    { "type": "shell", "script": "script.sh", "execute_command": "chmod +x {{.Path}}; X=1 {{.Vars}} {{.Path}} an argument" },
    { "type": "ansible-local", "playbook_file": "ansible/site.yml", "playbook_dir": "ansible",
      "extra_arguments": ["--extra-vars port=8001"] },
    { "type": "shell", "valid_exit_codes": [3], "inline": ["ln -s from-shell /link; mkdir -m 700 /kept; exit 3"] }
  ]
}"#;

/// The disk of the only snapshot that was made.
fn snapshot(emulator: &Emulator) -> PathBuf {
    let entries = fs::read_dir(&emulator.disks).unwrap().map(|entry| entry.unwrap());
    let made = entries.filter(|entry| {
        entry.file_name().to_string_lossy().starts_with("snap-") && entry.file_type().unwrap().is_file()
    });
    let made: Vec<_> = made.map(|entry| entry.path()).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    made[0].clone()
}

/// Packer's own run of the template, which does not know the one option that is ours.
fn packer(rig: &Rig, emulator: &Emulator) -> Ended {
    let mut template: Value = serde_json::from_str(TEMPLATE).unwrap();
    template["builders"][0].as_object_mut().unwrap().remove("isolation");
    fs::write(rig.path().join("packer.json"), template.to_string()).unwrap();
    let device = format!("/dev/kiln-test-{}", std::process::id());
    let mut arguments = vec!["build".to_owned(), "-color=false".to_owned()];
    for (name, value) in [("source_ami", &emulator.source_ami), ("endpoint", &emulator.endpoint), ("device", &device)] {
        arguments.extend(["-var".to_owned(), format!("{name}={value}")]);
    }
    // In a mount namespace of its own: where a build of another test had a copy of Packer's mount in its own
    // namespace, Packer's unmounting would not write anything to the disk.
    let packer = cli::Command::new("unshare").args(["--mount", "packer"]).args(arguments).arg("packer.json");
    let packer = packer.current_dir(rig.path());
    let packer = packer.env("CHECKPOINT_DISABLE", "1").env("PACKER_CONFIG_DIR", rig.path());
    let packer = packer.configure(|it| _ = it.stdout(Stdio::piped()).stderr(Stdio::piped()));
    Ended::of(packer.spawn().unwrap().wait_with_output().unwrap())
}

#[test]
fn the_tree_is_packers() {
    let rig = ansible_image::rig();
    let play = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench/imager/ansible");
    cli::Command::new("cp").arg("-r").arg(play).arg(rig.path()).run().unwrap();
    fs::write(rig.path().join("uploaded"), "uploaded\n").unwrap();
    fs::write(rig.path().join("script.sh"), "#!/bin/sh\necho \"$X $*\" > /from-script\n").unwrap();

    let ours = rig.template(TEMPLATE);
    let source = format!("source_ami={}", ansible_image::NAME);
    let ended = succeeded(rig.ask("imager", &["build", "-var", &source, &ours]));
    let images = rig.state().join("images");
    let ours = tree(&images.join(ended.stdout.trim()).join("disk.raw"));

    let image = rig.run("imager", &["inspect", ansible_image::NAME]).stdout;
    let image: Value = serde_json::from_str(&image).unwrap();
    let emulator = Emulator::start(rig.path(), Some(&images.join(image["id"].as_str().unwrap()).join("disk.raw")));
    let ended = packer(&rig, &emulator);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    // A copy, for the loop devices over the volume itself may still be on their way out.
    let copy = rig.path().join("packers.raw");
    cli::Command::new("cp").arg("--sparse=auto").arg(snapshot(&emulator)).arg(&copy).run().unwrap();
    let theirs = tree(&copy);

    assert!(ours.contains_key("etc/bench.conf") && ours.contains_key("from-script"));
    let differences = differences(&ours, &theirs);
    let (known, others): (Vec<_>, Vec<_>) =
        differences.into_iter().partition(|name| LEFT_OVERS.iter().any(|left| name.starts_with(left)));
    assert!(others.is_empty(), "ours, Packer's: {others:#?}");
    assert!(known.iter().any(|name| name.starts_with("etc/resolv.conf")), "{known:#?}");
}
