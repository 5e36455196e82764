//! What is on a disk, file by file, seen by other programs than ours.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What differs between two builds of the same: moments, and what follows from them.
const OF_ITS_TIME: &[&str] = &[
    "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/extended_states",
    "var/log/alternatives.log",
    "var/log/apt/eipp.log.xz",
    "var/log/apt/history.log",
    "var/log/apt/term.log",
    "var/log/dpkg.log",
];

/// Every file of a partitioned disk's root: type, mode, owner, target, extended attributes, and digest of its content.
pub fn tree(disk: &Path) -> BTreeMap<String, String> {
    let mount = "set -e; mount -o ro,noload,loop,offset=134217728 \"$0\" /mnt; cd /mnt; ";
    let list = |list: &str| {
        let unshare = cli::Command::new("unshare").args(["--mount", "sh", "-c", &format!("{mount}{list}")]);
        unshare.arg(disk).run().unwrap().text()
    };
    let mut tree = BTreeMap::new();
    for line in list(r"find . -xdev -mindepth 1 -printf '%P\t%y %m %U:%G %l\n'").lines() {
        let (path, what) = line.split_once('\t').unwrap();
        tree.insert(path.to_owned(), what.trim_end().to_owned());
    }
    let digests = list("find . -xdev -type f -print0 | xargs --null sha256sum --zero --");
    for line in digests.split_terminator('\0') {
        let (digest, path) = line.split_once("  ./").unwrap();
        let entry = tree.get_mut(path).unwrap();
        *entry = format!("{entry} {}", &digest[..16]);
    }
    tree
}

/// What is in one and not in the other, or not the same in both.
pub fn differences(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    let differing = differing.filter(|name| !OF_ITS_TIME.contains(&name.as_str()));
    differing.map(|name| format!("{name}: {:?}, {:?}", a.get(name), b.get(name))).collect()
}
