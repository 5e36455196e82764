//! Checking this machine against a gossfile.

mod account;
mod command;
mod file;
mod http;
mod package;
mod port;
mod process;
mod resolve;
mod service;

use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gossfile::{Expectation, Gossfile, Resource, Subject};

/// What is kept of a text in a result, in bytes. A serial console is slow, and
/// EC2 keeps only its last 64 KB.
const KEPT_OF_TEXT: usize = 1024;

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// What was found matches.
    Passed,
    /// It does not, or nothing could be found out.
    Failed,
    /// Not looked at; the message says why.
    Skipped,
}

/// One property of one resource, checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckResult {
    /// `file`, `service` and so on.
    pub resource_type: String,
    /// The resource's key in the gossfile.
    pub resource_id: String,
    /// The property's name in the gossfile.
    pub property: String,
    /// The resource's title, if its author gave it one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// How the check went.
    pub outcome: Outcome,
    /// What the gossfile says: a plain value or a matcher.
    pub expected: Value,
    /// What the machine says. Null if nothing was found out, for the contents of a
    /// file, and for a text that passed; a long text is cut.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub found: Value,
    /// Why it failed or was skipped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it took. What is learned once for a resource counts for its first check.
    pub duration_ms: u64,
}

/// Runs every check of a gossfile on this machine, one after the other, in the
/// order of the file. A check that cannot be made has failed.
pub fn run(gossfile: &Gossfile) -> Vec<CheckResult> {
    gossfile.resources.iter().flat_map(check).collect()
}

fn check(resource: &Resource) -> Vec<CheckResult> {
    let Subject::Command(command) = &resource.subject else { return check_once(resource) };
    let mut results = check_once(resource);
    for _ in 0..command.retries {
        if results.iter().all(|result| result.outcome != Outcome::Failed) {
            break;
        }
        std::thread::sleep(command.retry_delay);
        results = check_once(resource);
    }
    results
}

fn check_once(resource: &Resource) -> Vec<CheckResult> {
    let mut skip = resource.skip.then(|| "the gossfile says `skip: true`".to_owned());
    let mut started = Instant::now();
    let facts = if skip.is_none() { Some(Facts::gather(resource)) } else { None };
    let mut results: Vec<CheckResult> = Vec::new();
    for expectation in &resource.expectations {
        let mut result = match (&skip, &facts) {
            (None, Some(facts)) => compare(resource, expectation, facts),
            (why, _) => CheckResult { message: why.clone(), ..blank(resource, expectation) },
        };
        if results.is_empty() && resource.gated && skip.is_none() {
            skip = closes_the_gate(&result);
        }
        result.duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        started = Instant::now();
        results.push(result);
    }
    results
}

/// goss' `shouldSkip`, in `resource/resource.go`: the first property failed, or
/// it is false, as it should be, and there is nothing to look at.
fn closes_the_gate(first: &CheckResult) -> Option<String> {
    if first.outcome == Outcome::Failed {
        Some(format!("`{}` failed", first.property))
    } else if first.found == Value::Bool(false) {
        Some(format!("`{}` is false", first.property))
    } else {
        None
    }
}

fn compare(resource: &Resource, expectation: &Expectation, facts: &Facts) -> CheckResult {
    let result = blank(resource, expectation);
    match facts.property(expectation.property) {
        Err(why) => CheckResult { outcome: Outcome::Failed, message: Some(why), ..result },
        Ok(found) => {
            let mismatch = expectation.matcher.check(&found.value).err();
            let (outcome, message) = match (mismatch, found.note) {
                (None, _) => (Outcome::Passed, None),
                (Some(why), None) => (Outcome::Failed, Some(why)),
                (Some(why), Some(note)) => (Outcome::Failed, Some(format!("{why} ({note})"))),
            };
            let found = reported(expectation.property, outcome, found.value);
            CheckResult { outcome, message, found, ..result }
        }
    }
}

fn blank(resource: &Resource, expectation: &Expectation) -> CheckResult {
    CheckResult {
        resource_type: resource.subject.resource_type().to_owned(),
        resource_id: resource.id.clone(),
        property: expectation.property.to_owned(),
        title: resource.title.clone(),
        outcome: Outcome::Skipped,
        expected: expectation.expected.clone(),
        found: Value::Null,
        message: None,
        duration_ms: 0,
    }
}

/// What a result shows of what was found. A text is worth its room only where it
/// fails; the contents of a file may be a secret, and the console is no place for it.
fn reported(property: &str, outcome: Outcome, value: Value) -> Value {
    match property {
        "contents" => Value::Null,
        "stdout" | "stderr" | "headers" | "body" if outcome == Outcome::Passed => Value::Null,
        _ => cut(value),
    }
}

fn cut(value: Value) -> Value {
    match value {
        Value::String(text) if text.len() > KEPT_OF_TEXT => {
            let end = (0..=KEPT_OF_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
            format!("{}… ({} bytes)", &text[..end], text.len()).into()
        }
        other => other,
    }
}

/// What was found for one property.
struct Found {
    value: Value,
    /// What helps to understand a mismatch.
    note: Option<String>,
}

impl<T: Into<Value>> From<T> for Found {
    fn from(value: T) -> Self {
        Self { value: value.into(), note: None }
    }
}

impl Found {
    fn noted(value: impl Into<Value>, note: impl Into<String>) -> Self {
        Self { value: value.into(), note: Some(note.into()) }
    }
}

/// What one look at a subject tells; or why it could not be looked at.
enum Facts {
    File(Result<file::FileFacts, String>),
    Package(Result<package::PackageFacts, String>),
    Service(service::Unit),
    User(Result<Option<account::User>, String>),
    Group(Result<Option<account::Group>, String>),
    Port(Result<port::PortFacts, String>),
    Process(Result<bool, String>),
    Command(Result<crate::exec::Completed, String>),
    Http(Result<http::Response, String>),
}

impl Facts {
    fn gather(resource: &Resource) -> Self {
        match &resource.subject {
            Subject::File(path) => Self::File(file::FileFacts::gather(path)),
            Subject::Package(name) => Self::Package(package::gather(name)),
            Subject::Service(name) => Self::Service(service::Unit::new(name)),
            Subject::User(name) => Self::User(account::user(name)),
            Subject::Group(name) => Self::Group(account::group(name)),
            Subject::Port(port) => Self::Port(port::gather(*port)),
            Subject::Process(name) => Self::Process(process::is_running(name)),
            Subject::Command(command) => Self::Command(command::run(command)),
            Subject::Http(request) => {
                let wants_body = resource.expectations.iter().any(|it| it.property == "body");
                Self::Http(http::fetch(request, wants_body))
            }
        }
    }

    /// The properties that `gossfile::schema` lists, each by its name there.
    fn property(&self, name: &str) -> Result<Found, String> {
        match self {
            Self::File(facts) => facts.as_ref()?.property(name),
            Self::Package(facts) => facts.as_ref()?.property(name),
            Self::Service(unit) => unit.property(name),
            Self::User(user) => account::user_property(user.as_ref()?.as_ref(), name),
            Self::Group(group) => account::group_property(group.as_ref()?.as_ref(), name),
            Self::Port(facts) => facts.as_ref()?.property(name),
            Self::Process(running) => Ok((*running.as_ref()?).into()),
            Self::Command(completed) => command::property(completed.as_ref()?, name),
            Self::Http(response) => response.as_ref()?.property(name),
        }
    }
}

/// For the arm of a property's name that no resource type has.
fn unknown(property: &str) -> String {
    format!("`{property}` cannot be found out here")
}

#[cfg(test)]
mod tests;
