//! Where the packages of a base image come from: where this machine's own come from.

use anyhow::Result;
use cli::Command;

/// The fields of `apt-get indextargets` that [`parse`] reads.
const FORMAT: &str = "$(REPO_URI)|$(CODENAME)|$(COMPONENT)|$(LABEL)";

/// Sources for `suite`, as lines that mmdebstrap takes in place of a mirror.
///
/// A host that is no Debian has none; mmdebstrap then has its own default.
pub(crate) fn sources(suite: &str) -> Result<Vec<String>> {
    let asked = Command::new("apt-get")
        .args(["indextargets", "--format", FORMAT, "Created-By: Packages", "Origin: Debian"])
        .ask()?;
    Ok(parse(&asked.text(), suite))
}

fn parse(targets: &str, suite: &str) -> Vec<String> {
    let mut sources = Vec::new();
    for line in targets.lines() {
        let [uri, codename, component, label] = line.split('|').collect::<Vec<_>>()[..] else { continue };
        let own = codename.split('-').next().unwrap_or_default();
        // The main repository has every suite; updates and security fit the host's own suite only.
        let wanted = if own == suite {
            codename.to_owned()
        } else if label == "Debian" && codename == own {
            suite.to_owned()
        } else {
            continue;
        };
        let source = format!("deb {uri} {wanted} {component}");
        if component == "main" && !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "http://mirror.example/debian/|bookworm|main|Debian\n\
        http://mirror.example/debian/|bookworm|contrib|Debian\n\
        http://mirror.example/debian/|bookworm-updates|main|Debian\n\
        http://mirror.example/debian-security/|bookworm-security|main|Debian-Security\n";

    #[test]
    fn the_hosts_suite_comes_with_its_updates() {
        assert_eq!(
            parse(TARGETS, "bookworm"),
            [
                "deb http://mirror.example/debian/ bookworm main",
                "deb http://mirror.example/debian/ bookworm-updates main",
                "deb http://mirror.example/debian-security/ bookworm-security main",
            ]
        );
    }

    #[test]
    fn another_suite_comes_from_the_same_mirror() {
        assert_eq!(parse(TARGETS, "trixie"), ["deb http://mirror.example/debian/ trixie main"]);
        assert!(parse("", "trixie").is_empty());
    }
}
