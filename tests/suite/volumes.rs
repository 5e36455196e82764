//! What volumes are made from, how templates know their devices, and what is used again.

use std::fs;

use crate::rig::{Ended, Rig, rig_with_artifact as rig, shell, succeeded};

/// A template of one builder with these options beside the usual ones.
pub fn template(options: &str, provisioners: &[&str]) -> String {
    format!(
        r#"{{ "builders": [{{ "name": "b", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-b",
                  "force_deregister": true, "isolation": "chroot"{options} }}],
  "provisioners": [{}] }}"#,
        provisioners.join(",")
    )
}

/// What was said of each provisioner: whether it ran, and why.
fn said(ended: &Ended) -> Vec<&str> {
    let lines = ended.stderr.lines().filter_map(|line| line.split_once("b: shell").map(|(_, said)| said));
    lines.filter(|said| !said.ends_with(" s")).collect()
}

/// How often there is a file of this name in the directory of shared packages.
fn shared_packages(rig: &Rig, name: &str) -> usize {
    let entries = fs::read_dir(rig.state().join("cache/apt")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(name)).count()
}

#[test]
fn each_provisioner_says_why_it_runs() {
    let rig = rig();
    let (one, two, three) = (shell("echo 1 > /one"), shell("echo 2 > /two"), shell("echo 3 > /three"));
    let first = succeeded(rig.provision(&template("", &[&one, &two, &three]), &["--explain"]));
    assert_eq!(said(&first), [" runs: there is no earlier build to compare with"; 3]);

    let other = shell("echo 4 > /two");
    let second = succeeded(rig.provision(&template("", &[&one, &other, &three]), &["--explain"]));
    let changed = " runs: option 'inline' is another, file '000-inline.sh' is another";
    assert_eq!(said(&second), [": cached", changed, " runs: what comes before it is another"]);

    let source = rig.provision(&template(r#", "mount_options": ["noatime"]"#, &[&one]), &["--explain"]);
    assert_eq!(said(&succeeded(source)), [" runs: of the builder's options 'mount_options' is new"]);
}

#[test]
fn a_layer_is_not_another_builders_whose_name_is_in_it() {
    let rig = rig();
    let (named, after) = (shell("echo $PACKER_BUILD_NAME > /name"), shell("true"));
    let two = template("", &[&named, &after]).replace(
        "\"builders\": [",
        r#""builders": [{ "name": "a", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-a",
           "isolation": "chroot" }, "#,
    );
    succeeded(rig.provision(&two, &[]));
    for builder in ["a", "b"] {
        assert_eq!(rig.read_from(&rig.volume_disk(builder), "/name"), builder);
    }
}

#[test]
fn a_layer_may_be_too_old() {
    let rig = rig();
    let provisioners = [shell("true"), shell("true; true")];
    let template = template("", &[&provisioners[0], &provisioners[1]]);
    succeeded(rig.provision(&template, &[]));
    let again = succeeded(rig.provision(&template, &["--max-age", "0", "--explain"]));
    assert_eq!(said(&again)[0], " runs: its result was not kept, or is too old");
}

#[test]
fn packages_are_downloaded_once_and_are_not_in_the_image() {
    let rig = rig();
    let install = shell("apt-get update -q; apt-get install -q --yes hello; ls /var/cache/apt/archives/hello_*.deb");
    succeeded(rig.provision(&template("", &[&install]), &[]));
    assert_eq!(shared_packages(&rig, "hello_"), 1);
    assert_eq!(shared_packages(&rig, "lock"), 0);
    let disk = rig.volume_disk("b");
    assert!(!rig.debugfs(&disk, "ls -p /var/cache/apt/archives").contains(".deb"));

    // Both builders hold apt's lock at the same time, each its own.
    let hold = shell(
        "apt-get update -q; flock --close /var/cache/apt/archives/lock sh -c 'sleep 2; true'; \
         apt-get install -q --yes hello 2>&1 | tee /log; ! grep '^Get:.*hello' /log",
    );
    let two = template("", &[&hold]).replace(
        "\"builders\": [",
        r#""builders": [{ "name": "a", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-a",
           "ami_virtualization_type": "paravirtual", "isolation": "boot" }, "#,
    );
    succeeded(rig.provision(&two, &[]));
    // What a build throws away, others keep.
    succeeded(rig.provision(&template("", &[&shell("apt-get clean")]), &[]));
    assert_eq!(shared_packages(&rig, "hello_"), 1);
}

#[test]
fn commands_before_and_after_the_mount_run_once_on_a_new_volume() {
    let rig = rig();
    let options = r#", "root_volume_size": 5,
        "pre_mount_commands": ["growpart=$(sfdisk --json {{.Device}} | grep -c start); test $growpart -ge 3; e2fsck -fp {{.Device}}1"],
        "post_mount_commands": ["echo mounted {{.Device}} >> {{.MountPath}}/commands"]"#;
    let provisioners = [shell("echo one >> /commands"), shell("echo two >> /commands")];
    succeeded(rig.provision(&template(options, &[&provisioners[0], &provisioners[1]]), &[]));
    let disk = rig.volume_disk("b");
    let commands = rig.read_from(&disk, "/commands");
    let lines: Vec<_> = commands.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(lines, ["mounted", "one", "two"]);
    assert_eq!(fs::metadata(&disk).unwrap().len(), 5 << 30);

    let changed = shell("echo 2 >> /commands");
    succeeded(rig.provision(&template(options, &[&provisioners[0], &changed]), &[]));
    assert_eq!(rig.read_from(&rig.volume_disk("b"), "/commands").lines().count(), 3);

    let mounting = r#", "post_mount_commands": ["mount -t tmpfs tmpfs {{.MountPath}}/srv"]"#;
    let ended = rig.provision(&template(mounting, &[&provisioners[0]]), &[]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("/srv, which only the first provisioner would see"), "{}", ended.stderr);
}

#[test]
fn a_partition_that_is_not_there_is_named() {
    let rig = rig();
    let ended = rig.provision(&template(r#", "mount_partition": 7"#, &[&shell("true")]), &[]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("there is no partition 7"), "{}", ended.stderr);
    let small = rig.provision(&template(r#", "root_volume_size": 1"#, &[&shell("true")]), &[]);
    assert_eq!(small.code, Some(3), "{}", small.stderr);
    assert!(small.stderr.contains("it would lose content"), "{}", small.stderr);
}
