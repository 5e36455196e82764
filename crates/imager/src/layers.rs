//! Layer keys: equal keys mean that the same thing would be made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use manifest::{Identity, Isolation};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::explain::StepInputs;

/// Raised whenever the same inputs would come to another content.
const FORMAT: u32 = 2;

/// How many days old a layer may be unless the user says otherwise: its packages are as old as it is.
pub(crate) const MAX_AGE_DAYS: u32 = 7;

/// A number of days.
pub(crate) fn days(number: u32) -> Duration {
    Duration::from_secs(u64::from(number) * 24 * 3600)
}

/// The key at the bottom: the source image's digest, if there is one, and how its volume is set up.
pub(crate) fn root_key(source: Option<&Identity>, isolation: Isolation, builder: &serde_json::Value) -> String {
    key(
        &json!({ "format": FORMAT, "isolation": isolation, "source": source.map(|digest| &digest.value), "builder": builder }),
    )
}

/// The key of what a provisioner makes of its parent: its options, and every file that it can see.
pub(crate) fn next_key(parent: &str, inputs: &StepInputs) -> String {
    key(&json!({ "parent": parent, "inputs": inputs }))
}

fn key(inputs: &serde_json::Value) -> String {
    // serde_json keeps the members of an object sorted, so equal inputs are equal text.
    hex::encode(Sha256::digest(inputs.to_string()))
}

/// What is in a directory: names, and digests of types, modes and contents, but not of times.
pub(crate) fn digest_tree(directory: &Path) -> Result<BTreeMap<String, String>> {
    let mut tree = BTreeMap::new();
    for entry in walkdir::WalkDir::new(directory).min_depth(1) {
        let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
        let path = entry.path();
        let doing = || format!("hashing {}", path.display());
        let metadata = path.symlink_metadata().with_context(doing)?;
        let mut sha = Sha256::new();
        let executable = metadata.permissions().mode() & 0o111 != 0;
        sha.update([u8::from(metadata.is_dir()), u8::from(metadata.is_symlink()), u8::from(executable)]);
        if metadata.is_symlink() {
            sha.update(fs::read_link(path).with_context(doing)?.as_os_str().as_encoded_bytes());
        } else if metadata.is_file() {
            io::copy(&mut fs::File::open(path).with_context(doing)?, &mut HashWriter(&mut sha)).with_context(doing)?;
        }
        // Two names that are no text would be one in a lossy form.
        let name = path.strip_prefix(directory)?.as_os_str().as_encoded_bytes().escape_ascii().to_string();
        tree.insert(name, hex::encode(sha.finalize()));
    }
    Ok(tree)
}

struct HashWriter<'a>(&'a mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_depends_on_everything_below_it() {
        let root = root_key(Some(&Identity::sha256("digest")), Isolation::Boot, &json!({"a": 1}));
        let next = |parent: &str, stage: &str| {
            let files = [("script.sh".to_owned(), stage.to_owned())].into();
            next_key(parent, &StepInputs { kind: "shell".into(), options: BTreeMap::new(), files })
        };
        assert_eq!(next(&root, "s"), next(&root, "s"));
        assert_ne!(next(&root, "s"), next(&root, "t"));
        assert_ne!(next(&root, "s"), next(&root_key(None, Isolation::Boot, &json!({"a": 1})), "s"));
    }

    #[test]
    fn a_tree_is_told_by_names_modes_and_contents_and_not_by_times() {
        let make = |mode: u32, content: &str| {
            let directory = tempfile::tempdir().unwrap();
            fs::create_dir(directory.path().join("d")).unwrap();
            let file = directory.path().join("d/f");
            fs::write(&file, content).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            digest_tree(directory.path()).unwrap()
        };
        assert_eq!(make(0o644, "x"), make(0o644, "x"));
        assert_eq!(make(0o644, "x"), make(0o600, "x"), "ownership and umask of the host do not count");
        assert_ne!(make(0o644, "x"), make(0o755, "x"));
        assert_ne!(make(0o644, "x"), make(0o644, "y"));
    }
}
