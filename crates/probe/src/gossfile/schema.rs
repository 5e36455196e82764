//! The resource types and their attributes, after the struct tags in goss'
//! `resource/*.go`.

/// What a property is, and so how a plain value of it is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// True or false.
    Truth,
    /// A word, a number or a list of them.
    Value,
    /// Text of many lines: a list holds patterns, each of which some line must match.
    Text,
}

/// One resource type.
#[derive(Debug)]
pub(crate) struct Schema {
    pub(crate) name: &'static str,
    /// The attribute that names what is looked at; without it the map key does.
    pub(crate) subject: &'static str,
    /// What can be expected, in the order in which goss checks it. The first is
    /// required, and gates the others, where `gated`.
    pub(crate) properties: &'static [(&'static str, Shape)],
    /// Whether the others are skipped when the first property fails or is false.
    pub(crate) gated: bool,
    /// How to look, rather than what to expect.
    pub(crate) settings: &'static [&'static str],
}

use Shape::{Text, Truth, Value};

pub(crate) const RESOURCE_TYPES: [Schema; 9] = [
    Schema {
        name: "file",
        subject: "path",
        properties: &[
            ("exists", Truth),
            ("mode", Value),
            ("owner", Value),
            ("uid", Value),
            ("group", Value),
            ("gid", Value),
            ("linked-to", Value),
            ("filetype", Value),
            ("contents", Text),
            ("size", Value),
            ("md5", Value),
            ("sha256", Value),
            ("sha512", Value),
        ],
        gated: true,
        settings: &[],
    },
    Schema {
        name: "package",
        subject: "name",
        properties: &[("installed", Truth), ("versions", Value)],
        gated: true,
        settings: &[],
    },
    Schema {
        name: "service",
        subject: "name",
        properties: &[("enabled", Truth), ("running", Truth), ("runlevels", Value)],
        // Whether a service runs says nothing about whether it is enabled.
        gated: false,
        settings: &[],
    },
    Schema {
        name: "user",
        subject: "username",
        properties: &[
            ("exists", Truth),
            ("uid", Value),
            ("gid", Value),
            ("home", Value),
            ("groups", Value),
            ("shell", Value),
        ],
        gated: true,
        settings: &[],
    },
    Schema {
        name: "group",
        subject: "groupname",
        properties: &[("exists", Truth), ("gid", Value)],
        gated: true,
        settings: &[],
    },
    Schema {
        name: "port",
        subject: "port",
        properties: &[("listening", Truth), ("ip", Value)],
        gated: true,
        settings: &[],
    },
    Schema { name: "process", subject: "comm", properties: &[("running", Truth)], gated: true, settings: &[] },
    Schema {
        name: "command",
        subject: "exec",
        properties: &[("exit-status", Value), ("stdout", Text), ("stderr", Text)],
        gated: true,
        settings: &["timeout", "retry_count", "retry_delay"],
    },
    Schema {
        name: "http",
        subject: "url",
        properties: &[("status", Value), ("headers", Text), ("body", Text)],
        gated: true,
        settings: &[
            "method",
            "allow-insecure",
            "no-follow-redirects",
            "timeout",
            "request-headers",
            "request-body",
            "username",
            "password",
            "ca-file",
            "cert-file",
            "key-file",
            "proxy",
        ],
    },
];

/// goss' other resource types.
const NOT_YET: [&str; 7] = ["addr", "dns", "gossfile", "interface", "kernel-param", "matching", "mount"];

/// Attributes of every resource.
const EVERYWHERE: [&str; 3] = ["title", "meta", "skip"];

/// Whether a resource type is known here.
pub(crate) enum Known {
    Supported(&'static Schema),
    NotYet,
    No,
}

pub(crate) fn lookup(name: &str) -> Known {
    static TYPES: &[Schema] = &RESOURCE_TYPES;
    match TYPES.iter().find(|schema| schema.name == name) {
        Some(schema) => Known::Supported(schema),
        None if NOT_YET.contains(&name) => Known::NotYet,
        None => Known::No,
    }
}

pub(crate) fn names() -> Vec<&'static str> {
    RESOURCE_TYPES.iter().map(|schema| schema.name).collect()
}

impl Schema {
    pub(crate) fn attributes(&self) -> Vec<&'static str> {
        let properties = self.properties.iter().map(|(name, _)| *name);
        properties.chain([self.subject]).chain(self.settings.iter().copied()).chain(EVERYWHERE).collect()
    }
}
