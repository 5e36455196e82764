//! The gossfile: what is expected of a machine.

mod attributes;
mod error;
mod http;
mod resource;
pub(crate) mod schema;
pub(crate) mod yaml;

pub use error::GossfileError;
pub(crate) use error::{Fault, nearest};
pub use http::HttpRequest;
pub use resource::{CommandLine, Expectation, Port, Resource, Subject, Transport};

use schema::Known;
use yaml::{Entry, Tree};

/// A gossfile: its resources, in the order of the file.
#[derive(Debug, Clone)]
pub struct Gossfile {
    /// What is looked at, and what is expected of it.
    pub resources: Vec<Resource>,
}

impl Gossfile {
    /// Reads a gossfile. `name` is what errors call the file.
    ///
    /// # Errors
    ///
    /// The first fault: not YAML, a template that is not rendered yet, a resource
    /// type, attribute or matcher that is unknown or not supported, a value of the
    /// wrong type, or no resource at all.
    pub fn parse(name: &str, text: &str) -> Result<Self, GossfileError> {
        resources(text).map(|resources| Self { resources }).map_err(|fault| GossfileError {
            file: name.to_owned(),
            line: Some(fault.line),
            why: fault.why,
            remedy: fault.remedy,
        })
    }

    /// How many checks the file asks for, those that will be skipped included.
    pub fn checks(&self) -> usize {
        self.resources.iter().map(|resource| resource.expectations.len()).sum()
    }
}

fn resources(text: &str) -> Result<Vec<Resource>, Fault> {
    refuse_template(text)?;
    let Some(root) = yaml::parse(text)? else {
        return Err(nothing_to_check(1));
    };
    let Tree::Map(entries) = &root.tree else {
        let why = format!("a gossfile is a map of resource types, this is {}", root.kind());
        return Err(Fault::new(root.line, why, "start with a line such as `file:` or `service:`"));
    };
    let mut resources = Vec::new();
    for entry in entries {
        resources.append(&mut section(entry)?);
    }
    if resources.is_empty() {
        return Err(nothing_to_check(root.line));
    }
    Ok(resources)
}

/// One resource type and all of its resources.
fn section(entry: &Entry) -> Result<Vec<Resource>, Fault> {
    let schema = match schema::lookup(&entry.key) {
        Known::Supported(schema) => schema,
        Known::NotYet => {
            let why = format!("resource type `{}` is not supported yet", entry.key);
            return Err(Fault::new(entry.line, why, "take it out, or check the same with a `command`"));
        }
        Known::No => {
            let why = format!("unknown resource type `{}`", entry.key);
            return Err(Fault::new(entry.line, why, nearest(&entry.key, &schema::names())));
        }
    };
    match &entry.value.tree {
        Tree::Map(items) => items.iter().map(|item| Resource::parse(schema, item)).collect(),
        _ if entry.value.is_null() => Ok(Vec::new()),
        _ => {
            let why = format!("`{}` must be a map of resources, this is {}", entry.key, entry.value.kind());
            Err(Fault::new(entry.value.line, why, format!("indent each {} under its own key", entry.key)))
        }
    }
}

/// goss itself fails on a file without a single test: a check that checks
/// nothing would pass for ever.
fn nothing_to_check(line: usize) -> Fault {
    Fault::new(line, "the gossfile has no resource", format!("add one of {}", schema::names().join(", ")))
}

/// What an action of a goss template (Go's text/template) starts with. Other
/// double braces are left alone: `docker inspect -f '{{.State}}'` is a command.
const TEMPLATE_ACTIONS: [&str; 11] =
    [".Vars", ".Env", "$", "else", "end", "getEnv", "if ", "index ", "range ", "readFile", "with "];

/// An unrendered template is often valid YAML, and would be compared as text.
fn refuse_template(text: &str) -> Result<(), Fault> {
    for (index, line) in text.lines().enumerate() {
        let code = if line.trim_start().starts_with('#') { "" } else { line };
        let is_template = code.split("{{").skip(1).any(|action| {
            let action = action.trim_start_matches(['-', ' ']);
            TEMPLATE_ACTIONS.iter().any(|start| action.starts_with(start))
        });
        if is_template {
            let why = "templates are not supported yet";
            return Err(Fault::new(index + 1, why, "render the file first, with `goss render`"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
