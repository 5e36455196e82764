//! YAML as a tree that remembers its lines.
//!
//! Types are told apart as goss' own parser does (YAML 1.2): `yes` and `on` are
//! words, and `0644` keeps its zero.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::error::Fault;

/// A value and the line that it starts on.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) line: usize,
    pub(crate) tree: Tree,
}

#[derive(Debug, Clone)]
pub(crate) enum Tree {
    /// Null, a boolean, a number or a string; never a list or a map.
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) line: usize,
    pub(crate) key: String,
    pub(crate) value: Node,
}

/// Reads one document. An empty one is `None`.
pub(crate) fn parse(text: &str) -> Result<Option<Node>, Fault> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    };
    let node: Spanned<Tree> = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |place| lossless(place.line()));
        let why = error.without_snippet().to_string();
        Fault::new(line, format!("not valid YAML ({})", why.trim()), advice(text, line))
    })?;
    let node = Node::from(node);
    Ok(if node.is_null() { None } else { Some(node) })
}

/// A tab is the commonest mistake, and the least visible.
fn advice(text: &str, line: usize) -> &'static str {
    let suspect = text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
    if suspect.trim_start_matches(' ').starts_with('\t') {
        "indent with spaces: YAML does not allow tabs there"
    } else {
        "correct the indentation, quotes or colons at or just above that line"
    }
}

impl Node {
    pub(crate) fn is_null(&self) -> bool {
        matches!(self.tree, Tree::Scalar(Value::Null))
    }

    /// What the value is, for an error message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.tree {
            Tree::Scalar(Value::Null) => "nothing",
            Tree::Scalar(Value::Bool(_)) => "a boolean",
            Tree::Scalar(Value::Number(_)) => "a number",
            Tree::Scalar(_) => "a string",
            Tree::List(_) => "a list",
            Tree::Map(_) => "a map",
        }
    }

    /// A scalar as text: goss reads `exec: true` as the command `true`.
    pub(crate) fn text(&self) -> Option<String> {
        match &self.tree {
            Tree::Scalar(Value::String(text)) => Some(text.clone()),
            Tree::Scalar(Value::Null) | Tree::List(_) | Tree::Map(_) => None,
            Tree::Scalar(other) => Some(other.to_string()),
        }
    }

    /// The value without its lines.
    pub(crate) fn to_json(&self) -> Value {
        match &self.tree {
            Tree::Scalar(value) => value.clone(),
            Tree::List(items) => items.iter().map(Node::to_json).collect(),
            Tree::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect(),
        }
    }
}

impl From<Spanned<Tree>> for Node {
    fn from(spanned: Spanned<Tree>) -> Self {
        Self { line: lossless(spanned.referenced.line()), tree: spanned.value }
    }
}

fn lossless(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX)
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a scalar, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element::<Spanned<Tree>>()? {
            list.push(item.into());
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(key) = entries.next_key::<Spanned<String>>()? {
            let value = entries.next_value::<Spanned<Tree>>()?.into();
            map.push(Entry { line: lossless(key.referenced.line()), key: key.value, value });
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_types_and_lines() {
        let text = "a: 1\nb:\n  - yes\n  - true\n  - 0644\n  - '5'\n  - 1.5\n22: {c: x}\n";
        let node = parse(text).unwrap().unwrap();
        assert_eq!(node.to_json(), json!({"a": 1, "b": ["yes", true, "0644", "5", 1.5], "22": {"c": "x"}}));
        let Tree::Map(entries) = node.tree else { panic!("a map") };
        assert_eq!(entries.iter().map(|entry| entry.line).collect::<Vec<_>>(), [1, 2, 8]);
        let Tree::List(items) = &entries[1].value.tree else { panic!("a list") };
        assert_eq!(items.iter().map(|item| item.line).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
    }

    #[test]
    fn an_empty_document_is_nothing() {
        assert!(parse("").unwrap().is_none());
        assert!(parse("# only a comment\n---\n").unwrap().is_none());
    }
}
