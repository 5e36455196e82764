//! What a template's variable is in the store.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::Value;
use thiserror::Error;

use super::ManagedFile;
use crate::values::{Content, Map, Selector, Values};

/// Where a variable comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Source {
    /// Its key or keys.
    pub selector: Selector,
    /// What it is if the store has none; without it the file needs the key.
    pub default: Option<Value>,
}

/// What a file is made from: its variables, and the keys they came from.
#[derive(Debug)]
pub struct Used {
    /// The template's variables.
    pub variables: Value,
    /// The keys and values behind them.
    pub keys: Map,
}

/// Why a file cannot be made from what the store has.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// It needs a key.
    #[error("the store has no {0}, which is required")]
    Missing(String),
    /// It needs at least one key.
    #[error("the store has nothing below {0}, which is required")]
    Empty(String),
    /// A value is not text.
    #[error("the value of {0} is not UTF-8")]
    NotText(String),
}

impl ManagedFile {
    /// Its variables as the store has them.
    pub fn used(&self, values: &Values) -> Result<Used, Problem> {
        let mut keys = Map::new();
        let mut variables = BTreeMap::new();
        for (name, source) in &self.values {
            variables.insert(name.clone(), source.value(values, &mut keys)?);
        }
        Ok(Used { variables: Value::from(variables), keys })
    }
}

impl Source {
    fn value(&self, values: &Values, keys: &mut Map) -> Result<Value, Problem> {
        match &self.selector {
            Selector::Key(key) => match (values.get(key), &self.default) {
                (Some((key, content)), _) => {
                    keys.insert(Arc::clone(key), content.clone());
                    shown(key, content)
                }
                (None, Some(default)) => Ok(default.clone()),
                (None, None) => Err(Problem::Missing(key.clone())),
            },
            Selector::Below(prefix) => {
                // Collected, and not inserted one by one: what is in order already needs few comparisons.
                let below = || values.below(prefix);
                keys.append(&mut below().map(|(key, content)| (Arc::clone(key), content.clone())).collect());
                let found: BTreeMap<Value, Value> = below()
                    .map(|(key, content)| Ok((Value::from(&key[prefix.len()..]), shown(key, content)?)))
                    .collect::<Result<_, Problem>>()?;
                match &self.default {
                    None if found.is_empty() => Err(Problem::Empty(prefix.clone())),
                    Some(default) if found.is_empty() => Ok(default.clone()),
                    _ => Ok(Value::from(found)),
                }
            }
        }
    }
}

fn shown(key: &str, content: &Content) -> Result<Value, Problem> {
    match content {
        Content::Text(text) => Ok(Value::from(Arc::clone(text))),
        Content::Binary => Err(Problem::NotText(key.to_owned())),
    }
}
