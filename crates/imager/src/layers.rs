//! Layer keys: equal keys mean that the same thing would be made.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use manifest::Isolation;
use serde_json::json;
use sha2::{Digest, Sha256};

/// Raised whenever the same inputs would come to another content.
const FORMAT: u32 = 1;

/// How old a layer may be: its packages are as old as it is.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The key at the bottom: the source image and how its volume is set up.
pub(crate) fn root_key(source_digest: &str, isolation: Isolation, builder: &serde_json::Value) -> String {
    key(&json!({ "format": FORMAT, "isolation": isolation, "source": source_digest, "builder": builder }))
}

/// The key of what a provisioner makes of its parent: its options, and every file that it can see.
pub(crate) fn next_key(parent: &str, kind: &str, options: &serde_json::Value, stage: &str) -> String {
    key(&json!({ "parent": parent, "type": kind, "options": options, "stage": stage }))
}

fn key(inputs: &serde_json::Value) -> String {
    // serde_json keeps the members of an object sorted, so equal inputs are equal text.
    hex::encode(Sha256::digest(inputs.to_string()))
}

/// The digest of a directory: names, types, modes and contents, but no times.
pub(crate) fn digest_tree(directory: &Path) -> Result<String> {
    let mut sha = Sha256::new();
    for entry in walkdir::WalkDir::new(directory).sort_by_file_name() {
        let entry = entry.with_context(|| format!("reading {}", directory.display()))?;
        let path = entry.path();
        let doing = || format!("hashing {}", path.display());
        let metadata = path.symlink_metadata().with_context(doing)?;
        let name = path.strip_prefix(directory)?.as_os_str().as_encoded_bytes();
        let executable = metadata.permissions().mode() & 0o111 != 0;
        let content = if metadata.is_symlink() {
            let target = fs::read_link(path).with_context(doing)?;
            Sha256::digest(target.as_os_str().as_encoded_bytes())
        } else if metadata.is_file() {
            let mut content = Sha256::new();
            io::copy(&mut fs::File::open(path).with_context(doing)?, &mut HashWriter(&mut content))
                .with_context(doing)?;
            content.finalize()
        } else {
            Sha256::digest([])
        };
        let kind = [u8::from(metadata.is_dir()), u8::from(metadata.is_symlink()), u8::from(executable)];
        sha.update((name.len() as u64).to_le_bytes());
        sha.update(name);
        sha.update(kind);
        sha.update(content);
    }
    Ok(hex::encode(sha.finalize()))
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
        let root = root_key("digest", Isolation::Boot, &json!({"a": 1}));
        let next = |parent: &str, stage: &str| next_key(parent, "shell", &json!({"inline": ["true"]}), stage);
        assert_eq!(next(&root, "s"), next(&root, "s"));
        assert_ne!(next(&root, "s"), next(&root, "t"));
        assert_ne!(next(&root, "s"), next(&root_key("other", Isolation::Boot, &json!({"a": 1})), "s"));
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
