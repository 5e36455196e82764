use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use manifest::{CheckOutcome, TestedCheck};
use tempfile::TempDir;

use super::audit;

/// A tree as a good image has it, and on top of that `files`: a path that ends with a slash is a directory.
fn image(files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let good = [
        ("etc/shadow", "daemon:*:1::::::\nroot:!:19000:0:99999:7:::\n"),
        ("etc/machine-id", ""),
        ("etc/ssh/sshd_config", ""),
        ("home/", ""),
        ("root/.bashrc", ""),
        ("tmp/", ""),
        ("usr/sbin/", ""),
        ("var/lib/cloud/instances/", ""),
        ("var/lib/systemd/coredump/", ""),
    ];
    for (path, content) in good.iter().chain(files) {
        let path = root.path().join(path);
        let directory = if path.to_string_lossy().ends_with('/') { path.as_path() } else { path.parent().unwrap() };
        fs::create_dir_all(directory).unwrap();
        if directory != path {
            fs::write(path, content).unwrap();
        }
    }
    root
}

fn failed(root: &Path) -> Vec<(String, String)> {
    let failed =
        |check: TestedCheck| (check.outcome == CheckOutcome::Failed).then(|| (check.name, check.message.unwrap()));
    audit(root).unwrap().into_iter().filter_map(failed).collect()
}

#[track_caller]
fn finds(files: &[(&str, &str)], name: &str, message: &str) {
    assert_eq!(failed(image(files).path()), [(name.to_owned(), message.to_owned())]);
}

#[test]
fn a_good_image_passes_every_check() {
    let root = image(&[("etc/core", "a directory may be called so"), ("root/core.d/x", "")]);
    symlink("/etc/machine-id", root.path().join("var/lib/dbus-machine-id")).unwrap();
    let checks = audit(root.path()).unwrap();
    assert_eq!(checks.len(), super::CHECKS.len());
    for check in checks {
        assert_eq!((check.outcome, check.phase.as_str()), (CheckOutcome::Passed, "offline"), "{}", check.name);
    }
}

#[test]
fn a_tree_without_anything_fails_only_for_roots_entry() {
    let root = tempfile::tempdir().unwrap();
    assert_eq!(failed(root.path()), [("root has no password".into(), "/etc/shadow has no entry for root".into())]);
}

#[test]
fn keys_are_found() {
    let keys = [("etc/ssh/ssh_host_rsa_key", ""), ("etc/ssh/ssh_host_rsa_key.pub", "")];
    finds(&keys, "no SSH host keys", "/etc/ssh/ssh_host_rsa_key, /etc/ssh/ssh_host_rsa_key.pub");
    finds(&[("root/.ssh/authorized_keys", "")], "no authorized keys", "/root/.ssh/authorized_keys");
    let deep = "home/build/a/b/.ssh/authorized_keys2";
    finds(&[(deep, "")], "no authorized keys", &format!("/{deep}"));
}

#[test]
fn a_password_of_root_is_found_and_not_shown() {
    let with = |field: &str| format!("root:{field}:19000:0:99999:7:::\n");
    let name = "root has no password";
    finds(&[("etc/shadow", &with("$6$secret"))], name, "/etc/shadow has a password of root");
    finds(&[("etc/shadow", &with("!$6$locked"))], name, "/etc/shadow has a password of root");
    finds(&[("etc/shadow", &with(""))], name, "root needs no password");
    for locked in ["*", "!", "!*", "!!"] {
        assert!(failed(image(&[("etc/shadow", &with(locked))]).path()).is_empty());
    }
}

#[test]
fn an_identity_is_found() {
    let id = "0123456789abcdef0123456789abcdef\n";
    finds(&[("etc/machine-id", id)], "no machine id", "/etc/machine-id");
    finds(&[("var/lib/dbus/machine-id", id)], "no machine id", "/var/lib/dbus/machine-id");
    assert!(failed(image(&[("etc/machine-id", "uninitialized\n")]).path()).is_empty());
    let state = [("var/lib/cloud/instances/i-1/sem/config", "")];
    finds(&state, "no state of cloud-init", "/var/lib/cloud/instances/i-1");
    let root = image(&[]);
    symlink("/var/lib/cloud/instances/gone", root.path().join("var/lib/cloud/instance")).unwrap();
    assert_eq!(failed(root.path()), [("no state of cloud-init".into(), "/var/lib/cloud/instance".into())]);
}

#[test]
fn what_is_left_of_a_build_is_found() {
    for path in [
        "usr/sbin/policy-rc.d",
        "tmp/kiln-script.sh",
        "tmp/packer-provisioner-ansible-local/x.yml",
        ".kiln-connection/x",
        "etc/.kiln-original-resolv.conf",
    ] {
        let top = Path::new(path).ancestors().find(|at| failed_at(path, at)).is_some();
        assert!(top, "{path} was not found");
    }
}

fn failed_at(path: &str, at: &Path) -> bool {
    let expected = ("no left-over build files".to_owned(), format!("/{}", at.display()));
    failed(image(&[(path, "")]).path()) == [expected]
}

#[test]
fn dumps_and_histories_are_found_and_a_long_list_is_cut() {
    finds(&[("core.4711", "")], "no core dumps", "/core.4711");
    finds(&[("var/lib/systemd/coredump/core.x.zst", "")], "no core dumps", "/var/lib/systemd/coredump/core.x.zst");
    finds(&[("root/.bash_history", "")], "no shell history", "/root/.bash_history");
    finds(&[("home/a/.python_history", "")], "no shell history", "/home/a/.python_history");
    let names: Vec<_> = (10..22).map(|number| format!("tmp/kiln-{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
    let found = failed(image(&files).path());
    assert!(found[0].1.ends_with("/tmp/kiln-19 and 2 more"), "{found:?}");
}

/// An absolute link in the image must lead into the image, not to the host.
#[test]
fn links_lead_to_places_in_the_image() {
    let root = image(&[]);
    fs::remove_dir(root.path().join("home")).unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("authorized_keys"), "").unwrap();
    symlink(elsewhere.path(), root.path().join("home")).unwrap();
    assert!(failed(root.path()).is_empty());
}
