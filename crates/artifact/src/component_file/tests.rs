use std::path::Path;

use super::*;

const GOOD: &str = r#"name = "hello"

[build]
commands = ["make deb"]

[package]
deb = "dist/*.deb"

[image]
template = "image.json"
builder = "hvm"

[test]
gossfile = "goss.yaml"

[deploy]
port = 8000
health = "/healthz"
dns = "hello.kiln.internal"

[deploy.fleet]
steps = [10, 50, 100]

[deploy.environments.local]
instances = 2
"#;

fn parse(text: &str) -> Result<ComponentFile, BadInput> {
    let files = ["image.json", "goss.yaml"];
    ComponentFile::parse("reading", Path::new(NAME), text, |path| files.contains(&path))
}

#[test]
fn a_good_file_is_read() {
    assert_eq!(parse(GOOD).unwrap().component.deploy.unwrap().fleet_in("local").unwrap().instances, 2);
}

#[test]
fn a_package_for_the_images_of_others_has_neither_image_nor_deployment() {
    let (package, _) = GOOD.split_once("[image]").unwrap();
    let component = parse(package).unwrap().component;
    assert!(component.service().is_err() && component.image.is_none());
    let half = GOOD.split_once("[test]").unwrap().0;
    let error = parse(half).unwrap_err().to_string();
    let expected = "9: image is there, and [test] is not: a service has [image], [test] and [deploy]";
    assert!(error.contains(expected), "{error}");
}

/// What is replaced in [`GOOD`], by what, and the message after `reading: component.toml:`.
const BROKEN: &[(&str, &str, &str)] = &[
    ("[package]", "[package", "6: unclosed table, expected `]`; mend the line; https://toml.io describes the format"),
    ("port = 8000", "port = 1\nport = 2", "18: duplicate key; mend the line; https://toml.io describes the format"),
    ("health =", "heatlh =", "18: unknown key 'heatlh' in [deploy]; did you mean 'health'?"),
    (
        "instances = 2",
        "instnces = 2",
        "25: unknown key 'instnces' in [deploy.environments.local]; did you mean 'instances'?",
    ),
    ("name =", "nam =", "1: unknown key 'nam' at the top level; did you mean 'name'?"),
    ("deb =", "dep =", "7: unknown kind of package 'dep'; did you mean 'deb'?"),
    ("name = \"hello\"", "", " missing key 'name' at the top level; add it; docs/artifact.md describes every key"),
    (
        "dns = \"hello.kiln.internal\"",
        "",
        "16: missing key 'dns' in [deploy]; add it; docs/artifact.md describes every key",
    ),
    (
        "[build]\ncommands = [\"make deb\"]",
        "",
        " missing key 'build' at the top level; add it; docs/artifact.md describes every key",
    ),
    (
        "deb = \"dist/*.deb\"",
        "tree = { path = \"dist\" }",
        "7: missing key 'prefix' in [package.tree]; add it; docs/artifact.md describes every key",
    ),
    (
        "deb = \"dist/*.deb\"",
        "",
        "6: [package] must have exactly one of 'deb' and 'tree'; write deb = \"dist/*.deb\", or tree = { path = \"dist\", prefix = \"/opt/NAME\" }",
    ),
    (
        "8000",
        "\"8000\"",
        "17: deploy.port: invalid type: string \"8000\", expected an integer from 0 to 65535; write a value of that kind",
    ),
    (
        "8000",
        "70000",
        "17: deploy.port: invalid value: integer `70000`, expected an integer from 0 to 65535; write a value of that kind",
    ),
    (
        "[\"make deb\"]",
        "\"make deb\"",
        "4: build.commands: invalid type: string \"make deb\", expected a list; write a value of that kind",
    ),
    ("8000", "0", "17: deploy.port is 0; write a number above 0"),
    (
        "\"hello\"",
        "\"Hello\"",
        "1: name is 'Hello'; write at most 32 lower-case letters, digits and dashes, with a letter first and no dash last",
    ),
    (
        "[10, 50, 100]",
        "[50, 10, 100]",
        "22: deploy.fleet.steps is [50, 10, 100]: percentages of traffic must rise from above 0 and end with 100; write, say, [10, 50, 100]",
    ),
    (
        "instances = 2",
        "steps = [10]",
        "25: deploy.environments.local.steps is [10]: percentages of traffic must rise from above 0 and end with 100; write, say, [10, 50, 100]",
    ),
    (
        "\"image.json\"",
        "\"../image.json\"",
        "10: image.template is '../image.json', which is not a path below the component; write it relative to component.toml, without '..' or a leading './'",
    ),
    (
        "\"goss.yaml\"",
        "\"goss.yml\"",
        "14: test.gossfile names 'goss.yml', which the component does not have at this revision; commit the file, or name another",
    ),
    (
        "dist/*.deb",
        "*/*.deb",
        "7: package.deb is '*/*.deb': only its last part may hold a '*', and only one; write, say, dist/*.deb",
    ),
    (
        "deb = \"dist/*.deb\"",
        "tree = { path = \"dist\", prefix = \"opt\" }",
        "7: package.tree.prefix is 'opt', which is not an absolute path; write, say, /opt/NAME",
    ),
    ("/healthz", "healthz", "18: deploy.health is 'healthz', which is not a path of a URL; write, say, /healthz"),
    (
        "hello.kiln.internal",
        "hello..internal",
        "19: deploy.dns is 'hello..internal', which is not a DNS name; write, say, NAME.kiln.internal",
    ),
    (
        "[deploy.environments.local]",
        "[deploy.environments.live]",
        "24: deploy.environments.live has no name of its own: deploy.dns is that of 'local'; add, say, dns = \"live.hello.kiln.internal\"",
    ),
    (
        "[deploy.environments.local]",
        "[deploy.environments.2nd]",
        "24: deploy.environments.2nd is not a name; write at most 24 lower-case letters, digits and dashes, with a letter first and no dash last",
    ),
    (
        "instances = 2",
        "dns = \"live..internal\"",
        "25: deploy.environments.local.dns is 'live..internal', which is not a DNS name; write, say, NAME.kiln.internal",
    ),
    (
        "steps = [10, 50, 100]",
        "dns = \"live.internal\"",
        "22: deploy.fleet.dns would give all environments one name, which two services cannot share; write it in [deploy.environments.NAME]",
    ),
];

#[test]
fn a_broken_file_is_refused_with_line_reason_and_remedy() {
    for (part, instead, message) in BROKEN {
        assert!(GOOD.contains(part), "{part}");
        let error = parse(&GOOD.replacen(part, instead, 1)).unwrap_err();
        assert_eq!(error.to_string(), format!("reading: component.toml:{message}"), "{part} -> {instead}");
    }
}

#[test]
fn no_input_panics() {
    for end in 0..GOOD.len() {
        let _ = parse(&GOOD[..end]);
        let _ = parse(&GOOD[end..]);
        for garbage in ["\0", "é", "[", "\"\"\"", "{", "=", "9e999"] {
            let _ = parse(&format!("{}{garbage}{}", &GOOD[..end], &GOOD[end..]));
        }
    }
}
