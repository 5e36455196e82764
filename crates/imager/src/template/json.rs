//! JSON that remembers on which line everything stood.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use cli::BadInput;
use jiff::SignedDuration;
use jsonc_parser::ast::Value;
use jsonc_parser::common::Ranged;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

use super::Values;

/// What is being done when a message about a template is written.
pub(crate) const DOING: &str = "reading the image template";

/// A JSON value and its line.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) content: Content,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(String),
    String(String),
    Array(Vec<Node>),
    Object(Vec<(String, usize, Node)>),
}

impl Node {
    /// An object with this one member.
    pub(crate) fn object_of(line: usize, name: &str, value: String) -> Self {
        let value = Self { line, content: Content::String(value) };
        Self { line, content: Content::Object(vec![(name.to_owned(), line, value)]) }
    }

    fn digestible(&self, values: &Values) -> serde_json::Value {
        match &self.content {
            Content::Null => serde_json::Value::Null,
            Content::Bool(value) => (*value).into(),
            Content::Number(text) => text.clone().into(),
            Content::String(text) => values.interpolate(text).unwrap_or_else(|_| text.clone()).into(),
            Content::Array(items) => items.iter().map(|item| item.digestible(values)).collect(),
            Content::Object(members) => {
                members.iter().map(|(name, _, node)| (name.clone(), node.digestible(values))).collect()
            }
        }
    }
}

/// Parses a file as strict JSON: no comments, no trailing commas.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Node> {
    let strict = ParseOptions {
        allow_comments: false,
        allow_loose_object_property_names: false,
        allow_trailing_commas: false,
        allow_missing_commas: false,
        allow_single_quoted_strings: false,
        allow_hexadecimal_numbers: false,
        allow_unary_plus_numbers: false,
        allow_bare_decimal_point_numbers: false,
        allow_non_finite_numbers: false,
        allow_extended_string_escapes: false,
    };
    let fault = |line: usize, why: String| {
        BadInput::new(DOING, why, "mend the JSON there (a template is strict JSON, in double quotes)")
            .in_file(path)
            .at_line(line)
    };
    let parsed = parse_to_ast(text, &CollectOptions::default(), &strict)
        .map_err(|error| fault(error.line_display(), error.kind().to_string()))?;
    let lines = Lines::of(text);
    match parsed.value {
        Some(value) => Ok(lines.node(&value)),
        None => Err(fault(1, "the file is empty".into()).into()),
    }
}

/// Where lines begin, to turn an offset into a line number.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }

    fn node(&self, value: &Value) -> Node {
        let content = match value {
            Value::NullKeyword(_) => Content::Null,
            Value::BooleanLit(value) => Content::Bool(value.value),
            Value::NumberLit(value) => Content::Number(value.value.to_owned()),
            Value::StringLit(value) => Content::String(value.value.to_string()),
            Value::Array(values) => Content::Array(values.elements.iter().map(|value| self.node(value)).collect()),
            Value::Object(object) => Content::Object(
                object
                    .properties
                    .iter()
                    .map(|property| {
                        let name = property.name.as_str().to_owned();
                        (name, self.line(property.start()), self.node(&property.value))
                    })
                    .collect(),
            ),
        };
        Node { line: self.line(value.start()), content }
    }
}

/// The members of one object, read by name; what nobody read is an error in the end.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    file: PathBuf,
    /// What the object is, such as `provisioner 'shell'`.
    what: String,
    /// Its `type`, once that is read.
    kind: String,
    line: usize,
    members: Vec<(String, usize, Node)>,
    /// Lines of all members, also of those that have been read.
    lines: BTreeMap<String, usize>,
    known: Vec<&'static str>,
}

impl Options {
    pub(crate) fn of(file: &Path, what: impl Into<String>, node: Node) -> Result<Self> {
        let (what, line) = (what.into(), node.line);
        let Content::Object(members) = node.content else {
            let why = format!("{what} must be an object");
            return Err(BadInput::new(DOING, why, "write it as {…}").in_file(file).at_line(line).into());
        };
        let mut options = Self {
            file: file.to_owned(),
            what,
            kind: String::new(),
            line,
            members: Vec::new(),
            lines: BTreeMap::new(),
            known: Vec::new(),
        };
        for (name, line, _) in &members {
            if options.lines.insert(name.clone(), *line).is_some() {
                return Err(options.fault(*line, format!("'{name}' is there twice"), "keep one of them").into());
            }
        }
        Ok(Self { members, ..options })
    }

    /// An error at `line` of this file.
    pub(crate) fn fault(&self, line: usize, why: impl Into<String>, remedy: impl Into<String>) -> BadInput {
        BadInput::new(DOING, why, remedy).in_file(&self.file).at_line(line)
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// The line on which the object begins.
    pub(crate) fn line(&self) -> usize {
        self.line
    }

    /// The line of a member, or of the object.
    pub(crate) fn line_of(&self, name: &str) -> usize {
        self.lines.get(name).copied().unwrap_or(self.line)
    }

    /// Whether the member is written.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.lines.contains_key(name)
    }

    /// Renames what the object is called in messages, once its type is known.
    pub(crate) fn called(mut self, what: impl Into<String>) -> Self {
        self.what = what.into();
        self
    }

    /// Remembers its type.
    pub(crate) fn of_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }

    /// What it is called in messages.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    /// Its type, if it has been read.
    pub(crate) fn kind(&self) -> &str {
        &self.kind
    }

    /// Takes a member, whatever it is.
    pub(crate) fn node(&mut self, name: &'static str) -> Option<Node> {
        self.known.push(name);
        let at = self.members.iter().position(|member| member.0 == name)?;
        Some(self.members.remove(at).2)
    }

    /// Puts these members in the place of those with the same names.
    pub(crate) fn replace(&mut self, members: Vec<(String, usize, Node)>) {
        for (name, line, node) in members {
            self.members.retain(|member| member.0 != name);
            self.lines.insert(name.clone(), line);
            self.members.push((name, line, node));
        }
    }

    /// Takes all members that are left, such as the variables.
    pub(crate) fn rest(&mut self) -> Vec<(String, usize, Node)> {
        std::mem::take(&mut self.members)
    }

    pub(crate) fn string(&mut self, name: &'static str) -> Result<Option<String>> {
        self.node(name).map(|node| self.as_string(name, node)).transpose()
    }

    pub(crate) fn required(&mut self, name: &'static str) -> Result<String> {
        let found = self.string(name)?.filter(|text| !text.is_empty());
        found.ok_or_else(|| {
            self.fault(self.line, format!("{} needs the option '{name}'", self.what), format!("add \"{name}\": …"))
                .into()
        })
    }

    pub(crate) fn bool(&mut self, name: &'static str) -> Result<Option<bool>> {
        let Some(node) = self.node(name) else { return Ok(None) };
        match &node.content {
            Content::Bool(value) => Ok(Some(*value)),
            Content::String(text) if text == "true" || text == "false" => Ok(Some(text == "true")),
            _ => Err(self.wrong_type(name, node.line, "true or false")),
        }
    }

    /// A list of strings; one string stands for a list of one.
    pub(crate) fn strings(&mut self, name: &'static str) -> Result<Vec<String>> {
        let Some(node) = self.node(name) else { return Ok(Vec::new()) };
        self.texts_of(name, node)
    }

    /// The strings of a member that has been taken.
    pub(crate) fn texts_of(&self, name: &str, node: Node) -> Result<Vec<String>> {
        let line = node.line;
        match node.content {
            Content::Array(items) => items.into_iter().map(|item| self.as_string(name, item)).collect(),
            Content::String(text) => Ok(vec![text]),
            _ => Err(self.wrong_type(name, line, "a list of strings")),
        }
    }

    /// A time span in Go's way of writing it: `10s`, `1m30s`, `300ms`.
    pub(crate) fn duration(&mut self, name: &'static str) -> Result<Option<Duration>> {
        let line = self.line_of(name);
        let Some(text) = self.string(name)? else { return Ok(None) };
        let given = if text == "0" { Ok(SignedDuration::ZERO) } else { text.parse::<SignedDuration>() };
        match given.map(Duration::try_from) {
            Ok(Ok(duration)) => Ok(Some(duration)),
            _ => Err(self.fault(line, format!("'{text}' is not a time span"), "write it as 10s or 1m30s").into()),
        }
    }

    /// A whole number that is not negative.
    pub(crate) fn number(&mut self, name: &'static str) -> Result<Option<u32>> {
        let line = self.line_of(name);
        let Some(text) = self.string(name)? else { return Ok(None) };
        text.parse().map(Some).map_err(|_| self.wrong_type(name, line, "a whole number"))
    }

    /// An error if the option is written: it is not supported.
    pub(crate) fn refuse(&mut self, name: &'static str, remedy: &str) -> Result<()> {
        let line = self.line_of(name);
        match self.node(name) {
            Some(_) => Err(self.fault(line, format!("'{name}' is not supported"), remedy).into()),
            None => Ok(()),
        }
    }

    pub(crate) fn objects(&mut self, name: &'static str) -> Result<Vec<Node>> {
        let Some(node) = self.node(name) else { return Ok(Vec::new()) };
        match node.content {
            Content::Array(items) => Ok(items),
            _ => Err(self.wrong_type(name, node.line, "a list")),
        }
    }

    /// An object of strings, such as tags.
    pub(crate) fn string_map(&mut self, name: &'static str) -> Result<Vec<(String, String)>> {
        let Some(node) = self.node(name) else { return Ok(Vec::new()) };
        let line = node.line;
        let Content::Object(members) = node.content else {
            return Err(self.wrong_type(name, line, "an object of strings"));
        };
        members.into_iter().map(|(key, _, value)| Ok((key, self.as_string(name, value)?))).collect()
    }

    /// The members that nobody has read yet as plain JSON, interpolated as far as that is possible
    /// now: what a layer key is made of.
    pub(crate) fn digestible(&self, values: &Values) -> serde_json::Value {
        let members = self.members.iter().filter(|(name, ..)| !name.starts_with('_'));
        members.map(|(name, _, node)| (name.clone(), node.digestible(values))).collect()
    }

    /// An error for the first member that nobody has read.
    pub(crate) fn finish(self) -> Result<()> {
        let Some((name, line, _)) = self.members.iter().find(|(name, ..)| !name.starts_with('_')) else {
            return Ok(());
        };
        let nearest = self.known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
        let remedy = match nearest {
            Some(known) if strsim::damerau_levenshtein(known, name) <= 3 => format!("did you mean '{known}'?"),
            _ => "remove it: Kiln never ignores what it does not support".to_owned(),
        };
        Err(self.fault(*line, format!("{} has no option '{name}' here", self.what), remedy).into())
    }

    fn as_string(&self, name: &str, node: Node) -> Result<String> {
        match node.content {
            Content::String(text) | Content::Number(text) => Ok(text),
            Content::Bool(value) => Ok(value.to_string()),
            _ => Err(self.wrong_type(name, node.line, "a string")),
        }
    }

    fn wrong_type(&self, name: &str, line: usize, wanted: &str) -> anyhow::Error {
        self.fault(line, format!("'{name}' of {} must be {wanted}", self.what), "change its value").into()
    }
}
