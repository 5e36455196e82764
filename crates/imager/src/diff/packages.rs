//! Which packages are installed, from dpkg's status file.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use anyhow::Result;
use debversion::Version;

use super::model::{Change, MovedPackage, Package, Packages, Tally};
use super::tree::Tree;

/// A package that is installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) architecture: String,
    pub(super) version: String,
}

/// The installed packages by the names that dpkg gives them.
pub(super) type Names = BTreeMap<String, Installed>;

/// The packages of an image; none where there is no dpkg.
pub(super) fn installed(tree: &Tree) -> Result<Names> {
    Ok(parse_status(&tree.text("/var/lib/dpkg/status")?))
}

/// Reads dpkg's status file, which is in the form of deb822(5).
///
/// A package is installed unless its state (the third word of `Status`, dpkg(1)) says that at most its
/// configuration is there. One that is `Multi-Arch: same` has its architecture in its name, as in the names of
/// dpkg's own files.
pub(super) fn parse_status(text: &str) -> Names {
    text.split("\n\n").filter_map(parse_stanza).collect()
}

fn parse_stanza(stanza: &str) -> Option<(String, Installed)> {
    let field = |name: &str| {
        stanza.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    };
    let state = field("Status")?.split_whitespace().nth(2)?;
    if matches!(state, "not-installed" | "config-files") {
        return None;
    }
    let architecture = field("Architecture").unwrap_or_default().to_owned();
    let name = match field("Multi-Arch") {
        Some("same") => format!("{}:{architecture}", field("Package")?),
        _ => field("Package")?.to_owned(),
    };
    Some((name, Installed { architecture, version: field("Version")?.to_owned() }))
}

/// Which packages came, went, or are of another version.
pub(super) fn between(old: &Names, new: &Names) -> Packages {
    let mut found = Packages::default();
    let listed = |name: &String, package: &Installed| Package {
        name: name.clone(),
        architecture: package.architecture.clone(),
        version: package.version.clone(),
        files: Tally::default(),
    };
    found.removed.extend(old.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(name, it)| listed(name, it)));
    for (name, package) in new {
        let Some(before) = old.get(name) else {
            found.added.push(listed(name, package));
            continue;
        };
        let moved = MovedPackage {
            name: name.clone(),
            architecture: package.architecture.clone(),
            version: Change { from: before.version.clone(), to: package.version.clone() },
            files: Tally::default(),
        };
        match compare(&before.version, &package.version) {
            Ordering::Less => found.upgraded.push(moved),
            Ordering::Greater => found.downgraded.push(moved),
            Ordering::Equal => {}
        }
    }
    found
}

/// Compares by Debian's rules (deb-version(7)). What is no version by these is compared as text: dpkg has
/// installed it, so it is worth a line.
fn compare(one: &str, other: &str) -> Ordering {
    match (one.parse::<Version>(), other.parse::<Version>()) {
        (Ok(one), Ok(other)) => one.cmp(&other),
        _ => one.cmp(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "\
Package: adduser
Status: install ok installed
Priority: important
Architecture: all
Multi-Arch: foreign
Version: 3.134
Depends: passwd
Conffiles:
 /etc/deluser.conf 775bc5fe09d21972b715aade8cb391c1
Description: add and remove users
 Version: this line belongs to the description

Package: libc6
Status: install ok half-configured
Architecture: amd64
Multi-Arch: same
Version: 2.36-9+deb12u10

Package: nginx-common
Status: deinstall ok config-files
Architecture: all
Version: 1.22.1-9
";

    #[test]
    fn a_package_is_installed_unless_only_its_configuration_is_there() {
        let names = parse_status(STATUS);
        let shown: Vec<_> =
            names.iter().map(|(name, it)| format!("{name} {} {}", it.version, it.architecture)).collect();
        assert_eq!(shown, ["adduser 3.134 all", "libc6:amd64 2.36-9+deb12u10 amd64"]);
        assert!(parse_status("").is_empty());
    }

    #[test]
    fn versions_are_compared_as_dpkg_does() {
        // From dpkg's own rules (deb-version(7)).
        for (less, greater) in [
            ("1.0~beta5", "1.0"),
            ("1.0", "1.0-1"),
            ("1.9", "1.10"),
            ("1.0-1", "1.0-1+deb12u1"),
            ("2.36-9+deb12u9", "2.36-9+deb12u10"),
            ("9.9", "1:0.1"),
            ("1.0a", "1.0+"),
            ("1.0~~", "1.0~~a"),
            ("20230311", "20230311+deb12u1"),
        ] {
            assert_eq!(compare(less, greater), Ordering::Less, "{less} {greater}");
            assert_eq!(compare(greater, less), Ordering::Greater, "{greater} {less}");
        }
        for (one, other) in [("1.0", "0:1.0"), ("1.0-0", "1.0"), ("1.01", "1.1")] {
            assert_eq!(compare(one, other), Ordering::Equal, "{one} {other}");
        }
        assert_eq!(compare("1_0", "1_1"), Ordering::Less);
    }

    #[test]
    fn packages_come_and_go_and_move() {
        let names = |list: &[(&str, &str)]| -> Names {
            let installed = |version: &str| Installed { architecture: "all".into(), version: version.into() };
            list.iter().map(|(name, version)| ((*name).to_owned(), installed(version))).collect()
        };
        let found = between(
            &names(&[("down", "2"), ("gone", "1"), ("same", "1"), ("up", "1.9")]),
            &names(&[("down", "1"), ("new", "1"), ("same", "1"), ("up", "1.10")]),
        );
        assert_eq!((found.added[0].name.as_str(), found.removed[0].name.as_str()), ("new", "gone"));
        assert_eq!((found.upgraded[0].name.as_str(), found.downgraded[0].name.as_str()), ("up", "down"));
        assert_eq!([found.added.len(), found.removed.len(), found.upgraded.len(), found.downgraded.len()], [1; 4]);
    }
}
