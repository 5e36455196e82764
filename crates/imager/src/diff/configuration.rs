//! Configuration files that are not as their packages have them.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use anyhow::Result;
use md5::{Digest, Md5};

use super::changes::FileChange;
use super::tree::Tree;

/// What of the changes is configuration of a package, with other content than the package's own.
///
/// dpkg notes the MD5 digest of each configuration file that it installs (`Conffiles` of its status file).
pub(super) fn altered(changes: &[FileChange], new: &Tree) -> Result<HashSet<PathBuf>> {
    let status = new.text("/var/lib/dpkg/status")?;
    let shipped = parse_conffiles(&status);
    let mut found = HashSet::new();
    for change in changes.iter().filter(|change| !matches!(change, FileChange::Removed(_))) {
        let path = &change.entry().path;
        let Some(digest) = path.to_str().and_then(|path| shipped.get(path)) else { continue };
        let content = new.read(path)?.unwrap_or_default();
        if hex::encode(Md5::digest(content)) != *digest {
            found.insert(path.clone());
        }
    }
    Ok(found)
}

/// The digests of all packages' configuration files by their paths.
///
/// A line is ` /etc/hosts.allow <digest>`, with a remark such as `obsolete` after it where the package has it no
/// more. Where dpkg has not installed one yet, `newconffile` stands in the digest's place.
fn parse_conffiles(status: &str) -> HashMap<&str, &str> {
    let mut found = HashMap::new();
    let mut among_them = false;
    for line in status.lines() {
        if !line.starts_with(' ') {
            among_them = line.trim_end() == "Conffiles:";
            continue;
        }
        let mut words = line.split_whitespace();
        if let (true, Some(path), Some(digest)) = (among_them, words.next(), words.next())
            && digest.len() == 32
        {
            found.insert(path, digest);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_conffiles_field() {
        let status = "Package: a\nConffiles:\n /etc/a 775bc5fe09d21972b715aade8cb391c1\n /etc/b newconffile\n\
                      \x20/etc/c d41d8cd98f00b204e9800998ecf8427e obsolete\nDescription: some\n /etc/d of a package\n";
        let found = parse_conffiles(status);
        assert_eq!(found.len(), 2);
        assert_eq!(found["/etc/c"], "d41d8cd98f00b204e9800998ecf8427e");
    }
}
