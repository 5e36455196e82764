//! `config-agent select`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::imds::Imds;
use super::rig::{Ended, Rig, free_port};

/// Four configurations in the image, as the playbook makes them.
fn rig() -> Rig {
    let rig = Rig::new();
    for country in ["uk", "us"] {
        for environment in ["stage", "live"] {
            rig.write(
                &format!("etc/{country}-{environment}-conf.json"),
                &format!("{{\"country\": \"{country}\", \"environment\": \"{environment}\"}}\n"),
            );
        }
    }
    rig.write("cmdline", "root=/dev/vda1 quiet\n");
    rig.write("select.toml", &settings(&rig, ""));
    rig
}

fn settings(rig: &Rig, more: &str) -> String {
    format!(
        "pattern = \"{}/{{country}}-{{environment}}-conf.json\"\ndestination = \"{}\"\ncmdline = \"{}\"\nfile = \"{}\"\n{more}\n",
        rig.path("etc").display(),
        rig.path("conf.json").display(),
        rig.path("cmdline").display(),
        rig.path("instance").display(),
    )
}

fn select(rig: &Rig, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
    let settings = rig.path("select.toml");
    rig.plain(&[&["select", "--settings", settings.to_str().unwrap()], arguments].concat(), variables)
}

fn chosen(rig: &Rig) -> String {
    fs::read_to_string(rig.path("conf.json")).unwrap()
}

#[test]
fn tags_choose_and_the_file_is_linked() {
    let rig = rig();
    let imds = Imds::with_tags(&[("country", "uk"), ("environment", "stage")]).serve();
    let ended = select(&rig, &["--imds", &imds], &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout, format!("{}\n", rig.path("etc/uk-stage-conf.json").display()));
    assert_eq!(fs::read_link(rig.path("conf.json")).unwrap(), rig.path("etc/uk-stage-conf.json"));
    assert!(ended.stderr.contains("country is 'uk', from the instance's tag 'country'"), "{}", ended.stderr);
    // Another boot elsewhere chooses anew.
    let imds = Imds::with_tags(&[("country", "us"), ("environment", "live")]).serve();
    assert_eq!(select(&rig, &["--imds", &imds], &[]).code, Some(0));
    assert_eq!(chosen(&rig), "{\"country\": \"us\", \"environment\": \"live\"}\n");
    let again = select(&rig, &["--imds", &imds], &[]);
    assert!(again.stderr.contains("conf.json is already "), "{}", again.stderr);
}

#[test]
fn user_data_and_the_region_choose_as_well() {
    for user_data in ["{\"country\": \"us\", \"environment\": \"stage\"}", "environment=stage\ncountry = us\n"] {
        let rig = rig();
        let imds = Imds::default();
        imds.put("user-data", user_data);
        assert_eq!(select(&rig, &["--imds", &imds.serve()], &[]).code, Some(0));
        assert_eq!(chosen(&rig), "{\"country\": \"us\", \"environment\": \"stage\"}\n");
    }
    let rig = rig();
    rig.write("etc/eu-west-1.json", "{}");
    let imds = Imds::default();
    imds.put("meta-data/placement/region", "eu-west-1");
    let pattern = format!("{}/{{region}}.json", rig.path("etc").display());
    let ended = select(&rig, &["--imds", &imds.serve(), "--pattern", &pattern], &[]);
    assert!(ended.stderr.contains("region is 'eu-west-1', from the instance's region"), "{ended:?}");
}

#[test]
fn a_metadata_service_that_is_late_is_waited_for() {
    let rig = rig();
    let imds = Imds::with_tags(&[("country", "uk"), ("environment", "live")]);
    imds.refuse(3);
    assert_eq!(select(&rig, &["--imds", &imds.serve()], &[]).code, Some(0));
    assert_eq!(chosen(&rig), "{\"country\": \"uk\", \"environment\": \"live\"}\n");
}

#[test]
fn sources_are_asked_in_order_and_can_be_named() {
    let rig = rig();
    let imds = Imds::with_tags(&[("country", "uk")]).serve();
    rig.write("cmdline", "quiet config-agent.environment=live config-agent.country=us\n");
    rig.write("instance", "environment=stage\ncountry=us\n");
    let variables = [("CONFIG_AGENT_COUNTRY", "us"), ("CONFIG_AGENT_ENVIRONMENT", "stage")];
    let choose = |arguments: &[&str]| {
        let ended = select(&rig, arguments, &variables);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended.stdout.trim().rsplit('/').next().unwrap().to_owned()
    };
    assert_eq!(choose(&["--imds", &imds]), "uk-live-conf.json");
    assert_eq!(choose(&["--from", "cmdline,environment"]), "us-live-conf.json");
    assert_eq!(choose(&["--from", "file"]), "us-stage-conf.json");
    assert_eq!(choose(&["--from", "environment,cmdline"]), "us-stage-conf.json");
    rig.write("select.toml", &settings(&rig, "from = [\"file\"]"));
    assert_eq!(choose(&[]), "us-stage-conf.json");
}

#[test]
fn without_a_match_the_boot_fails_and_says_all_that_is_known() {
    let rig = rig();
    rig.write("conf.json", "as it was");
    let imds = Imds::with_tags(&[("country", "uk"), ("environment", "prod")]).serve();
    let ended = select(&rig, &["--imds", &imds], &[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
    let etc = rig.path("etc").display().to_string();
    let expected = format!(
        "config-agent: choosing {0}: {etc}/uk-prod-conf.json does not exist\n  \
         looked for: {etc}/{{country}}-{{environment}}-conf.json\n  \
         country is 'uk', from the instance's tag 'country'\n  \
         environment is 'prod', from the instance's tag 'environment'\n  \
         there are: {etc}/uk-live-conf.json, {etc}/uk-stage-conf.json, {etc}/us-live-conf.json, {etc}/us-stage-conf.json\n",
        rig.path("conf.json").display()
    );
    assert_eq!(ended.stderr, expected);
    assert_eq!(chosen(&rig), "as it was");

    let imds = Imds::with_tags(&[("country", "uk")]).serve();
    let ended = select(&rig, &["--imds", &imds], &[]);
    assert_eq!(ended.code, Some(1));
    for part in [
        "nothing says what 'environment' is here",
        "country is 'uk'",
        "asked: imds: ",
        "asked: cmdline: ",
        "asked: file: ",
        "asked: environment: CONFIG_AGENT_ENVIRONMENT is not set",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
}

#[test]
fn a_broken_file_is_not_chosen() {
    let rig = rig();
    rig.write("etc/uk-live-conf.json", "{\"country\": ");
    rig.write("instance", "country=uk\nenvironment=live\n");
    let ended = select(&rig, &["--from", "file"], &[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("uk-live-conf.json is broken: EOF while parsing"), "{}", ended.stderr);
    assert!(!rig.path("conf.json").exists());
}

#[test]
fn a_copy_keeps_its_mode_and_is_made_once() {
    let rig = rig();
    rig.write("instance", "country=uk\nenvironment=live\n");
    fs::set_permissions(rig.path("etc/uk-live-conf.json"), PermissionsExt::from_mode(0o640)).unwrap();
    let copy = || select(&rig, &["--from", "file", "--copy"], &[]);
    assert_eq!(copy().code, Some(0));
    let metadata = fs::symlink_metadata(rig.path("conf.json")).unwrap();
    assert!(metadata.is_file() && metadata.permissions().mode() & 0o7777 == 0o640);
    assert!(copy().stderr.contains("is already"));
    // A link from before becomes a file.
    assert_eq!(select(&rig, &["--from", "file"], &[]).code, Some(0));
    assert!(copy().stderr.contains("is now"));
    assert!(fs::symlink_metadata(rig.path("conf.json")).unwrap().is_file());
}

#[test]
fn a_named_source_must_answer() {
    let rig = rig();
    rig.write("instance", "country=uk\nenvironment=live\n");
    let imds = format!("http://127.0.0.1:{}", free_port());
    let arguments = ["--imds", &imds, "--imds-deadline", "300ms"];
    let ended = select(&rig, &[&arguments[..], &["--from", "imds,file"]].concat(), &[]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("and was asked for 300ms"), "{}", ended.stderr);
    assert!(!rig.path("conf.json").exists());
    // Nobody named it: the others decide, and it is said.
    let ended = select(&rig, &arguments, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stderr.contains("going on with the other sources"), "{}", ended.stderr);
}

#[test]
fn a_value_cannot_lead_elsewhere() {
    let rig = rig();
    rig.write("instance", "country=../../etc/passwd\nenvironment=live\n");
    let ended = select(&rig, &["--from", "file"], &[]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("which cannot be a part of a file's name; use letters"), "{}", ended.stderr);
}

#[test]
fn settings_are_read_strictly() {
    let rig = rig();
    for (text, message) in [
        ("patern = \"/a\"", "1: unknown key 'patern' at the top level; did you mean 'pattern'?"),
        ("pattern = \"/etc/x\"\ndestination = \"/y\"", "1: pattern is '/etc/x', which has no name in braces"),
        ("destination = \"/y\"", "pattern is missing; add it"),
        (
            "pattern = \"/{a}\"\ndestination = \"/y\"\nfrom = [\"imsd\"]",
            "3: from: unknown kind 'imsd'; did you mean 'imds'?",
        ),
    ] {
        rig.write("select.toml", text);
        let ended = select(&rig, &[], &[]);
        assert_eq!(ended.code, Some(2), "{text}");
        assert!(ended.stderr.contains(message), "{message}: {}", ended.stderr);
    }
}
