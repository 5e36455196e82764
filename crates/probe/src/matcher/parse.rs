//! Reading a matcher from a gossfile.

use regex::Regex;
use serde_json::Value;

use super::{Comparison, Constraint, LinePattern, Matcher};
use crate::gossfile::schema::Shape;
use crate::gossfile::yaml::{Entry, Node, Tree};
use crate::gossfile::{Fault, nearest};

/// The matchers of goss' documentation.
const NAMES: [&str; 19] = [
    "and",
    "consist-of",
    "contain-element",
    "contain-elements",
    "contain-substring",
    "equal",
    "ge",
    "gt",
    "have-key",
    "have-len",
    "have-patterns",
    "have-prefix",
    "have-suffix",
    "le",
    "lt",
    "match-regexp",
    "not",
    "or",
    "semver-constraint",
];

impl Matcher {
    /// What `property` must match: a plain value, or a map of one matcher.
    pub(crate) fn parse(property: &str, shape: Shape, node: &Node) -> Result<Self, Fault> {
        match (&node.tree, shape) {
            (Tree::Scalar(Value::Bool(_)) | Tree::Map(_), Shape::Truth) => plain(node),
            (_, Shape::Truth) => {
                let text = node.text().map(|text| format!(", `{text}`")).unwrap_or_default();
                let why = format!("`{property}` is {}{text}", node.kind());
                Err(Fault::new(node.line, why, "write true or false, without quotes"))
            }
            (Tree::List(items), Shape::Text) => Ok(Self::HavePatterns(patterns(items)?)),
            _ => plain(node),
        }
    }
}

fn plain(node: &Node) -> Result<Matcher, Fault> {
    match &node.tree {
        Tree::Scalar(Value::Null) => {
            Err(Fault::new(node.line, "a value is missing", "write one, or take the line out"))
        }
        Tree::Scalar(value) => Ok(Matcher::Equal(value.clone())),
        Tree::List(items) => Ok(Matcher::ContainElements(each(items)?)),
        Tree::Map(entries) => match entries.as_slice() {
            [entry] => named(entry),
            [] => Err(Fault::new(node.line, "a matcher is missing", format!("use one of {}", NAMES.join(", ")))),
            [_, second, ..] => {
                let why = format!("a second matcher, `{}`, in one map", second.key);
                Err(Fault::new(second.line, why, "combine them as a list under `and` or `or`"))
            }
        },
    }
}

fn named(entry: &Entry) -> Result<Matcher, Fault> {
    let node = &entry.value;
    let wrong = |wanted: &str| {
        Fault::new(node.line, format!("`{}` is given {}", entry.key, node.kind()), format!("write {wanted}"))
    };
    let text = || node.text().ok_or_else(|| wrong("a string"));
    let number = || node.to_json().as_f64().ok_or_else(|| wrong("a number"));
    let items = || match &node.tree {
        Tree::List(items) => Ok(items.as_slice()),
        _ => Err(wrong("a list")),
    };
    let inner = || plain(node).map(Box::new);
    Ok(match entry.key.as_str() {
        "equal" => match &node.tree {
            Tree::Map(_) => return Err(wrong("a plain value or a list")),
            _ if node.is_null() => return Err(wrong("a plain value or a list")),
            _ => Matcher::Equal(node.to_json()),
        },
        "have-prefix" => Matcher::HavePrefix(text()?),
        "have-suffix" => Matcher::HaveSuffix(text()?),
        "match-regexp" => {
            let expression = text()?;
            Matcher::MatchRegexp(
                Regex::new(&expression).map_err(|error| bad_expression(node.line, &expression, &error))?,
            )
        }
        "contain-substring" => Matcher::ContainSubstring(text()?),
        "have-len" => Matcher::HaveLen(node.to_json().as_u64().ok_or_else(|| wrong("a whole number"))?),
        "have-key" => Matcher::HaveKey(inner()?),
        "have-patterns" => Matcher::HavePatterns(patterns(items()?)?),
        "contain-element" => Matcher::ContainElement(inner()?),
        "contain-elements" => Matcher::ContainElements(each(items()?)?),
        "consist-of" => Matcher::ConsistOf(each(items()?)?),
        "not" => Matcher::Not(inner()?),
        "and" => Matcher::And(each(items()?)?),
        "or" => Matcher::Or(each(items()?)?),
        "gt" => Matcher::Compare(Comparison::Gt, number()?),
        "ge" => Matcher::Compare(Comparison::Ge, number()?),
        "lt" => Matcher::Compare(Comparison::Lt, number()?),
        "le" => Matcher::Compare(Comparison::Le, number()?),
        "semver-constraint" => {
            let written = text()?;
            let constraint = Constraint::parse(&written).ok_or_else(|| {
                let why = format!("`{written}` is not a version constraint");
                Fault::new(node.line, why, "write comparisons such as `>=1.2.0 <2.0.0 || 3.x`")
            })?;
            Matcher::SemverConstraint(constraint)
        }
        "gjson" | "have-key-with-value" => {
            let why = format!("matcher `{}` is not supported yet", entry.key);
            return Err(Fault::new(entry.line, why, "check the same with a `command` that prints the value"));
        }
        other => {
            return Err(Fault::new(entry.line, format!("unknown matcher `{other}`"), nearest(other, &NAMES)));
        }
    })
}

fn each(items: &[Node]) -> Result<Vec<Matcher>, Fault> {
    items.iter().map(plain).collect()
}

fn patterns(items: &[Node]) -> Result<Vec<LinePattern>, Fault> {
    items
        .iter()
        .map(|item| {
            let Some(written) = item.text() else {
                let why = format!("a pattern is {}", item.kind());
                return Err(Fault::new(item.line, why, "write text, `!text`, `/expression/` or `!/expression/`"));
            };
            LinePattern::parse(&written).map_err(|error| bad_expression(item.line, &written, &error))
        })
        .collect()
}

fn bad_expression(line: usize, written: &str, error: &regex::Error) -> Fault {
    // The library draws the fault below the expression; its last line says it in words.
    let words = error.to_string();
    let reason = words.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Fault::new(
        line,
        format!("`{written}` is not a regular expression ({reason})"),
        "escape it with `\\`, or correct it",
    )
}
