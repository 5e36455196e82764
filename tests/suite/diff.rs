//! What `imager diff` says of two images, and what a snapshot stores of it.

use std::fs;

use serde_json::Value;

use crate::rig::Rig;

fn template(name: &str, lines: &[&str]) -> String {
    let lines = serde_json::to_string(lines).unwrap();
    format!(
        r#"{{ "builders": [{{ "name": "{name}", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-{name}" }}],
  "provisioners": [{{ "type": "shell", "inline": {lines} }}] }}"#
    )
}

/// Bakes an image `image-NAME` of the base image.
fn bake(rig: &Rig, name: &str, lines: &[&str]) {
    let ended = rig.provision(&template(name, lines), &["-only", name]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let ended = rig.run("imager", &["snapshot", "--only", name]);
    assert!(!ended.stderr.contains("could not be stored"), "{}", ended.stderr);
}

fn json(rig: &Rig, arguments: &[&str]) -> Value {
    let all: Vec<_> = ["diff", "--json"].into_iter().chain(arguments.iter().copied()).collect();
    serde_json::from_str(&rig.run("imager", &all).stdout).unwrap()
}

/// One field of each element of a list.
fn each<'a>(list: &'a Value, field: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|element| element[field].as_str().unwrap()).collect()
}

#[test]
fn a_diff_says_what_two_images_differ_in() {
    let rig = Rig::new();
    let component = rig.small_component();
    rig.build_artifact(&component);
    bake(&rig, "one", &["echo old > /srv/changed", "echo gone > /srv/gone", "chmod u+s /usr/bin/env"]);
    bake(
        &rig,
        "two",
        &[
            "echo new > /srv/changed",
            "useradd --system --uid 950 web",
            "systemctl mask getty@.service",
            // A package's state, as dpkg would leave it.
            "printf 'Package: made\\nStatus: install ok installed\\nArchitecture: all\\nVersion: 1.0\\n\\n' >> /var/lib/dpkg/status",
            "printf '/usr/share/made\\n' > /var/lib/dpkg/info/made.list; echo 12345 > /usr/share/made",
            "mkdir -p /etc/systemd/system/sockets.target.wants",
            "printf '[Socket]\\nListenStream=8080\\n' > /etc/systemd/system/web.socket",
            "ln -s ../web.socket /etc/systemd/system/sockets.target.wants/web.socket",
        ],
    );

    let found = json(&rig, &["image-one", "image-two"]);
    assert_eq!(found["schema_version"], 1);
    assert_eq!(found["from"]["name"], "image-one");
    assert_eq!(each(&found["packages"]["added"], "name"), ["made"]);
    assert_eq!(found["packages"]["added"][0]["files"]["added"], 1);
    assert_eq!(each(&found["files"]["removed"], "path"), ["/srv/gone"]);
    let changed = each(&found["files"]["changed"], "path");
    assert!(changed.contains(&"/srv/changed") && changed.contains(&"/usr/bin/env"), "{changed:?}");
    // The contents have the same size, and were written by two builds.
    let content =
        &found["files"]["changed"].as_array().unwrap()[changed.iter().position(|it| *it == "/srv/changed").unwrap()];
    assert_eq!((&content["content"], &content["size"]), (&Value::Bool(true), &Value::Null));
    assert!(!each(&found["files"]["added"], "path").contains(&"/usr/share/made"));
    assert_eq!(each(&found["users"]["added"], "name"), ["web"]);
    assert_eq!(found["units"]["masked"][0], "getty@.service");
    assert_eq!(each(&found["sockets"]["added"], "address"), ["8080"]);
    assert_eq!(each(&found["privileged"]["removed"], "path"), ["/usr/bin/env"]);

    let text = rig.run("imager", &["diff", "image-one", "image-two"]).stdout;
    assert!(text.contains("Packages: 1 added\n  +  made  1.0  1 added, +6 B\n"), "{text}");
    assert!(
        each(&json(&rig, &["--all-files", "image-one", "image-two"])["files"]["added"], "path")
            .contains(&"/usr/share/made")
    );
    assert_eq!(rig.run("imager", &["diff", "image-two", "image-two"]).stdout, "no differences\n");

    // The snapshot has stored the diff to the source image, which says the same as one that is made now.
    let stored = json(&rig, &["image-two"]);
    assert_eq!(stored, json(&rig, &["bookworm", "image-two"]));
    let id = stored["to"]["id"].as_str().unwrap();
    let document = fs::read(rig.state().join("images").join(id).join("documents/diff.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&document).unwrap(), stored);
}

#[test]
fn a_diff_of_an_unknown_image_is_refused() {
    let rig = Rig::new();
    let ended = rig.ask("imager", &["diff", "bookworm", "nowhere"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("there is no image 'nowhere'"), "{}", ended.stderr);
    // A base image is made from nothing.
    let ended = rig.ask("imager", &["diff", "bookworm"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("name two images"), "{}", ended.stderr);
}
