//! Patterns for lines of text: `x`, `!x`, `\!x`, `/re/`, `!/re/`.
//!
//! After goss' `matchers/have_patterns.go`, with one difference: it trims every
//! leading `\`, `/` and `!` off a plain pattern, so that `/etc` also finds `etc`;
//! here a plain pattern loses one mark only.

use std::fmt;

use regex::Regex;

/// One pattern, which some line must match, or none if it is inverse.
#[derive(Debug, Clone)]
pub struct LinePattern {
    written: String,
    inverse: bool,
    search: Search,
}

#[derive(Debug, Clone)]
enum Search {
    Text(String),
    Expression(Regex),
}

impl LinePattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// The text between slashes is not a regular expression.
    pub fn parse(written: &str) -> Result<Self, regex::Error> {
        let (inverse, rest) = match written.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, written),
        };
        let expression = rest.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let search = match expression {
            Some(expression) => Search::Expression(Regex::new(expression)?),
            None => Search::Text(rest.strip_prefix('\\').unwrap_or(rest).to_owned()),
        };
        Ok(Self { written: written.to_owned(), inverse, search })
    }

    pub(super) fn holds(&self, text: &str) -> bool {
        // The empty pattern holds even where there is no line.
        self.written.is_empty() || self.finds(text) != self.inverse
    }

    fn finds(&self, text: &str) -> bool {
        text.lines().any(|line| match &self.search {
            Search::Text(part) => line.contains(part),
            Search::Expression(expression) => expression.is_match(line),
        })
    }
}

/// Why some of `patterns` do not hold.
pub(super) fn explain(patterns: &[LinePattern], text: &str) -> String {
    let quoted = |inverse: bool| {
        let failed = patterns.iter().filter(|pattern| pattern.inverse == inverse && !pattern.holds(text));
        failed.map(|pattern| format!("`{pattern}`")).collect::<Vec<_>>().join(", ")
    };
    let (absent, present) = (quoted(false), quoted(true));
    match (absent.as_str(), present.as_str()) {
        (absent, "") => format!("no line has {absent}"),
        ("", present) => format!("a line breaks {present}"),
        (absent, present) => format!("no line has {absent}, and a line breaks {present}"),
    }
}

impl fmt::Display for LinePattern {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_finds_its_line() {
        let text = "one two\n!three\n/etc/passwd\n";
        for (pattern, holds) in [
            ("two", true),
            ("four", false),
            ("!four", true),
            ("!two", false),
            ("\\!three", true),
            ("/^one/", true),
            ("/^two/", false),
            ("!/^two/", true),
            ("!/^one/", false),
            ("\\/etc", true),
            ("/etc/passwd", true),
            ("/one two$/", true),
            ("two\n!", false),
            ("", true),
        ] {
            assert_eq!(LinePattern::parse(pattern).unwrap().holds(text), holds, "{pattern}");
        }
        assert!(LinePattern::parse("").unwrap().holds(""));
        assert!(LinePattern::parse("/(/").is_err());
    }
}
