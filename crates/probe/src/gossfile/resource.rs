//! One resource: a subject, and what is expected of its properties.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::attributes::Attributes;
use super::error::Fault;
use super::http::HttpRequest;
use super::schema::Schema;
use super::yaml::{Entry, Node};
use crate::matcher::Matcher;

/// Something on the machine, and what is expected of it.
#[derive(Debug, Clone)]
pub struct Resource {
    /// The key in the gossfile, which names the resource in results.
    pub id: String,
    /// The line of that key.
    pub line: usize,
    /// A sentence for the reader of results.
    pub title: Option<String>,
    /// Whatever the author wrote under `meta`; checks take no notice of it.
    pub meta: Value,
    /// Every check is reported as skipped.
    pub skip: bool,
    /// What is looked at.
    pub subject: Subject,
    /// What is expected, in the order in which it is checked.
    pub expectations: Vec<Expectation>,
    /// If the first expectation fails, or its property is false, the others are skipped.
    pub gated: bool,
}

/// What is expected of one property.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// The property's name in the gossfile.
    pub property: &'static str,
    /// What it must match.
    pub matcher: Matcher,
    /// The same as the gossfile has it, for results.
    pub expected: Value,
}

/// What a resource looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The file at this path; a leading `~` or `~user` stands for a home directory.
    File(String),
    /// The package of this name.
    Package(String),
    /// The service of this name.
    Service(String),
    /// The user of this name.
    User(String),
    /// The group of this name.
    Group(String),
    /// A local port.
    Port(Port),
    /// Processes of this name.
    Process(String),
    /// A shell command.
    Command(CommandLine),
    /// A request over HTTP; boxed because it is by far the largest.
    Http(Box<HttpRequest>),
}

/// A local port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The kernel's table that it is looked up in.
    pub transport: Transport,
    /// Its number.
    pub number: u16,
}

/// A table of sockets. As in goss, a socket that listens on `[::]` is in `tcp6`
/// only, though it takes connections over IPv4 as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP over IPv4.
    Tcp,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over IPv4.
    Udp,
    /// UDP over IPv6.
    Udp6,
}

/// A shell command and how patient to be with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// What `/bin/sh -c` is given.
    pub exec: String,
    /// When the command and all its children are killed.
    pub timeout: Duration,
    /// How often it is tried again while an expectation fails.
    pub retries: u32,
    /// The pause before each further try.
    pub retry_delay: Duration,
}

impl Subject {
    /// The resource type's name in the gossfile.
    pub fn resource_type(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Package(_) => "package",
            Self::Service(_) => "service",
            Self::User(_) => "user",
            Self::Group(_) => "group",
            Self::Port(_) => "port",
            Self::Process(_) => "process",
            Self::Command(_) => "command",
            Self::Http(_) => "http",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Tcp6 => "tcp6",
            Self::Udp => "udp",
            Self::Udp6 => "udp6",
        })
    }
}

impl Resource {
    pub(super) fn parse(schema: &'static Schema, entry: &Entry) -> Result<Self, Fault> {
        let attributes = Attributes::read(schema, entry)?;
        Ok(Self {
            id: entry.key.clone(),
            line: entry.line,
            title: attributes.text("title")?,
            meta: attributes.node("meta").map_or(Value::Null, Node::to_json),
            skip: attributes.truth("skip")?,
            expectations: attributes.expectations()?,
            subject: attributes.subject()?,
            gated: schema.gated,
        })
    }
}
