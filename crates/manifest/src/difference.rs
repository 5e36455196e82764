//! Where two states of the document differ, in the terms of who writes it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::Manifest;

/// Sections whose entries have writers of their own.
const MAPS: [&str; 5] = ["volumes", "images", "tests", "deployments", "journals"];

impl Manifest {
    /// The keys under which this differs from `other`, such as `artifact` and `tests.hvm`. What is marked as stale is
    /// no difference: such marks follow from everything else.
    pub fn difference(&self, other: &Self) -> BTreeSet<String> {
        let (these, those) = (self.by_key(), other.by_key());
        let keys = these.keys().chain(those.keys());
        keys.filter(|key| these.get(*key) != those.get(*key)).cloned().collect()
    }

    fn by_key(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        // A manifest is an object: the schema says so.
        let Ok(Value::Object(sections)) = serde_json::to_value(self) else { return found };
        for (name, section) in sections {
            match section {
                Value::Object(entries) if MAPS.contains(&name.as_str()) => {
                    found
                        .extend(entries.into_iter().map(|(key, entry)| (format!("{name}.{key}"), without_mark(entry))));
                }
                section => drop(found.insert(name, without_mark(section))),
            }
        }
        found
    }
}

fn without_mark(mut entry: Value) -> Value {
    if let Value::Object(fields) = &mut entry {
        fields.remove("stale");
        // What was published of an image has marks of its own.
        if let Some(Value::Object(published)) = fields.get_mut("published") {
            published.values_mut().for_each(|there| *there = without_mark(there.take()));
        }
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Manifest {
        let text = include_str!("../tests/fixtures/v1.json");
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn an_entry_is_a_key_of_its_own_and_a_mark_is_no_difference() {
        let (one, mut other) = (fixture(), fixture());
        assert!(one.difference(&other).is_empty());
        let (builder, mut verdict) = other.tests.pop_first().expect("the fixture has a verdict");
        verdict.stamp.stale = Some("for a reason".to_owned());
        other.tests.insert(builder.clone(), verdict.clone());
        assert!(one.difference(&other).is_empty());
        verdict.passed = !verdict.passed;
        other.tests.insert(builder.clone(), verdict);
        other.artifact = None;
        assert_eq!(one.difference(&other), ["artifact".to_owned(), format!("tests.{builder}")].into());
    }
}
