//! What enabled socket units listen on.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::model::{Listed, Socket};
use super::tree::Tree;
use super::units::{SYSTEM, State, pulled_in};

/// Where units are looked for, the first that has one first (systemd.unit(5)).
const UNIT_DIRECTORIES: &[&str] =
    &[SYSTEM, "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// All that is listened on by socket units that something pulls in.
pub(super) fn listening(tree: &Tree) -> Result<BTreeSet<Socket>> {
    let masked = State::of(tree)?.masked;
    let pulled_in = UNIT_DIRECTORIES.iter().flat_map(|directory| pulled_in(tree, directory));
    let units: BTreeSet<_> = pulled_in.map(|pulled_in| pulled_in.unit).collect();
    let mut found = BTreeSet::new();
    for unit in units.into_iter().filter(|unit| unit.ends_with(".socket") && !masked.contains(unit)) {
        for (kind, address) in listens(&whole_text(tree, &unit)?) {
            found.insert(Socket { unit: unit.clone(), kind, address });
        }
    }
    Ok(found)
}

pub(super) fn between(old: &BTreeSet<Socket>, new: &BTreeSet<Socket>) -> Listed<Socket> {
    Listed { added: new.difference(old).cloned().collect(), removed: old.difference(new).cloned().collect() }
}

/// The text of a unit with its drop-ins, in the order in which systemd reads them.
fn whole_text(tree: &Tree, unit: &str) -> Result<String> {
    // An instance of a template has the template's text unless it has one of its own.
    let template = unit.split_once('@').map(|(name, _)| format!("{name}@.socket"));
    let names: Vec<_> = std::iter::once(unit.to_owned()).chain(template).collect();
    let mut text = String::new();
    'found: for name in &names {
        for directory in UNIT_DIRECTORIES {
            if let Some(content) = tree.read(&Path::new(directory).join(name))? {
                text = String::from_utf8_lossy(&content).into_owned();
                break 'found;
            }
        }
    }
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    // Of two with the same name, the one in the directory that comes first counts.
    for directory in UNIT_DIRECTORIES.iter().rev() {
        for name in names.iter().rev() {
            let directory = Path::new(directory).join(format!("{name}.d"));
            for entry in tree.below(&directory).filter(|entry| entry.path.extension() == Some(OsStr::new("conf"))) {
                drop_ins.insert(entry.path.file_name().unwrap_or_default().to_owned(), entry.path.clone());
            }
        }
    }
    for path in drop_ins.values() {
        text.push('\n');
        text.push_str(&tree.text(path)?);
    }
    Ok(text)
}

/// The `Listen…` settings of a unit's text (systemd.socket(5)); an empty one takes back all of its kind.
fn listens(text: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut in_section = false;
    let mut continued = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(part) = line.strip_suffix('\\') {
            continued.push_str(part);
            continued.push(' ');
            continue;
        }
        let line = std::mem::take(&mut continued) + line;
        if line.starts_with('[') {
            in_section = line == "[Socket]";
        } else if let Some((key, value)) = line.split_once('=').filter(|_| in_section) {
            let (key, value) = (key.trim(), value.trim());
            if key.starts_with("Listen") && value.is_empty() {
                found.retain(|(kind, _)| kind != key);
            } else if key.starts_with("Listen") {
                found.push((key.to_owned(), value.to_owned()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_setting_takes_back_what_was_set() {
        let text = "[Unit]\nListenStream=not here\n[Socket]\n# ListenStream=1\nListenStream=22\nListenDatagram = \\\n  53\n\
                    Accept=yes\n[Install]\nWantedBy=sockets.target\n[Socket]\nListenStream=\nListenStream=[::]:2222\n";
        let found = listens(text);
        let found: Vec<_> = found.iter().map(|(kind, address)| (kind.as_str(), address.as_str())).collect();
        assert_eq!(found, [("ListenDatagram", "53"), ("ListenStream", "[::]:2222")]);
    }
}
