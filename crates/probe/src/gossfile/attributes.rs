//! The attributes of one resource.

use std::time::Duration;

use serde_json::Value;

use super::error::{Fault, nearest};
use super::http::HttpRequest;
use super::resource::{CommandLine, Expectation, Port, Subject, Transport};
use super::schema::{Schema, Shape};
use super::yaml::{Entry, Node, Tree};
use crate::matcher::Matcher;

/// goss' default for a command, in `resource/command.go`.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(10_000);
/// goss' default between two tries, in `resource/retry.go`.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The attributes of one resource, all of them known to its type.
pub(super) struct Attributes<'a> {
    schema: &'static Schema,
    resource: &'a Entry,
    entries: &'a [Entry],
}

impl<'a> Attributes<'a> {
    pub(super) fn read(schema: &'static Schema, resource: &'a Entry) -> Result<Self, Fault> {
        let Tree::Map(entries) = &resource.value.tree else {
            let why = format!(
                "{} `{}` must be a map of attributes, this is {}",
                schema.name,
                resource.key,
                resource.value.kind()
            );
            let remedy = match schema.properties {
                [(first, Shape::Truth), ..] => format!("write `{first}: true` below it, indented"),
                _ => format!("write `{}: …` below it, indented", schema.properties[0].0),
            };
            return Err(Fault::new(resource.line, why, remedy));
        };
        let known = schema.attributes();
        for entry in entries {
            let old_name = schema.name == "file" && entry.key == "contains";
            if !known.contains(&entry.key.as_str()) && !old_name {
                let why = format!("{} `{}` has no attribute `{}`", schema.name, resource.key, entry.key);
                return Err(Fault::new(entry.line, why, nearest(&entry.key, &known)));
            }
        }
        let attributes = Self { schema, resource, entries };
        let (first, _) = schema.properties[0];
        if schema.gated && attributes.expected(first).is_none() {
            let why = format!("{} `{}` does not say `{first}`, which goss requires", schema.name, resource.key);
            let example = match first {
                "exit-status" => "0",
                "status" => "200",
                _ => "true",
            };
            return Err(Fault::new(resource.line, why, format!("add `{first}: {example}`")));
        }
        let properties: Vec<&str> = schema.properties.iter().map(|(name, _)| *name).collect();
        if properties.iter().all(|property| attributes.expected(property).is_none()) {
            let why = format!("{} `{}` expects nothing", schema.name, resource.key);
            return Err(Fault::new(resource.line, why, format!("add one of {}", properties.join(", "))));
        }
        Ok(attributes)
    }

    /// An attribute that is there and not null, which goss takes for unset.
    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        let entry = self.entries.iter().find(|entry| entry.key == name);
        entry.map(|entry| &entry.value).filter(|node| !node.is_null())
    }

    /// What is expected of a property; an empty list asserts nothing.
    fn expected(&self, property: &str) -> Option<&'a Node> {
        // `contains` is what `contents` was called before goss 0.4.
        let old_name = (property == "contents").then(|| self.node("contains")).flatten();
        let node = self.node(property).or(old_name)?;
        let asserts_nothing = matches!(&node.tree, Tree::List(items) if items.is_empty());
        (!asserts_nothing).then_some(node)
    }

    pub(super) fn expectations(&self) -> Result<Vec<Expectation>, Fault> {
        let properties = self.schema.properties.iter();
        let stated = properties.filter_map(|&(property, shape)| Some((property, shape, self.expected(property)?)));
        stated
            .map(|(property, shape, node)| {
                let matcher = Matcher::parse(property, shape, node)?;
                Ok(Expectation { property, matcher, expected: node.to_json() })
            })
            .collect()
    }

    pub(super) fn subject(&self) -> Result<Subject, Fault> {
        let name = self.text(self.schema.subject)?.unwrap_or_else(|| self.resource.key.clone());
        Ok(match self.schema.name {
            "file" => Subject::File(name),
            "package" => Subject::Package(name),
            "service" => Subject::Service(name),
            "user" => Subject::User(name),
            "group" => Subject::Group(name),
            "port" => Subject::Port(self.port(&name)?),
            "process" => Subject::Process(name),
            "command" => Subject::Command(CommandLine {
                exec: name,
                timeout: self.milliseconds("timeout", COMMAND_TIMEOUT)?,
                retries: self.count("retry_count")?,
                retry_delay: self.milliseconds("retry_delay", RETRY_DELAY)?,
            }),
            _ => Subject::Http(Box::new(HttpRequest::parse(&name, self)?)),
        })
    }

    /// `22`, `tcp:22`, `udp6:53`.
    fn port(&self, text: &str) -> Result<Port, Fault> {
        let (table, number) = text.split_once(':').unwrap_or(("tcp", text));
        let transport = match table {
            "tcp" => Some(Transport::Tcp),
            "tcp6" => Some(Transport::Tcp6),
            "udp" => Some(Transport::Udp),
            "udp6" => Some(Transport::Udp6),
            _ => None,
        };
        match (transport, number.parse()) {
            (Some(transport), Ok(number)) => Ok(Port { transport, number }),
            _ => Err(Fault::new(
                self.resource.line,
                format!("`{text}` is not a port"),
                "write a number from 0 to 65535 after `tcp:`, `tcp6:`, `udp:` or `udp6:`",
            )),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Fault> {
        let Some(node) = self.node(name) else { return Ok(None) };
        node.text().map(Some).ok_or_else(|| self.wrong_type(name, node, "a string"))
    }

    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>, Fault> {
        let Some(node) = self.node(name) else { return Ok(Vec::new()) };
        match &node.tree {
            Tree::List(items) => {
                items.iter().map(|item| item.text().ok_or_else(|| self.wrong_type(name, item, "a string"))).collect()
            }
            _ => Err(self.wrong_type(name, node, "a list of strings")),
        }
    }

    pub(super) fn truth(&self, name: &str) -> Result<bool, Fault> {
        match self.node(name) {
            None => Ok(false),
            Some(Node { tree: Tree::Scalar(Value::Bool(truth)), .. }) => Ok(*truth),
            Some(node) => Err(self.wrong_type(name, node, "true or false")),
        }
    }

    fn count(&self, name: &str) -> Result<u32, Fault> {
        let Some(node) = self.node(name) else { return Ok(0) };
        let count = node.to_json().as_u64().and_then(|count| u32::try_from(count).ok());
        count.ok_or_else(|| self.wrong_type(name, node, "a whole number from 0"))
    }

    /// A bare number is milliseconds; goss also takes `500ms`, `2s` and `1m` for
    /// the delay between tries. Zero means the default, as in goss.
    pub(super) fn milliseconds(&self, name: &str, default: Duration) -> Result<Duration, Fault> {
        let Some(node) = self.node(name) else { return Ok(default) };
        let text = node.text().unwrap_or_default();
        let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
        let unit = match &text[digits.len()..] {
            "" | "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            _ => None,
        };
        match (unit, digits.parse::<u32>()) {
            (Some(_), Ok(0)) => Ok(default),
            (Some(unit), Ok(number)) => Ok(Duration::from_millis(u64::from(number) * unit)),
            _ => Err(self.wrong_type(name, node, "a whole number of milliseconds")),
        }
    }

    pub(super) fn fault(&self, name: &str, why: &str, remedy: &str) -> Fault {
        let line = self.node(name).map_or(self.resource.line, |node| node.line);
        Fault::new(line, format!("{} `{}`: {why}", self.schema.name, self.resource.key), remedy)
    }

    fn wrong_type(&self, name: &str, node: &Node, wanted: &str) -> Fault {
        let place = format!("`{name}` of {} `{}`", self.schema.name, self.resource.key);
        Fault::new(node.line, format!("{place} is {}", node.kind()), format!("write {wanted}"))
    }
}
