//! A file of `conf.d` as it is written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use minijinja::Value;
use minijinja::value::Serde;
use serde::{Deserialize, Serialize};

use super::{Health, ManagedFile, Probe, Quiescence, Reload, Source};
use crate::bad_input::BadInput;
use crate::owner::Owner;
use crate::replace::Access;
use crate::settings::Span;
use crate::toml_file::TomlFile;
use crate::values::Selector;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    template: PathBuf,
    destination: PathBuf,
    owner: Option<Owner>,
    mode: Option<String>,
    #[serde(default)]
    values: BTreeMap<String, WrittenSource>,
    check: Option<String>,
    reload: Option<String>,
    unit: Option<String>,
    group: Option<String>,
    health: Option<WrittenHealth>,
    #[serde(default)]
    quiescence: WrittenQuiescence,
    #[serde(default)]
    splay: Span,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a key, or a table with 'key' or 'prefix', and 'default' if it is not required")]
enum WrittenSource {
    Required(String),
    Key(WrittenKey),
    Prefix(WrittenPrefix),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenKey {
    key: String,
    default: Option<toml::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPrefix {
    prefix: String,
    default: Option<BTreeMap<String, toml::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenHealth {
    command: Option<String>,
    #[serde(default = "within")]
    within: Span,
    #[serde(default = "stay")]
    stay: Span,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenQuiescence {
    min: Option<Span>,
    max: Option<Span>,
}

/// Reads the file at `path`.
pub fn read(path: &Path, template_dir: &Path) -> Result<ManagedFile, BadInput> {
    let (written, file): (Written, _) = TomlFile::read("reading conf.d", path)?;
    written.checked(&file, template_dir)
}

impl Written {
    fn checked(self, file: &TomlFile, template_dir: &Path) -> Result<ManagedFile, BadInput> {
        if !self.destination.is_absolute() || self.destination.file_name().is_none() {
            return Err(file.complaint(&["destination"], "is not the absolute path of a file", "write the whole path"));
        }
        let access = self.access(file)?;
        let quiescence = self.quiescence(file)?;
        let (reload, health) = self.service(file)?;
        let mut values = BTreeMap::new();
        for (name, written) in self.values {
            let source = written
                .source()
                .map_err(|why| file.complaint(&["values", &name], why, "write a key such as \"/web/greeting\""))?;
            values.insert(name, source);
        }
        if values.is_empty() {
            let remedy = "name what the template uses; a file without values belongs into the image";
            return Err(file.complaint(&["values"], "is empty", remedy));
        }
        Ok(ManagedFile {
            name: file.path().file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            template: template_dir.join(self.template),
            destination: self.destination,
            access,
            values,
            check: self.check,
            reload,
            group: self.group,
            health,
            quiescence,
            splay: self.splay.into(),
        })
    }

    fn access(&self, file: &TomlFile) -> Result<Access, BadInput> {
        let mode = self.mode.as_deref().unwrap_or("0644");
        let mode = u32::from_str_radix(mode, 8).ok().filter(|mode| *mode <= 0o7777).ok_or_else(|| {
            file.complaint(&["mode"], &format!("is '{mode}', which is no mode"), "write, say, \"0640\"")
        })?;
        let owner = self.owner.as_ref().map(Owner::ids).transpose();
        let owner = owner.map_err(|why| file.complaint(&["owner"], &format!(": {why}"), "create it in the image"))?;
        Ok(Access { mode, owner })
    }

    fn quiescence(&self, file: &TomlFile) -> Result<Quiescence, BadInput> {
        let min: Duration = self.quiescence.min.unwrap_or(Span::millis(100)).into();
        // As consul-template has it: no more than four times as long.
        let max = self.quiescence.max.map_or(min * 4, Into::into);
        if max < min {
            return Err(file.complaint(&["quiescence"], "has a max below its min", "let max be the longer one"));
        }
        Ok(Quiescence { min, max })
    }

    fn service(&self, file: &TomlFile) -> Result<(Option<Reload>, Option<Health>), BadInput> {
        let reload = match (&self.reload, &self.unit) {
            (Some(_), Some(_)) => {
                let remedy = "keep one: a command, or a unit that systemd reloads";
                return Err(file.complaint(&["unit"], "stands beside 'reload'", remedy));
            }
            (Some(command), None) => Some(Reload::Command(command.clone())),
            (None, Some(unit)) => Some(Reload::Unit(unit.clone())),
            (None, None) => None,
        };
        let probe = match (self.health.as_ref().and_then(|health| health.command.as_ref()), &self.unit) {
            (Some(command), _) => Some(Probe::Command(command.clone())),
            (None, Some(unit)) => Some(Probe::Unit(unit.clone())),
            (None, None) if self.health.is_some() => {
                return Err(file.complaint(&["health"], "asks nobody", "add 'command', or name a 'unit'"));
            }
            (None, None) => None,
        };
        let times = self.health.as_ref().map_or((within(), stay()), |health| (health.within, health.stay));
        let health = probe.map(|probe| Health { probe, within: times.0.into(), stay: times.1.into() });
        Ok((reload, health))
    }
}

impl WrittenSource {
    fn source(self) -> Result<Source, &'static str> {
        let (selector, default) = match self {
            Self::Required(key) => (Selector::Key(key), None),
            Self::Key(WrittenKey { key, default }) => (Selector::Key(key), default.map(as_value)),
            Self::Prefix(WrittenPrefix { prefix, default }) => (Selector::below(&prefix), default.map(as_value)),
        };
        let text = selector.text();
        let is_directory = matches!(selector, Selector::Key(_)) && text.ends_with('/');
        if is_directory
            || !text.starts_with('/')
            || text.contains("//")
            || text.split('/').any(|part| part == "." || part == "..")
        {
            return Err("is not a key that begins with a slash, and has no empty part, '.' or '..'");
        }
        Ok(Source { selector, default })
    }
}

fn as_value<T: Serialize>(default: T) -> Value {
    Value::from(Serde(default))
}

fn within() -> Span {
    Span::seconds(10)
}

fn stay() -> Span {
    Span::seconds(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"template = "web.conf.j2"
destination = "/etc/web/web.conf"
owner = "root:root"
mode = "0640"
check = "web --check \"$CANDIDATE\""
unit = "web.service"
group = "web"
quiescence = { min = "1s" }
splay = "30s"

[values]
greeting = "/web/greeting"
workers = { key = "/web/workers", default = 2 }
backends = { prefix = "/web/backends" }
"#;

    fn parse(text: &str) -> Result<ManagedFile, BadInput> {
        let path = Path::new("web.toml");
        let (written, file): (Written, _) = TomlFile::parse("reading", path, text.to_owned())?;
        written.checked(&file, Path::new("/templates"))
    }

    #[test]
    fn a_good_file_is_read() {
        let file = parse(GOOD).unwrap();
        assert_eq!((file.name.as_str(), file.template.as_path()), ("web", Path::new("/templates/web.conf.j2")));
        assert_eq!(file.quiescence, Quiescence { min: Duration::from_secs(1), max: Duration::from_secs(4) });
        assert_eq!(file.health.as_ref().unwrap().probe, Probe::Unit("web.service".to_owned()));
        assert_eq!(file.values["backends"], Source { selector: Selector::below("/web/backends/"), default: None });
        assert_eq!(file.values["workers"].default, Some(Value::from(2)));
    }

    /// What is replaced in [`GOOD`], by what, and the message after `reading: web.toml:`.
    const BROKEN: &[(&str, &str, &str)] = &[
        ("splay", "spaly", "9: unknown key 'spaly' at the top level; did you mean 'splay'?"),
        ("{ min", "{ mix", "8: unknown key 'mix' in [quiescence]; did you mean 'min'?"),
        (
            "template = \"web.conf.j2\"",
            "",
            " missing key 'template' at the top level; add it; docs/config-agent.md describes every key",
        ),
        ("0640", "rw-", "4: mode is 'rw-', which is no mode; write, say, \"0640\""),
        ("root:root", "rot", "3: owner : there is no user 'rot' in /etc/passwd; create it in the image"),
        ("/etc/web/web.conf", "web.conf", "2: destination is not the absolute path of a file; write the whole path"),
        (
            "group = \"web\"",
            "reload = \"true\"",
            "6: unit stands beside 'reload'; keep one: a command, or a unit that systemd reloads",
        ),
        (
            "\"/web/greeting\"",
            "\"web//greeting\"",
            "12: values.greeting is not a key that begins with a slash, and has no empty part, '.' or '..'; write a key such as \"/web/greeting\"",
        ),
        (
            "{ key = \"/web/workers\", default = 2 }",
            "{ kye = \"/web/workers\" }",
            "13: values.workers: expected a key, or a table with 'key' or 'prefix', and 'default' if it is not required; write a value of that kind; docs/config-agent.md describes every key",
        ),
        (
            "\"30s\"",
            "\"soon\"",
            "9: splay: 'soon' is no length of time: write, say, \"100ms\" or \"2s\"; write a value of that kind; docs/config-agent.md describes every key",
        ),
        (
            "min = \"1s\"",
            "min = \"1s\", max = \"0s\"",
            "8: quiescence has a max below its min; let max be the longer one",
        ),
    ];

    #[test]
    fn a_broken_file_is_refused_with_line_reason_and_remedy() {
        for (part, instead, message) in BROKEN {
            assert!(GOOD.contains(part), "{part}");
            let error = parse(&GOOD.replacen(part, instead, 1)).unwrap_err();
            assert_eq!(error.to_string(), format!("reading: web.toml:{message}"), "{part} -> {instead}");
        }
    }
}
