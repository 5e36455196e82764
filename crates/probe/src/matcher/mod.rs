//! Matchers: what a value that was found must be like.
//!
//! Semantics follow goss' `matchers/*.go`. A plain value coerces what was found:
//! against a string, a list becomes its lines; against a number, text is parsed.

mod constraint;
mod parse;
mod pattern;

use std::fmt;

use regex::Regex;
use serde_json::Value;

pub use constraint::Constraint;
pub use pattern::LinePattern;

/// A requirement on one value.
#[derive(Debug, Clone)]
pub enum Matcher {
    /// The value, after coercion.
    Equal(Value),
    /// Text that starts so.
    HavePrefix(String),
    /// Text that ends so.
    HaveSuffix(String),
    /// Text in which the expression is found.
    MatchRegexp(Regex),
    /// Text in which this is found.
    ContainSubstring(String),
    /// Bytes of a text, elements of a list.
    HaveLen(u64),
    /// A map with a key like this.
    HaveKey(Box<Matcher>),
    /// Text in which every pattern finds its line.
    HavePatterns(Vec<LinePattern>),
    /// A list with an element like this; text is a list of lines.
    ContainElement(Box<Matcher>),
    /// A list with a different element for each of these.
    ContainElements(Vec<Matcher>),
    /// A list with exactly one element for each of these, in any order.
    ConsistOf(Vec<Matcher>),
    /// Anything else.
    Not(Box<Matcher>),
    /// All of these.
    And(Vec<Matcher>),
    /// Any of these.
    Or(Vec<Matcher>),
    /// A number on this side of another.
    Compare(Comparison, f64),
    /// A semantic version, or a list of them, within these bounds.
    SemverConstraint(Constraint),
}

/// The side of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Greater than.
    Gt,
    /// Greater than or equal to.
    Ge,
    /// Less than.
    Lt,
    /// Less than or equal to.
    Le,
}

impl Matcher {
    /// Compares what was found.
    ///
    /// # Errors
    ///
    /// Why it does not match, as a sentence that the value itself may precede.
    pub fn check(&self, found: &Value) -> Result<(), String> {
        if self.matches(found)? {
            return Ok(());
        }
        Err(match self {
            Self::HavePatterns(patterns) => pattern::explain(patterns, &text(found)),
            Self::And(all) => match all.iter().find_map(|matcher| matcher.check(found).err()) {
                Some(why) => why,
                None => format!("expected to {self}"),
            },
            Self::Equal(Value::String(wanted)) if text(found).trim_end() == wanted.trim_end() => {
                format!("expected to {self}; they differ in the white space at the end")
            }
            _ => format!("expected to {self}"),
        })
    }

    /// `Err` where the value is of a kind that cannot be compared, which fails a
    /// check even below `not`.
    fn matches(&self, found: &Value) -> Result<bool, String> {
        Ok(match self {
            Self::Equal(wanted) => equal(wanted, found),
            Self::HavePrefix(prefix) => text(found).starts_with(prefix),
            Self::HaveSuffix(suffix) => text(found).ends_with(suffix),
            Self::MatchRegexp(expression) => expression.is_match(&text(found)),
            Self::ContainSubstring(part) => text(found).contains(part),
            Self::HaveLen(wanted) => length(found)? == *wanted,
            Self::HaveKey(matcher) => match found {
                Value::Object(map) => any(map.keys(), |key| matcher.matches(&key.as_str().into()))?,
                _ => return Err(format!("expected a map, found {found}")),
            },
            Self::HavePatterns(patterns) => patterns.iter().all(|pattern| pattern.holds(&text(found))),
            Self::ContainElement(matcher) => any(list(found).iter(), |element| matcher.matches(element))?,
            Self::ContainElements(matchers) => pairs(matchers, &list(found)) == matchers.len(),
            Self::ConsistOf(matchers) => {
                let elements = list(found);
                elements.len() == matchers.len() && pairs(matchers, &elements) == matchers.len()
            }
            Self::Not(matcher) => !matcher.matches(found)?,
            Self::And(matchers) => !any(matchers.iter(), |matcher| Ok(!matcher.matches(found)?))?,
            Self::Or(matchers) => any(matchers.iter(), |matcher| matcher.matches(found))?,
            Self::Compare(comparison, bound) => {
                let number = number(found).ok_or_else(|| format!("expected a number, found {found}"))?;
                match comparison {
                    Comparison::Gt => number > *bound,
                    Comparison::Ge => number >= *bound,
                    Comparison::Lt => number < *bound,
                    Comparison::Le => number <= *bound,
                }
            }
            Self::SemverConstraint(constraint) => {
                let versions = list(found);
                !versions.is_empty() && !any(versions.iter(), |version| Ok(!constraint.admits(&text(version))?))?
            }
        })
    }
}

/// An error counts only if nothing matched before it.
fn any<T>(items: impl Iterator<Item = T>, mut test: impl FnMut(T) -> Result<bool, String>) -> Result<bool, String> {
    for item in items {
        if test(item)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn equal(wanted: &Value, found: &Value) -> bool {
    match wanted {
        Value::String(wanted) => text(found) == *wanted,
        Value::Number(wanted) => number(found).is_some_and(|found| Some(found) == wanted.as_f64()),
        Value::Array(wanted) => {
            let found = list(found);
            found.len() == wanted.len() && wanted.iter().zip(&found).all(|(wanted, found)| equal(wanted, found))
        }
        Value::Bool(_) | Value::Null | Value::Object(_) => wanted == found,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        other => text(other).trim().parse().ok(),
    }
}

fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items.clone(),
        Value::String(text) => text.split('\n').map(Value::from).collect(),
        other => vec![other.clone()],
    }
}

fn length(value: &Value) -> Result<u64, String> {
    let length = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.len(),
        Value::Object(map) => map.len(),
        other => return Err(format!("expected something with a length, found {other}")),
    };
    Ok(length as u64)
}

/// How many matchers can have an element of their own: a greedy choice would
/// give `[a.*, ab]` against `[ab, ac]` the wrong answer.
fn pairs(matchers: &[Matcher], elements: &[Value]) -> usize {
    fn place(matcher: usize, fits: &[Vec<bool>], owner: &mut [Option<usize>], tried: &mut [bool]) -> bool {
        for element in 0..owner.len() {
            if fits[matcher][element] && !std::mem::replace(&mut tried[element], true) {
                let is_free = owner[element].is_none_or(|other| place(other, fits, owner, tried));
                if is_free {
                    owner[element] = Some(matcher);
                    return true;
                }
            }
        }
        false
    }
    let fits: Vec<Vec<bool>> = matchers
        .iter()
        .map(|matcher| elements.iter().map(|element| matcher.matches(element) == Ok(true)).collect())
        .collect();
    let mut owner = vec![None; elements.len()];
    (0..matchers.len()).filter(|matcher| place(*matcher, &fits, &mut owner, &mut vec![false; elements.len()])).count()
}

/// What follows "expected to".
impl fmt::Display for Matcher {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        let all =
            |matchers: &[Matcher], word: &str| matchers.iter().map(Matcher::to_string).collect::<Vec<_>>().join(word);
        match self {
            Self::Equal(Value::Bool(truth)) => write!(formatter, "be {truth}"),
            Self::Equal(wanted) => write!(formatter, "equal {wanted}"),
            Self::HavePrefix(prefix) => write!(formatter, "start with {prefix:?}"),
            Self::HaveSuffix(suffix) => write!(formatter, "end with {suffix:?}"),
            Self::MatchRegexp(expression) => write!(formatter, "match /{expression}/"),
            Self::ContainSubstring(part) => write!(formatter, "contain {part:?}"),
            Self::HaveLen(length) => write!(formatter, "have length {length}"),
            Self::HaveKey(matcher) => write!(formatter, "have a key to {matcher}"),
            Self::HavePatterns(patterns) => {
                let patterns: Vec<_> = patterns.iter().map(|pattern| format!("`{pattern}`")).collect();
                write!(formatter, "have lines for {}", patterns.join(", "))
            }
            Self::ContainElement(matcher) => write!(formatter, "have an element to {matcher}"),
            Self::ContainElements(matchers) => write!(formatter, "have elements to {}", all(matchers, ", to ")),
            Self::ConsistOf(matchers) => write!(formatter, "have just the elements to {}", all(matchers, ", to ")),
            Self::Not(matcher) => write!(formatter, "not {matcher}"),
            Self::And(matchers) => formatter.write_str(&all(matchers, " and ")),
            Self::Or(matchers) => formatter.write_str(&all(matchers, " or ")),
            Self::Compare(comparison, bound) => {
                let side = match comparison {
                    Comparison::Gt => "greater than",
                    Comparison::Ge => "at least",
                    Comparison::Lt => "less than",
                    Comparison::Le => "at most",
                };
                write!(formatter, "be {side} {bound}")
            }
            Self::SemverConstraint(constraint) => write!(formatter, "be a version {constraint}"),
        }
    }
}

#[cfg(test)]
mod tests;
