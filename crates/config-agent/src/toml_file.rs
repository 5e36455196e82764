//! TOML files that people write: every fault with its line, every unknown key with the nearest known one.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::de::{DeTable, DeValue};

use crate::bad_input::BadInput;

/// A file that was read, for complaints about its values.
#[derive(Debug, Clone)]
pub struct TomlFile {
    doing: String,
    path: PathBuf,
    text: String,
}

impl TomlFile {
    /// Reads the file while doing `doing`, such as `reading the settings`.
    pub fn read<T: DeserializeOwned>(doing: &str, path: &Path) -> Result<(T, Self), BadInput> {
        let text = fs::read_to_string(path).map_err(|error| {
            BadInput::new(doing, format!("it cannot be read ({error})"), "check the path").in_file(path)
        })?;
        Self::parse(doing, path, text)
    }

    /// Reads `text`, which is shown as `path`.
    pub fn parse<T: DeserializeOwned>(doing: &str, path: &Path, text: String) -> Result<(T, Self), BadInput> {
        let file = Self { doing: doing.to_owned(), path: path.to_owned(), text };
        match toml::from_str(&file.text) {
            Ok(value) => Ok((value, file)),
            Err(error) => Err(file.refusal(&error)),
        }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the value of `key`, such as `["store", "etcd", "addresses"]`, and what to do.
    pub fn complaint(&self, key: &[&str], why: &str, remedy: &str) -> BadInput {
        BadInput::new(&self.doing, format!("{} {why}", key.join(".")), remedy)
            .in_file(&self.path)
            .at_line(line_of(&self.text, key))
    }

    fn refusal(&self, error: &toml::de::Error) -> BadInput {
        // What is missing at the top level has no line of its own: toml puts it at the empty start of the file.
        let missing = error.message().starts_with("missing field");
        let offset = error.span().filter(|span| !(missing && span.is_empty())).map(|span| span.start);
        let at = offset.map(|offset| path_at(&self.text, offset)).unwrap_or_default();
        let (why, remedy) = explain(error.message(), &at);
        let line = offset.map(|offset| line_at(&self.text, offset));
        BadInput::new(&self.doing, why, remedy).in_file(&self.path).at_line(line)
    }
}

/// `; did you mean 'x'?` as a remedy: the known name that is nearest to `unknown`.
pub fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(unknown, known));
    nearest.map_or_else(|| "remove it".to_owned(), |known| format!("did you mean '{known}'?"))
}

/// What serde or toml said at the key or in the table `at`, in a person's words, and what to do.
fn explain(message: &str, at: &str) -> (String, String) {
    let table = |path: &str| if path.is_empty() { "at the top level".to_owned() } else { format!("in [{path}]") };
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    if message.starts_with("unknown field") {
        let parent = at.rsplit_once('.').map_or("", |(parent, _)| parent);
        (format!("unknown key '{first}' {}", table(parent)), nearest(first, quoted))
    } else if message.starts_with("unknown variant") {
        (format!("{at}: unknown kind '{first}'"), nearest(first, quoted))
    } else if message.starts_with("missing field") {
        let remedy = "add it; docs/config-agent.md describes every key";
        (format!("missing key '{first}' {}", table(at)), remedy.to_owned())
    } else if message.starts_with("wanted exactly 1 element") {
        let table = at.split('.').next().unwrap_or_default();
        (format!("[{table}] must have exactly one kind"), "remove all but one".to_owned())
    } else if at.is_empty() {
        (message.replace('\n', " "), "mend the line; https://toml.io describes the format".to_owned())
    } else {
        let message = message.replace("a sequence", "a list").replace('\n', " ");
        (format!("{at}: {message}"), "write a value of that kind; docs/config-agent.md describes every key".to_owned())
    }
}

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The line of a key, or of the last table on the way to it that is there.
fn line_of(text: &str, key: &[&str]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut line = None;
    for part in key {
        let Some((found, value)) = table.and_then(|table| table.get_key_value(*part)) else { break };
        line = Some(line_at(text, found.span().start));
        table = value.get_ref().as_table();
    }
    line
}

/// The dotted path of the innermost key or value at the byte `offset`; empty for the top level.
fn path_at(text: &str, offset: usize) -> String {
    let mut path = Vec::new();
    // A file with a fault in its syntax still has the keys before the fault.
    let (document, _) = DeTable::parse_recoverable(text);
    find(document.get_ref(), offset, &mut path);
    path.join(".")
}

fn find(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find(inner, offset, path),
            _ => false,
        };
        if inner || key.span().contains(&offset) || value.span().contains(&offset) {
            return true;
        }
        path.pop();
    }
    false
}
