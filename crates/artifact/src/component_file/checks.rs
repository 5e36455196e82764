//! What a component file must mean, beyond its syntax.

use std::path::{Component as Part, Path};

use cli::BadInput;
use manifest::component::{Deploy, FleetSettings, Package, Service};
use manifest::{Component, NotAName};

use super::ComponentFile;

type Checked = Result<(), BadInput>;

/// Checks the meaning of every value.
pub fn check(file: &ComponentFile, is_file: impl Fn(&str) -> bool) -> Checked {
    let component = &file.component;
    name(file, &["name"], &format!("is '{}'", component.name), Component::check_name(&component.name))?;
    if component.build.commands.iter().any(|command| command.trim().is_empty()) {
        return Err(file.complaint(&["build", "commands"], "has an empty command", "remove it"));
    }
    package(file)?;
    let Component { image, test, deploy, .. } = component;
    let Ok(Service { image, test, deploy }) = component.service() else {
        let [has, lacks] = [true, false].map(|there| {
            let parts = [("image", image.is_some()), ("test", test.is_some()), ("deploy", deploy.is_some())];
            parts.iter().find(|(_, has)| *has == there).map(|(name, _)| *name)
        });
        // A package that others install has none of them.
        let (Some(has), Some(lacks)) = (has, lacks) else { return Ok(()) };
        let why = format!("is there, and [{lacks}] is not: a service has [image], [test] and [deploy]");
        return Err(file.complaint(&[has], &why, "add it, or remove all three"));
    };
    for (key, path) in [(["image", "template"], &image.template), (["test", "gossfile"], &test.gossfile)] {
        below_component(file, &key, path)?;
        if !is_file(path) {
            let why = format!("names '{path}', which the component does not have at this revision");
            return Err(file.complaint(&key, &why, "commit the file, or name another"));
        }
    }
    if image.builder.is_empty() {
        return Err(file.complaint(&["image", "builder"], "is empty", "name a builder of the template"));
    }
    positive(file, &["test", "boot_seconds"], test.boot_seconds.into())?;
    check_deploy(file, deploy)
}

fn package(file: &ComponentFile) -> Checked {
    match &file.component.package {
        Package::Deb(path) => {
            let key = ["package", "deb"];
            below_component(file, &key, path)?;
            let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
            if directory.contains('*') || name.matches('*').count() > 1 {
                let why = format!("is '{path}': only its last part may hold a '*', and only one");
                return Err(file.complaint(&key, &why, "write, say, dist/*.deb"));
            }
            Ok(())
        }
        Package::Tree(tree) => {
            below_component(file, &["package", "tree", "path"], &tree.path)?;
            let prefix = Path::new(&tree.prefix);
            if !prefix.is_absolute() || prefix.components().any(|part| part == Part::ParentDir) {
                let why = format!("is '{}', which is not an absolute path", tree.prefix);
                return Err(file.complaint(&["package", "tree", "prefix"], &why, "write, say, /opt/NAME"));
            }
            Ok(())
        }
    }
}

fn check_deploy(file: &ComponentFile, deploy: &Deploy) -> Checked {
    positive(file, &["deploy", "port"], deploy.port.into())?;
    if !deploy.health.starts_with('/') || deploy.health.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let why = format!("is '{}', which is not a path of a URL", deploy.health);
        return Err(file.complaint(&["deploy", "health"], &why, "write, say, /healthz"));
    }
    dns(file, &["deploy", "dns"], &deploy.dns)?;
    if deploy.fleet.dns.is_some() {
        let why = "would give all environments one name, which two services cannot share";
        return Err(file.complaint(&["deploy", "fleet", "dns"], why, "write it in [deploy.environments.NAME]"));
    }
    fleet(file, &["deploy", "fleet"], &deploy.fleet)?;
    for (environment, settings) in &deploy.environments {
        let key = ["deploy", "environments", environment];
        name(file, &key, "is not a name", Deploy::check_environment(environment))?;
        if let Some(its) = &settings.dns {
            dns(file, &[&key[..], &["dns"]].concat(), its)?;
        }
        if deploy.fleet_in(environment).is_err() {
            let why = format!("has no name of its own: deploy.dns is that of '{}'", Deploy::DEFAULT_ENVIRONMENT);
            return Err(file.complaint(&key, &why, &format!("add, say, dns = \"{environment}.{}\"", deploy.dns)));
        }
        fleet(file, &key, settings)?;
    }
    Ok(())
}

fn dns(file: &ComponentFile, key: &[&str], name: &str) -> Checked {
    if name.len() <= 253 && name.split('.').all(is_dns_label) {
        return Ok(());
    }
    let why = format!("is '{name}', which is not a DNS name");
    Err(file.complaint(key, &why, "write, say, NAME.kiln.internal"))
}

fn fleet(file: &ComponentFile, table: &[&str], settings: &FleetSettings) -> Checked {
    let in_table = |key| [table, &[key]].concat();
    let numbers = [
        ("instances", settings.instances.map(u64::from)),
        ("listen", settings.listen.map(u64::from)),
        ("healthy_checks", settings.healthy_checks.map(u64::from)),
        ("healthy_seconds", settings.healthy_seconds),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            positive(file, &in_table(key), number)?;
        }
    }
    let Some(steps) = &settings.steps else { return Ok(()) };
    if steps.first() == Some(&0) || !steps.is_sorted_by(|a, b| a < b) || steps.last() != Some(&100) {
        let why = format!("is {steps:?}: percentages of traffic must rise from above 0 and end with 100");
        return Err(file.complaint(&in_table("steps"), &why, "write, say, [10, 50, 100]"));
    }
    Ok(())
}

fn name(file: &ComponentFile, key: &[&str], why: &str, checked: Result<(), NotAName>) -> Checked {
    checked.map_err(|rule| file.complaint(key, why, &rule.to_string()))
}

/// RFC 1123, section 2.1, in lower case.
fn is_dns_label(label: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&label.len()) && label.bytes().all(allowed) && !label.starts_with('-') && !label.ends_with('-')
}

fn positive(file: &ComponentFile, key: &[&str], number: u64) -> Checked {
    if number > 0 { Ok(()) } else { Err(file.complaint(key, "is 0", "write a number above 0")) }
}

fn below_component(file: &ComponentFile, key: &[&str], path: &str) -> Checked {
    if !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Part::Normal(_))) {
        return Ok(());
    }
    let why = format!("is '{path}', which is not a path below the component");
    Err(file.complaint(key, &why, "write it relative to component.toml, without '..' or a leading './'"))
}
