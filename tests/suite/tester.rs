//! The tester: verdicts, audits, and instances that are gone afterwards.

use std::fs;

use manifest::CheckOutcome;

use crate::rig::{Rig, processes_with, wait_for};

/// An image of the small component, with a shell line run in it, untested.
fn image(line: &str) -> Rig {
    let rig = Rig::new();
    let component = rig.small_component();
    rig.build_artifact(&component);
    let template = format!(
        r#"{{ "builders": [{{ "name": "small", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "small" }}],
              "provisioners": [{{ "type": "shell", "inline": [{}] }}, {{ "type": "artifact" }}] }}"#,
        serde_json::to_string(line).unwrap()
    );
    rig.run("imager", &["build", &rig.template(&template)]);
    rig
}

#[test]
fn a_good_image_passes_and_a_second_run_has_nothing_to_do() {
    let rig = image("true");
    let junit = rig.path().join("junit.xml").display().to_string();
    let image = &rig.manifest().images["small"];
    let ended = rig.run("tester", &["run", "--junit", &junit]);
    assert_eq!(ended.stdout.trim(), format!("{} passed", image.identity));
    let verdict = &rig.manifest().tests["small"];
    assert!(verdict.passed && verdict.digest == image.digest && verdict.boot_millis > 0);
    let phases = ["offline", "booted"].map(|phase| verdict.checks.iter().filter(|check| check.phase == phase).count());
    assert!(phases[0] > 3 && phases[1] >= 2, "{phases:?}");
    assert!(fs::read_to_string(&junit).unwrap().contains("failures=\"0\""));

    let again = rig.run("tester", &["run"]);
    assert!(again.stderr.contains("unchanged: "), "{}", again.stderr);
}

#[test]
fn an_image_that_is_not_what_it_should_be_fails_with_each_reason() {
    // A key that every instance would share, and a unit that does not start.
    let line = "mkdir -p /etc/ssh && echo key > /etc/ssh/ssh_host_rsa_key && \
                printf '[Service]\\nExecStart=/bin/false\\n[Install]\\nWantedBy=multi-user.target\\n' \
                > /etc/systemd/system/broken.service && systemctl enable broken.service";
    let rig = image(line);
    let gossfile = rig.path().join("goss.yaml");
    fs::write(&gossfile, "file:\n  /opt/small/greeting:\n    exists: true\n    contents: [\"goodbye\"]\n").unwrap();
    let ended = rig.ask("tester", &["run", "--gossfile", &gossfile.display().to_string()]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for reason in ["ssh_host_rsa_key", "broken.service", "goodbye"] {
        assert!(ended.stderr.contains(reason), "no word of {reason}:\n{}", ended.stderr);
    }
    let verdict = &rig.manifest().tests["small"];
    assert!(!verdict.passed);
    assert_eq!(verdict.checks.iter().filter(|check| check.outcome == CheckOutcome::Failed).count(), 3);
    // The verdict stands with the image, too.
    let image = rig.manifest().images["small"].identity.value.clone();
    let stored = rig.run("imager", &["inspect", &image]).stdout;
    let stored: serde_json::Value = serde_json::from_str(&stored).unwrap();
    assert_eq!(stored["verdict"]["passed"], false);
}

#[test]
fn an_image_without_cloud_init_is_refused_before_anything_boots() {
    let rig = image("rm /usr/bin/cloud-init");
    let id = rig.manifest().images["small"].identity.value.clone();
    let ended = rig.ask("tester", &["run"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("the image {id} has no cloud-init")), "{}", ended.stderr);
    assert!(!ended.stderr.contains("Booting"), "{}", ended.stderr);
    let collected = rig.run("tester", &["gc"]);
    assert!(collected.stderr.contains("unchanged: no instance has outlived its test"), "{}", collected.stderr);
}

#[test]
fn a_broken_gossfile_is_refused_before_anything_boots() {
    let rig = image("true");
    let gossfile = rig.path().join("goss.yaml");
    for (text, line, why) in [
        ("file:\n  /etc/passwd:\n    exist: true\n", 3, "exists"),
        ("file:\n  /etc/passwd:\n    exists: [\n", 0, ""),
        ("fiel:\n  /etc/passwd:\n    exists: true\n", 1, "file"),
        ("mount:\n  /:\n    exists: true\n", 1, "mount"),
    ] {
        fs::write(&gossfile, text).unwrap();
        let ended = rig.ask("tester", &["run", "--gossfile", &gossfile.display().to_string()]);
        assert_eq!(ended.code, Some(2), "{text}\n{}", ended.stderr);
        let place = if line == 0 { "goss.yaml:".to_owned() } else { format!("goss.yaml:{line}") };
        assert!(ended.stderr.contains(&place) && ended.stderr.contains(why), "{text}\n{}", ended.stderr);
        assert!(!rig.state().join("locald").exists(), "something was started");
    }
}

#[test]
fn after_kill_9_of_the_tester_its_instance_goes() {
    let rig = image("true");
    let mut tester = rig.spawn("tester", &["run"]);
    let state = rig.state().display().to_string();
    let booted = || processes_with(&state).iter().any(|process| process.contains("systemd-nspawn"));
    wait_for("the instance", || booted().then_some(()));
    tester.kill().unwrap();
    tester.wait().unwrap();
    rig.assert_nothing_left();
    rig.run("tester", &["run"]);
}
