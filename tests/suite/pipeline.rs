//! The whole line by its one command, and every stage again by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::rig::{Component, Ended, Rig};

impl Rig {
    fn pipeline(&self, component: &Component, arguments: &[&str]) -> Ended {
        let path = component.path().display().to_string();
        let manifest = self.manifest_path().display().to_string();
        let mut all = vec!["pipeline", "--with-aws", "--json", "--component", &path, "--manifest", &manifest];
        all.extend(arguments);
        self.ask("xtask", &all)
    }

    fn report(&self, component: &Component, arguments: &[&str]) -> Value {
        let ended = self.pipeline(component, arguments);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        serde_json::from_str(&ended.stdout).expect("one JSON document on stdout and nothing else")
    }
}

fn results(report: &Value) -> Vec<(&str, &str)> {
    let stages = report["stages"].as_array().unwrap();
    stages.iter().map(|stage| (stage["stage"].as_str().unwrap(), stage["result"].as_str().unwrap())).collect()
}

#[test]
fn a_commit_becomes_a_fleet_and_every_stage_can_be_run_again() {
    let rig = Rig::new();
    let hello = rig.hello();
    let report = rig.report(&hello, &[]);
    for stage in ["artifact", "provision", "snapshot", "test", "deploy"] {
        assert!(results(&report).contains(&(stage, "done")), "{report}");
    }
    let url = report["url"].as_str().unwrap();
    let version = rig.manifest().source.unwrap().version;
    let answer = cli::Command::new("curl").args(["--silent", "--fail", url]).run().unwrap().text();
    assert!(answer.contains(&version), "{answer}");
    assert_eq!(report["manifest"], rig.manifest_path().display().to_string());

    let started = Instant::now();
    let again = rig.report(&hello, &[]);
    let limit = Duration::from_secs(3);
    assert!(results(&again).iter().all(|(_, result)| *result == "unchanged"), "{again}");
    assert!(started.elapsed() < 2 * limit, "a run with nothing to do took {:?}", started.elapsed());

    // By hand, as Jenkins or a person would: every stage says that it has nothing to do.
    let source = hello.repository.display().to_string();
    for (program, arguments) in [
        ("artifact", &["build", "--source", &source, "--subdir", &hello.subdirectory][..]),
        ("imager", &["provision"]),
        ("imager", &["snapshot"]),
        ("tester", &["run"]),
        ("deployer", &["deploy"]),
    ] {
        let ended = rig.run(program, arguments);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("unchanged: "), "{program} {arguments:?}: {}", ended.stderr);
    }

    // Redone by hand, a stage leaves what comes after it marked, and the rest follows.
    rig.run("imager", &["provision", "--only", "hvm", "--force"]);
    let manifest = rig.manifest();
    assert!(manifest.images["hvm"].stamp.stale.as_deref().unwrap().contains("the volume"));
    assert!(manifest.deployments["local"].stamp.stale.is_some());
    assert_eq!(rig.ask("deployer", &["deploy"]).code, Some(2), "a stale image was deployed");
    let report = rig.report(&hello, &["--from", "snapshot"]);
    assert!(results(&report).contains(&("deploy", "done")), "{report}");
    assert!(rig.manifest().deployments["local"].stamp.stale.is_none());

    rig.run("deployer", &["destroy"]);
    rig.assert_nothing_left();
}

#[test]
fn a_stage_that_fails_ends_the_line_and_says_where_to_look() {
    let rig = Rig::new();
    let hello = rig.hello();
    hello.write("build.sh", "#!/bin/sh\necho this build cannot succeed >&2\nexit 1\n");
    hello.commit_change("broken");
    let ended = rig.pipeline(&hello, &[]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert!(report["url"].is_null());
    let results = results(&report);
    assert!(results.contains(&("artifact", "failed")) && results.contains(&("deploy", "skipped")), "{report}");
    assert!(ended.stderr.contains("this build cannot succeed"), "{}", ended.stderr);
    let log = ended.stderr.split_whitespace().find(|word| word.ends_with("artifact.log"));
    let log = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(log.expect("the path of the log"));
    assert!(log.exists() || Path::new(log.file_name().unwrap()).exists(), "{}", log.display());
    assert!(!rig.manifest_path().exists(), "a manifest without an artifact");
}

#[test]
fn only_one_stage_runs_when_one_is_asked_for() {
    let rig = Rig::new();
    let component = rig.small_component();
    let report = rig.report(&component, &["--only", "artifact"]);
    assert!(results(&report).contains(&("artifact", "done")), "{report}");
    assert!(!results(&report).iter().any(|(stage, result)| *stage != "artifact" && *result == "done"), "{report}");
    assert!(report["url"].is_null());
}
