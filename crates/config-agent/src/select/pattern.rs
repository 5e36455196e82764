//! Patterns such as `/etc/{country}-{environment}-conf.json`.

use std::fmt;
use std::path::{Path, PathBuf};

use super::Answer;

/// A path with names in braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Name(String),
}

impl Pattern {
    /// Reads a pattern. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!("is '{text}', which is not an absolute path"));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, behind)) = after.split_once('}') else {
                return Err(format!("is '{text}', where a brace is not closed"));
            };
            if !is_name(name) {
                return Err(format!("is '{text}': '{name}' is not a name of letters, digits and underscores"));
            }
            parts.extend([Part::Text(before.to_owned()), Part::Name(name.to_owned())]);
            rest = behind;
        }
        if parts.is_empty() {
            return Err(format!("is '{text}', which has no name in braces: there is nothing to choose"));
        }
        parts.push(Part::Text(rest.to_owned()));
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The names, each once, in order.
    pub fn names(&self) -> Vec<&str> {
        let mut names = Vec::new();
        for part in &self.parts {
            match part {
                Part::Name(name) if !names.contains(&name.as_str()) => names.push(name.as_str()),
                _ => (),
            }
        }
        names
    }

    /// The path with every name replaced by its answer.
    pub fn fill(&self, answers: &[Answer]) -> PathBuf {
        let value = |name: &str| answers.iter().find(|answer| answer.name == name).map_or("", |answer| &answer.value);
        self.parts
            .iter()
            .map(|part| if let Part::Name(name) = part { value(name) } else { part.text() })
            .collect::<String>()
            .into()
    }

    /// The files that fit, whatever the names stand for, without `destination` itself.
    pub fn candidates(&self, destination: &Path) -> Vec<PathBuf> {
        let wild = |part: &Part| match part {
            Part::Text(text) => glob::Pattern::escape(text),
            Part::Name(_) => "*".to_owned(),
        };
        let pattern: String = self.parts.iter().map(wild).collect();
        let found = glob::glob(&pattern).into_iter().flatten().flatten();
        found.filter(|path| path != destination).collect()
    }
}

impl Part {
    fn text(&self) -> &str {
        let (Self::Text(text) | Self::Name(text)) = self;
        text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(name: &str, value: &str) -> Answer {
        Answer { name: name.to_owned(), value: value.to_owned(), origin: String::new() }
    }

    #[test]
    fn names_are_filled_in() {
        let pattern = Pattern::parse("/etc/{country}/{environment}-{country}.json").unwrap();
        assert_eq!(pattern.names(), ["country", "environment"]);
        let filled = pattern.fill(&[answer("environment", "live"), answer("country", "uk")]);
        assert_eq!(filled, Path::new("/etc/uk/live-uk.json"));
    }

    #[test]
    fn a_wrong_pattern_is_refused() {
        for (text, why) in [
            ("etc/{a}", "is not an absolute path"),
            ("/etc/{a", "a brace is not closed"),
            ("/etc/{a b}", "'a b' is not a name"),
            ("/etc/a", "has no name in braces"),
        ] {
            assert!(Pattern::parse(text).unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn candidates_are_what_is_there() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["uk-live-conf.json", "us-stage-conf.json", "conf.json", "x-conf.json"] {
            std::fs::write(directory.path().join(name), "{}").unwrap();
        }
        let at = directory.path().display();
        let pattern = Pattern::parse(&format!("{at}/{{country}}-{{environment}}-conf.json")).unwrap();
        let found = pattern.candidates(&directory.path().join("us-stage-conf.json"));
        assert_eq!(found, [directory.path().join("uk-live-conf.json")]);
    }
}
