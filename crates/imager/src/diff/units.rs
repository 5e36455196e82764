//! Which units are enabled and masked, from the links that systemctl makes.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use rustix::fs::FileType;

use super::model::{EnabledUnit, Units};
use super::tree::{Entry, Tree};

/// Where the administrator's units and links are (systemd.unit(5)).
pub(super) const SYSTEM: &str = "/etc/systemd/system";

/// How directories end whose links let a unit pull in others (systemd.unit(5)).
pub(super) const PULLING_IN: [&str; 3] = [".wants", ".requires", ".upholds"];

/// What an image's systemd was told of its units.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) enabled: BTreeSet<EnabledUnit>,
    pub(super) masked: BTreeSet<String>,
}

impl State {
    /// Reads the links in `/etc/systemd/system`.
    pub(super) fn of(tree: &Tree) -> Result<Self> {
        let mut state = Self { enabled: pulled_in(tree, SYSTEM).collect(), masked: BTreeSet::new() };
        for entry in tree.below(Path::new(SYSTEM)).filter(|entry| entry.path.parent() == Some(Path::new(SYSTEM))) {
            if is_mask(tree, entry)? {
                state.masked.insert(name(entry));
            }
        }
        Ok(state)
    }
}

/// The units that links in `directory` let others pull in.
pub(super) fn pulled_in<'a>(tree: &'a Tree, directory: &'a str) -> impl Iterator<Item = EnabledUnit> + 'a {
    let links = tree.below(Path::new(directory)).filter(|entry| entry.file_type == FileType::Symlink);
    links.filter_map(|link| {
        let by = link.path.parent()?.file_name()?.to_string_lossy();
        let by = PULLING_IN.iter().find_map(|kind| by.strip_suffix(kind))?;
        Some(EnabledUnit { unit: name(link), by: by.to_owned() })
    })
}

/// systemd takes a link to /dev/null for a mask, and an empty file as well (systemd.unit(5)).
fn is_mask(tree: &Tree, entry: &Entry) -> Result<bool> {
    let empty = entry.file_type == FileType::RegularFile && entry.size == 0;
    Ok(empty || tree.target(entry)?.is_some_and(|target| target == Path::new("/dev/null")))
}

fn name(entry: &Entry) -> String {
    entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What was enabled, disabled, masked and unmasked.
pub(super) fn between(old: &State, new: &State) -> Units {
    Units {
        enabled: new.enabled.difference(&old.enabled).cloned().collect(),
        disabled: old.enabled.difference(&new.enabled).cloned().collect(),
        masked: new.masked.difference(&old.masked).cloned().collect(),
        unmasked: old.masked.difference(&new.masked).cloned().collect(),
    }
}
