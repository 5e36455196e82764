//! Copies of the journal, in tags of the groups that it is about: for people who look at a group, and for a service whose
//! journal somebody removed, or whose rollout has more entries than Parameter Store keeps versions.
//!
//! A copy is one JSON array, cut into as many tags as it needs.

use anyhow::Result;
use aws_sdk_autoscaling::types::AutoScalingGroup;
use jiff::Timestamp;
use serde_json::{Deserializer, Value};

use super::groups::tag;
use crate::aws::Aws;
use crate::aws::failure::Explain;

/// Tags of a group with a part of a copy: this and the part's number, from 1.
pub const JOURNAL: &str = "kiln:journal-";
/// Most characters that a tag's value has ("Tag Auto Scaling groups and instances").
const LENGTH: usize = 256;

/// The call by which a copy is written, in words.
pub fn copying(groups: &[&str]) -> String {
    format!("autoscaling:CreateOrUpdateTags {} journal", groups.join(" "))
}

/// The copy with a group. One that is cut off, or that somebody changed, is none.
pub fn copy_in(group: &AutoScalingGroup) -> Option<Vec<Value>> {
    let part = |tag: &aws_sdk_autoscaling::types::TagDescription| {
        let number = tag.key()?.strip_prefix(JOURNAL)?.parse::<usize>().ok()?;
        Some((number, tag.value()?.to_owned()))
    };
    joined(group.tags().iter().filter_map(part).collect())
}

/// The journal with what it has lost: what copies say of the time before it.
pub fn with_copies(journal: Vec<Value>, mut copies: Vec<Value>) -> Vec<Value> {
    let at = |entry: &Value| entry["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
    if let Some(first) = journal.first().map(at) {
        copies.retain(|entry| at(entry) < first);
    }
    copies.sort_by_key(at);
    // Both groups of a rollout have one.
    copies.dedup();
    copies.into_iter().chain(journal).collect()
}

/// The entries as values of tags.
fn parts(entries: &[Value]) -> Result<Vec<String>> {
    // A value may neither begin nor end with a space, and none stands between the words of our JSON.
    let text: Vec<_> = serde_json::to_string(entries)?.replace(' ', "\\u0020").chars().collect();
    Ok(text.chunks(LENGTH).map(String::from_iter).collect())
}

/// The entries that parts with these numbers have. After the end of the array there may be some of a longer one, which
/// stood there before.
fn joined(mut parts: Vec<(usize, String)>) -> Option<Vec<Value>> {
    parts.sort_unstable();
    let text = String::from_iter(parts.into_iter().map(|(_, part)| part));
    Deserializer::from_str(&text).into_iter().next()?.ok()
}

impl Aws {
    /// Writes a copy to each of the groups, in one call.
    pub(super) async fn copy_to(&self, groups: &[&str], entries: &[Value]) -> Result<()> {
        if groups.is_empty() {
            return Ok(());
        }
        let parts = parts(entries)?;
        let tags = groups.iter().flat_map(|group| {
            (1..).zip(&parts).map(|(number, part)| tag(group, &format!("{JOURNAL}{number}"), part, false))
        });
        let copied = self.groups.create_or_update_tags().set_tags(Some(tags.collect())).send().await;
        copied.doing("autoscaling:CreateOrUpdateTags", || format!("tagging {} with it", groups.join(" and "))).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(seconds: std::ops::Range<u32>) -> Vec<Value> {
        seconds.map(|second| json!({"at": format!("2026-01-01T00:00:{second:02}Z"), "event": "sh i ft"})).collect()
    }

    fn numbered(parts: Vec<String>) -> Vec<(usize, String)> {
        (1..).zip(parts).collect()
    }

    #[test]
    fn a_copy_is_read_as_it_was_written_also_over_a_longer_one() {
        let long = parts(&entries(0..50)).unwrap();
        assert!(long.len() > 9 && long.iter().all(|part| part.len() <= LENGTH && !part.contains(' ')), "{long:?}");
        let mut tags = numbered(long.clone());
        tags.reverse();
        assert_eq!(joined(tags), Some(entries(0..50)));
        let mut over = long.clone();
        for (old, new) in over.iter_mut().zip(parts(&entries(50..57)).unwrap()) {
            *old = new;
        }
        assert_eq!(joined(numbered(over)), Some(entries(50..57)));
        assert_eq!(joined(numbered(long[..3].to_vec())), None);
        assert_eq!(joined(Vec::new()), None);
    }

    #[test]
    fn copies_fill_in_what_the_journal_has_lost() {
        let copies = || [entries(3..6), entries(3..6), entries(0..3)].concat();
        assert_eq!(with_copies(Vec::new(), copies()), entries(0..6));
        assert_eq!(with_copies(entries(4..9), copies()), entries(0..9));
        assert_eq!(with_copies(entries(0..9), copies()), entries(0..9));
    }
}
