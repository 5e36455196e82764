//! What a store keeps, and for how long.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::baked::Version;
use crate::rig::{Rig, rig_with_artifact, shell, succeeded};
use crate::volumes::template;

/// Names of the images that `imager images --prune` removed, and what it said.
fn prune(rig: &Rig, keep: &str) -> (Vec<String>, String) {
    let ended = succeeded(rig.ask("imager", &["images", "--prune", "--keep", keep, "--json"]));
    let removed: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    (removed.iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect(), ended.stderr)
}

#[test]
fn images_of_old_versions_go_unless_instances_run_them() {
    let rig = Rig::with_images();
    rig.deployed(Version::One);
    let names = || {
        let all: Vec<Value> = serde_json::from_str(&rig.run("imager", &["images", "--json"]).stdout).unwrap();
        all.iter().map(|image| image["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let [base, one, two, bad] = &names()[..] else { panic!("other images than expected: {:?}", names()) };
    assert_eq!(prune(&rig, "3").0, [""; 0]);
    let (removed, said) = prune(&rig, "1");
    assert_eq!(removed, [two.as_str()]);
    assert!(said.contains("is in use by i-") && said.contains(", hello-local-v000: destroy them first"), "{said}");
    let refused = rig.ask("imager", &["remove", one]);
    assert!(refused.code == Some(3) && refused.stderr.contains("is in use by i-"), "{}", refused.stderr);
    assert_eq!(names(), [base.as_str(), one, bad]);
    rig.destroy();

    // One that cannot be removed keeps no other from it.
    let image: Value = serde_json::from_str(&rig.run("imager", &["inspect", one]).stdout).unwrap();
    let directory = rig.state().join("images").join(image["id"].as_str().unwrap());
    let attribute = |change: &str| cli::Command::new("chattr").arg(change).arg(&directory).run().unwrap();
    attribute("+i");
    let ended = rig.ask("imager", &["images", "--prune", "--keep", "0", "--json"]);
    attribute("-i");
    assert!(ended.code == Some(3) && ended.stderr.contains("could not be removed"), "{}", ended.stderr);
    assert!(ended.stdout.contains(bad) && !ended.stdout.contains(one), "{}", ended.stdout);
    assert_eq!(names(), [base.as_str(), one]);
    assert_eq!(prune(&rig, "0").0, [one.as_str()]);
    assert_eq!(names(), [base.as_str()]);
    let ended = rig.ask("imager", &["images", "--prune"]);
    assert!(ended.code == Some(2) && ended.stderr.contains("--keep <NUMBER>"), "{}", ended.stderr);
}

#[test]
fn volumes_and_layers_go_when_no_build_takes_them_up_any_more() {
    let rig = rig_with_artifact();
    let template = template("", &[&shell("true"), r#"{ "type": "artifact" }"#]);
    succeeded(rig.provision(&template, &[]));
    // The directories of the processes that have ended.
    succeeded(rig.ask("imager", &["gc"]));
    let in_use = succeeded(rig.ask("imager", &["gc"]));
    assert!(in_use.stderr.contains("unchanged: "), "{}", in_use.stderr);

    let directories = |kind: &str| {
        let entries = fs::read_dir(rig.state().join(kind)).unwrap();
        entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let age = |record: &Path| {
        let mut of: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
        of["created"] = json!("2026-01-01T00:00:00Z");
        fs::write(record, of.to_string()).unwrap();
    };
    let (volumes, layers) = (directories("volumes"), directories("layers"));
    assert!(volumes.len() == 1 && !layers.is_empty());
    volumes.iter().for_each(|id| age(&rig.state().join("volumes").join(id).join("volume.json")));
    layers.iter().for_each(|key| age(&rig.state().join("layers").join(key).join("layer.json")));
    let mut expected = [volumes, layers].concat();
    expected.sort();
    for (arguments, left) in [(&["gc", "--dry-run"][..], expected.len()), (&["gc"], 0)] {
        let ended = succeeded(rig.ask("imager", arguments));
        let mut found: Vec<_> = ended.stdout.lines().collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{}", ended.stderr);
        assert_eq!(directories("volumes").len() + directories("layers").len(), left);
    }
    let gone = rig.ask("imager", &["snapshot"]);
    assert!(gone.code == Some(3) && gone.stderr.contains("run `imager provision` again"), "{}", gone.stderr);
    succeeded(rig.provision(&template, &[]));
    succeeded(rig.ask("imager", &["snapshot"]));
}
