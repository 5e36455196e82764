//! `component.toml`: what a component says of itself, with the line of every fault.

mod checks;
mod position;

use std::path::{Path, PathBuf};

use cli::BadInput;
use manifest::Component;

use position::{line_at, line_of, path_at};

/// Where a component file stands in its component.
pub const NAME: &str = "component.toml";

/// A component file that was read, and its text for complaints about it.
#[derive(Debug)]
pub struct ComponentFile {
    /// What it says.
    pub component: Component,
    text: Text,
}

/// The text of a component file, and how to speak of it.
#[derive(Debug)]
struct Text {
    doing: String,
    path: PathBuf,
    text: String,
}

impl ComponentFile {
    /// Reads `text`, which is shown to the user as `path`, while doing `doing`.
    ///
    /// `is_file` says whether the component has a file of that path at its revision.
    pub fn parse(doing: &str, path: &Path, text: &str, is_file: impl Fn(&str) -> bool) -> Result<Self, BadInput> {
        let text = Text { doing: doing.to_owned(), path: path.to_owned(), text: text.to_owned() };
        let component = toml::from_str(&text.text).map_err(|error| text.refusal(&error))?;
        let file = Self { component, text };
        checks::check(&file, is_file)?;
        Ok(file)
    }

    /// What is wrong with the value of `key`, such as `["deploy", "port"]`.
    pub fn complaint(&self, key: &[&str], why: &str, remedy: &str) -> BadInput {
        let Text { doing, path, text } = &self.text;
        BadInput::new(doing, format!("{} {why}", key.join(".")), remedy).in_file(path).at_line(line_of(text, key))
    }
}

impl Text {
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

/// What serde or toml said at the key or in the table `at`, in a user's words, and what to do.
fn explain(message: &str, at: &str) -> (String, String) {
    let table = match at.rsplit_once('.') {
        Some((table, _)) => format!("in [{table}]"),
        None => "at the top level".to_owned(),
    };
    let mut quoted = message.split('`').skip(1).step_by(2);
    let first = quoted.next().unwrap_or_default();
    if message.starts_with("unknown field") {
        (format!("unknown key '{first}' {table}"), nearest(first, quoted))
    } else if message.starts_with("unknown variant") {
        (format!("unknown kind of package '{first}'"), nearest(first, quoted))
    } else if message.starts_with("missing field") {
        let table = if at.is_empty() { "at the top level".to_owned() } else { format!("in [{at}]") };
        (format!("missing key '{first}' {table}"), "add it; docs/artifact.md describes every key".to_owned())
    } else if message.starts_with("wanted exactly 1 element") || message.contains("newtype variant") {
        (
            "[package] must have exactly one of 'deb' and 'tree'".to_owned(),
            "write deb = \"dist/*.deb\", or tree = { path = \"dist\", prefix = \"/opt/NAME\" }".to_owned(),
        )
    } else if message.starts_with("invalid") && !at.is_empty() && message.contains(", expected ") {
        (format!("{at}: {}", without_rust_types(message)), "write a value of that kind".to_owned())
    } else {
        (message.to_owned(), "mend the line; https://toml.io describes the format".to_owned())
    }
}

fn nearest<'a>(unknown: &str, known: impl Iterator<Item = &'a str>) -> String {
    let nearest = known.min_by_key(|known| strsim::damerau_levenshtein(unknown, known));
    nearest.map_or_else(|| "remove it".to_owned(), |known| format!("did you mean '{known}'?"))
}

fn without_rust_types(message: &str) -> String {
    let (what, expected) = message.rsplit_once("expected ").unwrap_or((message, ""));
    let expected = match expected {
        "u8" => "an integer from 0 to 255",
        "u16" => "an integer from 0 to 65535",
        "u32" | "u64" => "an integer that is not negative",
        "a sequence" => "a list",
        other => other,
    };
    format!("{what}expected {expected}")
}

#[cfg(test)]
mod tests;
