//! Keys and values as the agent last heard of them.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// Keys with their values. Both are shared with what is made from them: a file may be made from thousands.
pub type Map = BTreeMap<Arc<str>, Content>;

/// A value of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text in UTF-8, which a template can show.
    Text(Arc<str>),
    /// Anything else.
    Binary,
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        std::str::from_utf8(&bytes).map_or(Self::Binary, |text| Self::Text(text.into()))
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

/// Which keys of the store a file is made from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// One key.
    Key(String),
    /// All keys below this one, which ends with a slash: `/host/` has nothing to do with `/hostname`.
    Below(String),
}

impl Selector {
    /// All keys below `prefix`, with or without a slash behind it.
    pub fn below(prefix: &str) -> Self {
        Self::Below(format!("{}/", prefix.trim_end_matches('/')))
    }

    /// Whether `key` is one of these.
    pub fn has(&self, key: &str) -> bool {
        match self {
            Self::Key(own) => own == key,
            Self::Below(prefix) => key.starts_with(prefix),
        }
    }

    /// The key or the prefix.
    pub fn text(&self) -> &str {
        let (Self::Key(text) | Self::Below(text)) = self;
        text
    }
}

/// The fewest selectors that have the same keys: no key is followed twice.
pub fn fewest(mut selectors: Vec<Selector>) -> Vec<Selector> {
    // In the order of their text, whatever has others below it comes before them.
    selectors.sort_by(|a, b| a.text().cmp(b.text()).then_with(|| b.cmp(a)));
    let mut kept: Vec<Selector> = Vec::new();
    // Keys such as `/a.b` may stand between `/a/` and what is below it, so the last prefix is remembered.
    let mut prefix: Option<String> = None;
    for selector in selectors {
        let covered = prefix.as_deref().is_some_and(|prefix| selector.text().starts_with(prefix));
        if covered || kept.last() == Some(&selector) {
            continue;
        }
        if let Selector::Below(own) = &selector {
            prefix = Some(own.clone());
        }
        kept.push(selector);
    }
    kept
}

/// What a store tells.
#[derive(Debug)]
pub enum Update {
    /// All that is selected, as it is at `revision`.
    Listing {
        /// The keys and values.
        values: Map,
        /// The store's own name for this state.
        revision: String,
    },
    /// All that one selector has.
    Part {
        /// The selector.
        selector: Selector,
        /// Its keys and values.
        values: Map,
        /// The store's own name for this state.
        revision: String,
    },
    /// What has changed; `None` for a key that was deleted.
    Changes {
        /// The changes, in order.
        changes: Vec<(Arc<str>, Option<Content>)>,
        /// The store's own name for the state after them.
        revision: String,
    },
    /// The store does not answer; why. It is tried again.
    Lost(String),
}

/// The agent's copy of what it follows.
#[derive(Debug, Default)]
pub struct Values {
    map: Map,
    revision: String,
}

impl Values {
    /// A copy as it was at `revision`.
    pub fn new(map: Map, revision: String) -> Self {
        Self { map, revision }
    }

    /// Takes over what the store tells, and gives the keys whose values are others now.
    pub fn take(&mut self, update: Update) -> Vec<Arc<str>> {
        let (changed, revision) = match update {
            Update::Listing { values, revision } => {
                let changed = differences(self.map.iter(), &values);
                self.map = values;
                (changed, revision)
            }
            Update::Part { selector, values, revision } => {
                let own = |key: &str| selector.has(key);
                let changed = differences(self.map.iter().filter(|(key, _)| own(key)), &values);
                self.map.retain(|key, _| !own(key));
                self.map.extend(values);
                (changed, revision)
            }
            Update::Changes { changes, revision } => {
                let mut changed = Vec::new();
                for (key, value) in changes {
                    if self.map.get(&key) == value.as_ref() {
                        continue;
                    }
                    match value {
                        Some(value) => _ = self.map.insert(key.clone(), value),
                        None => _ = self.map.remove(&key),
                    }
                    changed.push(key);
                }
                (changed, revision)
            }
            Update::Lost(_) => return Vec::new(),
        };
        self.revision = revision;
        changed
    }

    /// A key with its value.
    pub fn get(&self, key: &str) -> Option<(&Arc<str>, &Content)> {
        self.map.get_key_value(key)
    }

    /// The keys below a prefix that ends with a slash, each with its value.
    pub fn below<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a Arc<str>, &'a Content)> {
        let from = self.map.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The store's own name for this state.
    pub fn revision(&self) -> &str {
        &self.revision
    }
}

fn differences<'a>(before: impl Iterator<Item = (&'a Arc<str>, &'a Content)> + Clone, after: &Map) -> Vec<Arc<str>> {
    let gone_or_new = before.clone().filter(|(key, value)| after.get(*key) != Some(value)).map(|(key, _)| key.clone());
    let before: std::collections::BTreeSet<_> = before.map(|(key, _)| key).collect();
    let added = after.keys().filter(|key| !before.contains(key)).cloned();
    gone_or_new.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> Map {
        pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }

    fn key(text: &str) -> Selector {
        Selector::Key(text.to_owned())
    }

    #[test]
    fn a_prefix_ends_at_a_slash() {
        let host = Selector::below("/host");
        assert!(host.has("/host/a") && host.has("/host/a/b"));
        assert!(!host.has("/hostname") && !host.has("/host"));
        assert_eq!(host, Selector::below("/host/"));
    }

    #[test]
    fn no_key_is_followed_twice() {
        let all = vec![key("/a/b"), Selector::below("/a"), key("/a.b"), Selector::below("/a/c"), key("/b"), key("/b")];
        assert_eq!(fewest(all), [key("/a.b"), Selector::below("/a"), key("/b")]);
    }

    #[test]
    fn only_what_differs_has_changed() {
        let mut values = Values::new(map(&[("/a", "1"), ("/b/c", "2"), ("/d", "3")]), "1".into());
        let revision = || "2".to_owned();
        let changes = vec![("/a".into(), Some("1".into())), ("/d".into(), None), ("/e".into(), None)];
        assert_eq!(values.take(Update::Changes { changes, revision: revision() }), ["/d".into()]);
        let part =
            Update::Part { selector: Selector::below("/b"), values: map(&[("/b/x", "2")]), revision: revision() };
        assert_eq!(values.take(part), ["/b/c".into(), "/b/x".into()]);
        let listing = Update::Listing { values: map(&[("/a", "2"), ("/b/x", "2")]), revision: revision() };
        assert_eq!(values.take(listing), ["/a".into()]);
        assert_eq!(values.below("/b/").collect::<Vec<_>>(), [(&"/b/x".into(), &"2".into())]);
    }
}
