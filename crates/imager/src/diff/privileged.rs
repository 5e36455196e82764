//! Files that give rights to who runs them.

use super::changes::FileChange;
use super::model::{Privileged, PrivilegedFile, Rights};

/// Which of the changes give rights, take them, or alter what has them.
pub(super) fn between(changes: &[FileChange]) -> Privileged {
    let mut found = Privileged::default();
    for change in changes {
        let listed = |rights: &Rights| PrivilegedFile {
            path: change.entry().path.to_string_lossy().into_owned(),
            rights: rights.clone(),
        };
        let (old, new) = match change {
            FileChange::Added(lone) => (None, lone.rights.as_ref()),
            FileChange::Removed(lone) => (lone.rights.as_ref(), None),
            FileChange::Changed(both) => both.rights(),
        };
        match (old, new, change) {
            (Some(old), Some(new), FileChange::Changed(both)) => {
                found.changed.push(both.privileged_change(old, new));
            }
            (None, Some(new), _) => found.added.push(listed(new)),
            (Some(old), None, _) => found.removed.push(listed(old)),
            _ => {}
        }
    }
    found
}
