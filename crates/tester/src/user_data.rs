//! What cloud-init runs in the instance: it fetches the probe and starts it.

use std::time::Duration;

use anyhow::Result;
use provider::Offer;
use serde::Serialize;

/// Every image that has cloud-init has Python; not every one has curl.
const SCRIPT: &str = include_str!("start_probe.py");
/// On EC2 a console loses a line now and then, and a getty that starts discards what is on its way. Copies repair
/// each other; the instance is terminated as soon as one is whole.
const COPIES_ON_CONSOLE: &str = "4";

/// How the report comes out of the instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Via {
    /// On its serial console.
    #[default]
    Console,
    /// In a file, which AWS Systems Manager reads: its agent is in the image, and the instance profile lets it in.
    Ssm,
}

impl Via {
    /// What the instance writes its report to.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Console => "/dev/console",
            Self::Ssm => "/var/lib/kiln-probe/report",
        }
    }

    fn copies(self) -> &'static str {
        match self {
            Self::Console => COPIES_ON_CONSOLE,
            Self::Ssm => "1",
        }
    }
}

#[derive(Serialize)]
struct Task<'a> {
    probe: Object<'a>,
    gossfile: Object<'a>,
    /// Arguments of `probe run`.
    arguments: Vec<&'a str>,
    /// Where it is written why the probe could not be started.
    report: &'a str,
    /// How that line begins.
    failed: &'a str,
}

#[derive(Serialize)]
struct Object<'a> {
    url: &'a str,
    sha256: &'a str,
}

impl<'a> From<&'a Offer> for Object<'a> {
    fn from(offer: &'a Offer) -> Self {
        Self { url: &offer.url, sha256: offer.digest.as_str() }
    }
}

/// The script that starts the probe. Its report is marked with `nonce`, and is made when the system is
/// up or `boot` is over.
pub(crate) fn script(probe: &Offer, gossfile: &Offer, nonce: &str, boot: Duration, via: Via) -> Result<String> {
    let seconds = boot.as_secs().to_string();
    let marker = failure_marker(nonce);
    let task = Task {
        probe: probe.into(),
        gossfile: gossfile.into(),
        arguments: vec!["--nonce", nonce, "--wait-system", &seconds, "--console", via.path(), "--copies", via.copies()],
        report: via.path(),
        failed: &marker,
    };
    // Strings, lists and maps of JSON mean the same in Python.
    Ok(format!("#!/usr/bin/python3\nTASK = {}\n{SCRIPT}", serde_json::to_string_pretty(&task)?))
}

/// Why the probe could not be started, if the instance has written that.
pub(crate) fn failure<'a>(written: &'a str, nonce: &str) -> Option<&'a str> {
    let marker = failure_marker(nonce);
    written.lines().find_map(|line| Some(line.split_once(&marker)?.1.trim()))
}

fn failure_marker(nonce: &str) -> String {
    format!("@probe-not-started {nonce}:")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    use provider::ObjectDigest;

    fn offer(url: &str) -> Offer {
        Offer { url: url.to_owned(), digest: ObjectDigest::parse(&"a1".repeat(32)).unwrap() }
    }

    /// Python compiles it, and the values arrive in it as they were meant.
    #[test]
    fn the_script_is_python_and_fits_into_user_data() {
        let offer = offer("http://example.com/\"quoted\\ 'and ü'");
        let script = script(&offer, &offer, "n0-1", Duration::from_secs(60), Via::Console).unwrap();
        assert!(script.starts_with("#!/usr/bin/python3\n") && script.len() < 16 << 10);

        let mut file = tempfile::NamedTempFile::new().unwrap();
        let (task, _) = script.split_once("\nimport ").unwrap();
        let show = "import json\nprint(json.dumps([TASK['probe'], TASK['arguments']]))\n";
        write!(file, "{task}\n{show}").unwrap();
        let output = cli::Command::new("python3").arg(file.path()).run().unwrap();
        let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(shown[0]["url"], offer.url);
        assert_eq!(shown[0]["sha256"], offer.digest.as_str());
        assert_eq!(shown[1].as_array().unwrap()[..4], ["--nonce", "n0-1", "--wait-system", "60"]);

        std::fs::write(file.path(), script).unwrap();
        cli::Command::new("python3")
            .args(["-c", "import sys; compile(open(sys.argv[1]).read(), 'user-data', 'exec')"])
            .arg(file.path())
            .run()
            .unwrap();
    }

    #[test]
    fn a_failure_is_found_among_other_lines() {
        let console = "[  OK  ] Started cloud-final\r\n@probe-not-started n1: HTTP Error 404: Not Found\r\nlogin: ";
        assert_eq!(failure(console, "n1"), Some("HTTP Error 404: Not Found"));
        assert_eq!(failure(console, "n2"), None);
    }
}
