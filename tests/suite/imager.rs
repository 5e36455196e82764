//! The imager: layers, left-over processes, put-back, failures and kills.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Component, Ended, Rig, processes_with, rig_with_artifact as rig, shell, succeeded, wait_for};

/// A template of one hvm builder with these provisioners.
fn template(provisioners: &str) -> String {
    format!(
        r#"{{ "variables": {{ "token": "open sesame" }}, "sensitive-variables": ["token"],
  "builders": [{{ "name": "b", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-b",
                  "force_deregister": true, "isolation": "chroot" }}],
  "provisioners": [{provisioners}] }}"#
    )
}

#[test]
fn an_image_has_what_the_provisioners_made_and_nothing_of_the_build() {
    let rig = rig();
    fs::create_dir(rig.path().join("tree")).unwrap();
    fs::write(rig.path().join("tree/one"), "from the host\n").unwrap();
    let provisioners = [
        // `$0` and `$HOME` would be the host's if anything outside expanded them.
        &shell("echo \"$HOME $(cat /etc/hostname 2>/dev/null)\" > /from-inside; systemctl start no-such-unit"),
        r#"{ "type": "file", "source": "tree/", "destination": "/srv/tree" }"#,
        r#"{ "type": "artifact" }"#,
    ];
    succeeded(rig.provision(&template(&provisioners.join(",")), &[]));
    let disk = rig.volume_disk("b");
    assert!(rig.read_from(&disk, "/from-inside").starts_with("/root"));
    assert_eq!(rig.read_from(&disk, "/srv/tree/one"), "from the host");
    assert_eq!(rig.read_from(&disk, "/opt/small/greeting"), "hello");
    // The symlink that stood in resolv.conf's place is there again.
    assert!(rig.debugfs(&disk, "stat /etc/resolv.conf").contains("../run/systemd/resolve/stub-resolv.conf"));
    for gone in ["/usr/sbin/policy-rc.d", "/etc/.kiln-original-resolv.conf", "/tmp/kiln-script.sh"] {
        assert!(!rig.debugfs(&disk, &format!("stat {gone}")).contains("Inode"), "{gone} is still there");
    }

    let image = rig.run("imager", &["snapshot"]).stdout.trim().to_owned();
    assert_eq!(rig.run("imager", &["snapshot"]).stderr.trim(), "unchanged: every image is there already");
    assert!(rig.run("imager", &["inspect", "image-b"]).stdout.contains(&image));
    rig.run("imager", &["alias", "ami-1234abcd", &image]);
    assert!(rig.run("imager", &["images"]).stdout.contains("ami-1234abcd"));
    rig.run("imager", &["remove", "ami-1234abcd"]);
    assert_eq!(rig.ask("imager", &["inspect", &image]).code, Some(2));
}

#[test]
fn a_process_that_a_provisioner_leaves_is_reported_and_ended() {
    let rig = rig();
    let ended = rig.provision(&template(&shell("setsid sleep 98765 >/dev/null 2>&1 &")), &[]);
    let ended = succeeded(ended);
    assert!(ended.stderr.contains("shell left a process running, which was ended: sleep 98765"), "{}", ended.stderr);
    assert!(processes_with("sleep 98765").is_empty());
    let step = &rig.manifest().volumes["b"].provisioners[0];
    assert_eq!((step.left_over[0].name.as_str(), step.left_over[0].command_line.as_str()), ("sleep", "sleep 98765"));
}

#[test]
fn an_unchanged_prefix_is_not_provisioned_again() {
    let rig = rig();
    let uuid = |number: u8| shell(&format!("cat /proc/sys/kernel/random/uuid > /uuid-{number}"));
    let read = |rig: &Rig, number: u8| rig.read_from(&rig.volume_disk("b"), &format!("/uuid-{number}"));
    let first = [uuid(1), uuid(2), uuid(3)].join(",");
    succeeded(rig.provision(&template(&first), &[]));
    let (one, two) = (read(&rig, 1), read(&rig, 2));

    let again = succeeded(rig.provision(&template(&first), &[]));
    assert!(again.stderr.ends_with("unchanged: every volume is there already\n"), "{}", again.stderr);

    let changed = [uuid(1), shell("cat /proc/sys/kernel/random/uuid > /uuid-2; true"), uuid(3)].join(",");
    let ended = succeeded(rig.provision(&template(&changed), &[]));
    assert_eq!(ended.stderr.matches("shell: cached").count(), 1, "{}", ended.stderr);
    assert_eq!(read(&rig, 1), one);
    assert_ne!(read(&rig, 2), two);

    // A file that a provisioner reads is part of what it is made from.
    fs::write(rig.path().join("motd"), "one").unwrap();
    let with_file = [uuid(1), r#"{ "type": "file", "source": "motd", "destination": "/etc/motd" }"#.into()].join(",");
    succeeded(rig.provision(&template(&with_file), &[]));
    fs::write(rig.path().join("motd"), "two").unwrap();
    succeeded(rig.provision(&template(&with_file), &[]));
    assert_eq!(rig.read_from(&rig.volume_disk("b"), "/etc/motd"), "two");

    let fresh = succeeded(rig.provision(&template(&first), &["--no-cache"]));
    assert!(!fresh.stderr.contains("cached"), "{}", fresh.stderr);
    assert_ne!(read(&rig, 1), one);
}

#[test]
fn a_failing_provisioner_ends_the_build_and_leaves_nothing() {
    let rig = rig();
    let failing = [shell("true"), shell("echo what went wrong >&2; exit 7")].join(",");
    let before = fs::read(rig.manifest_path()).unwrap();
    let ended = rig.provision(&template(&failing), &[]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("builder 'b': provisioner shell: ") && ended.stderr.contains("what went wrong"));
    assert_eq!(fs::read(rig.manifest_path()).unwrap(), before);
    assert!(!rig.state().join("volumes").exists(), "a volume is left");
    rig.assert_nothing_left();

    // The layer before it was whole, and is used.
    let mended = [shell("true"), shell("true; true")].join(",");
    assert!(succeeded(rig.provision(&template(&mended), &[])).stderr.contains("shell: cached"));
}

#[test]
fn after_kill_9_nothing_runs_and_the_next_run_succeeds() {
    let rig = rig();
    let path = rig.template(&template(&shell("sleep 87654")));
    let mut imager = rig.spawn("imager", &["provision", &path]);
    wait_for("the provisioner", || (!processes_with("sleep 87654").is_empty()).then_some(()));
    imager.kill().unwrap();
    imager.wait().unwrap();
    rig.assert_nothing_left();
    wait_for("the provisioner to end", || processes_with("sleep 87654").is_empty().then_some(()));

    succeeded(rig.provision(&template(&shell("true")), &[]));
    let left: Vec<_> = fs::read_dir(rig.state().join("tmp")).unwrap().flatten().collect();
    let disks = left.iter().filter(|entry| walk_has_disk(&entry.path()));
    assert_eq!(disks.count(), 0, "the killed run's volume is still there");
}

fn walk_has_disk(directory: &std::path::Path) -> bool {
    fs::read_dir(directory).unwrap().flatten().any(|entry| entry.path().join("disk.raw").exists())
}

#[test]
fn sigterm_ends_the_provisioner_and_cleans_up_within_five_seconds() {
    let rig = rig();
    let path = rig.template(&template(&shell("trap '' TERM; sleep 76543")));
    let imager = rig.spawn("imager", &["provision", &path]);
    wait_for("the provisioner", || (!processes_with("sleep 76543").is_empty()).then_some(()));
    let asked = Instant::now();
    kill_process(Pid::from_raw(imager.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let ended = Ended::of(imager.wait_with_output().unwrap());
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    rig.assert_nothing_left();
    assert!(!rig.state().join("volumes").exists());
}

#[test]
fn of_two_builds_of_one_layer_one_makes_it_and_the_other_takes_it() {
    let rig = rig();
    let path = rig.template(&template(&shell("cat /proc/sys/kernel/random/uuid > /uuid; sleep 1")));
    let first = rig.spawn("imager", &["provision", &path]);
    let second = rig.spawn("imager", &["provision", &path]);
    let ended = [first, second].map(|child| succeeded(Ended::of(child.wait_with_output().unwrap())));
    assert_eq!(ended[0].stdout, ended[1].stdout, "both name the same volume");
    let waited = ended.iter().filter(|ended| ended.stderr.contains("in use by `imager provision` (pid "));
    assert_eq!(waited.count(), 1, "{ended:?}");
}

#[test]
fn no_wait_names_the_holder_and_exits() {
    let rig = rig();
    let path = rig.template(&template(&shell("sleep 65432")));
    let holder = rig.spawn("imager", &["provision", &path]);
    wait_for("the provisioner", || (!processes_with("sleep 65432").is_empty()).then_some(()));
    let ended = rig.ask("imager", &["provision", &path, "--no-wait"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains(&format!("in use by `imager provision` (pid {}", holder.id())), "{}", ended.stderr);
    kill_process(Pid::from_raw(holder.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    holder.wait_with_output().unwrap();
}

#[test]
fn a_secret_reaches_neither_output_nor_manifest_nor_disk() {
    let rig = rig();
    let line = r#"{ "type": "shell", "inline": ["echo the token is $TOKEN", "rm -f /root/token", "setsid sh -c \"sleep 54321; : $TOKEN\" &",
                              "echo {{user `token`}} | wc -c"],
                   "environment_vars": ["TOKEN={{user `token`}}"] }"#;
    let ended = succeeded(rig.provision(&template(line), &["-var", "token=hunter2"]));
    assert!(ended.stderr.contains("the token is <sensitive>"), "{}", ended.stderr);
    assert!(ended.stderr.contains("sleep 54321; : <sensitive>"), "{}", ended.stderr);
    for shown in [ended.stderr, ended.stdout, fs::read_to_string(rig.manifest_path()).unwrap()] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    // The script that held it was on the disk for a while.
    let found = cli::Command::new("grep").args(["--count", "hunter2"]).arg(rig.volume_disk("b")).ask().unwrap();
    assert_eq!(found.text(), "0", "the secret is still on the disk");
}

#[test]
fn a_paravirtual_image_is_a_file_system_on_the_whole_disk() {
    let rig = rig();
    let paravirtual = template(&shell("touch /made"))
        .replace(r#""name": "b","#, r#""name": "b", "ami_virtualization_type": "paravirtual","#);
    succeeded(rig.provision(&paravirtual, &[]));
    let disk = rig.volume_disk("b");
    let kind = cli::Command::new("blkid").args(["--probe", "--match-tag", "TYPE"]).arg(&disk).run().unwrap().text();
    assert!(kind.contains("ext4"), "{kind}");
    rig.run("imager", &["snapshot"]);

    // There is no way back: it has neither partition table nor boot loader.
    let hvm = template(&shell("true"))
        .replace("\"bookworm\"", "\"image-b\"")
        .replace(r#""name": "b","#, r#""name": "c", "ami_virtualization_type": "hvm","#);
    let ended = rig.provision(&hvm, &[]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("cannot make a hvm volume of image-b"), "{}", ended.stderr);
}

#[test]
fn a_play_that_means_localhost_changes_the_image_and_never_the_host() {
    let rig = rig();
    let marker = format!("/kiln-test-{}", std::process::id());
    let playbook = format!(
        "- hosts: localhost\n  connection: local\n  tasks:\n\
         \x20   - ansible.builtin.copy: {{ dest: {marker}, content: 'made' }}\n\
         \x20     notify: again\n\
         \x20   - ansible.builtin.service: {{ name: systemd-resolved, state: restarted }}\n\
         \x20   - ansible.builtin.command: cp {marker} {marker}-delegated\n\
         \x20     delegate_to: localhost\n\
         \x20 handlers:\n\
         \x20   - name: again\n\
         \x20     ansible.builtin.shell: echo handled > {marker}-handled\n"
    );
    fs::write(rig.path().join("site.yml"), playbook).unwrap();
    let ansible = r#"{ "type": "ansible-local", "playbook_file": "site.yml",
                       "extra_arguments": ["--extra-vars component=ansiblefest"] }"#;
    succeeded(rig.provision(&template(ansible), &[]));
    let disk = rig.volume_disk("b");
    assert_eq!(rig.read_from(&disk, &marker), "made");
    assert_eq!(rig.read_from(&disk, &format!("{marker}-delegated")), "made");
    assert_eq!(rig.read_from(&disk, &format!("{marker}-handled")), "handled");
    assert!(!fs::exists(&marker).unwrap(), "the play changed the host");
}

#[test]
fn a_name_that_is_taken_is_refused_unless_the_builder_takes_it_over() {
    let rig = rig();
    let keeping = |line: &str| template(&shell(line)).replace(",\n                  \"force_deregister\": true", "");
    succeeded(rig.provision(&keeping("true"), &[]));
    let first = rig.run("imager", &["snapshot"]).stdout;
    succeeded(rig.provision(&keeping("true; true"), &[]));
    let ended = rig.ask("imager", &["snapshot"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains(&format!("the image name 'image-b' is taken by {}", first.trim())));
    succeeded(rig.provision(&template(&shell("true; true")), &[]));
    assert_ne!(rig.run("imager", &["snapshot"]).stdout, first);
}

#[test]
fn a_provisioner_that_times_out_is_ended_with_everything_it_started() {
    let rig = rig();
    let line =
        r#"{ "type": "shell", "inline": ["setsid sleep 43219 &", "trap '' TERM; sleep 43219"], "timeout": "1s" }"#;
    let started = Instant::now();
    let ended = rig.provision(&template(line), &[]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    assert!(ended.stderr.contains("provisioner shell: it took longer than its timeout of 1s"), "{}", ended.stderr);
    assert!(started.elapsed() < Duration::from_secs(30), "it took {:?}", started.elapsed());
    assert!(processes_with("sleep 43219").is_empty());
}

#[test]
fn a_provisioner_is_tried_again_as_often_as_it_may_be() {
    let rig = rig();
    let retried = |retries: u8| {
        format!(
            r#"{{ "type": "shell", "inline": ["echo x >> /tries", "[ $(wc -l < /tries) -ge 3 ]"],
                 "pause_before": "100ms", "timeout": "1m", "max_retries": {retries} }}"#
        )
    };
    let ended = rig.provision(&template(&retried(1)), &[]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let ended = succeeded(rig.provision(&template(&retried(5)), &[]));
    assert!(ended.stderr.contains("b: Pausing 100ms before the next provisioner"), "{}", ended.stderr);
    assert!(ended.stderr.contains("b: Trying again: retry 2 of 5"), "{}", ended.stderr);
    assert_eq!(rig.read_from(&rig.volume_disk("b"), "/tries").lines().count(), 3);
    // When and how often it runs says nothing about what it makes.
    let ended = succeeded(rig.provision(&template(&retried(7)), &[]));
    assert!(ended.stderr.contains("unchanged"), "{}", ended.stderr);
}

#[test]
fn an_override_replaces_options_for_the_builder_that_it_names() {
    let rig = rig();
    let line = r#"{ "type": "shell", "inline": ["echo every > /made"], "override": { "b": { "inline": ["echo this > /made"] } } }"#;
    succeeded(rig.provision(&template(line), &[]));
    assert_eq!(rig.read_from(&rig.volume_disk("b"), "/made"), "this");
}

#[test]
fn a_package_of_another_component_is_installed_and_is_no_service() {
    let rig = rig();
    // The manifest of a component that is a package only.
    let agent = Component { repository: rig.path().join("agent"), subdirectory: String::new() };
    let text =
        "name = \"agent\"\n[build]\ncommands = [\"true\"]\n[package.tree]\npath = \"files\"\nprefix = \"/opt/agent\"\n";
    agent.write("component.toml", text);
    agent.write("files/agent", "#!/bin/sh\necho agent\n");
    agent.commit("agent");
    let source = agent.repository.display().to_string();
    rig.run("artifact", &["build", "--source", &source, "--manifest", "agent.json"]);

    let template = template(r#"{ "type": "artifact", "manifest": "agent.json" }, { "type": "artifact" }"#);
    succeeded(rig.provision(&template, &[]));
    let disk = rig.volume_disk("b");
    assert_eq!(rig.read_from(&disk, "/opt/agent/agent"), "#!/bin/sh\necho agent");
    assert_eq!(rig.read_from(&disk, "/opt/small/greeting"), "hello");

    for (program, arguments) in [("imager", &["provision"][..]), ("deployer", &["deploy"])] {
        let ended = rig.ask(program, &[arguments, &["--manifest", "agent.json"]].concat());
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("'agent' is a package and no service"), "{}", ended.stderr);
    }
}
