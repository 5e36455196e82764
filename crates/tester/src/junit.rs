//! The verdicts as JUnit XML: one suite for each builder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use manifest::{CheckOutcome, TestedCheck, Verdict};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

/// Writes the verdicts, by builder, to `file`.
pub(crate) fn write(file: &Path, component: &str, verdicts: &BTreeMap<&String, Verdict>) -> Result<()> {
    let doing = || format!("writing {}", file.display());
    let text = report(component, verdicts).to_string().with_context(doing)?;
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory).with_context(doing)?;
    }
    fs::write(file, text).with_context(doing)
}

fn report(component: &str, verdicts: &BTreeMap<&String, Verdict>) -> Report {
    let mut report = Report::new(component);
    for (builder, verdict) in verdicts {
        let mut suite = TestSuite::new(builder.as_str());
        for check in &verdict.checks {
            suite.add_test_case(case(component, check));
        }
        suite.set_time(verdict.checks.iter().map(time).sum());
        report.add_test_suite(suite);
    }
    report
}

fn case(component: &str, check: &TestedCheck) -> TestCase {
    let mut status = match check.outcome {
        CheckOutcome::Passed => TestCaseStatus::success(),
        CheckOutcome::Failed => TestCaseStatus::non_success(NonSuccessKind::Failure),
        CheckOutcome::Skipped => TestCaseStatus::skipped(),
    };
    if let Some(message) = &check.message {
        status.set_message(message.as_str());
    }
    let mut case = TestCase::new(check.name.as_str(), status);
    // Jenkins groups by what stands before the last dot.
    case.set_classname(format!("{component}.{}", check.phase));
    case.set_time(time(check));
    case
}

fn time(check: &TestedCheck) -> Duration {
    Duration::from_millis(check.millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;
    use manifest::{Identity, Stamp};

    fn check(name: &str, outcome: CheckOutcome, message: Option<&str>) -> TestedCheck {
        let (name, message) = (name.to_owned(), message.map(str::to_owned));
        TestedCheck { phase: "booted".to_owned(), name, outcome, message, millis: 12 }
    }

    #[test]
    fn every_check_is_a_case_of_its_builders_suite() {
        let digest = Identity::sha256("0");
        let verdict = Verdict {
            stamp: Stamp::now("1", Timestamp::UNIX_EPOCH, digest.clone()),
            digest: digest.clone(),
            gossfile: digest,
            passed: false,
            boot_millis: 1,
            checks: vec![
                check("port tcp:80: listening", CheckOutcome::Passed, None),
                check("file <a>: mode", CheckOutcome::Failed, Some("expected \"0644\" \u{1b}[1m")),
                check("file <a>: owner", CheckOutcome::Skipped, Some("`exists` is false")),
            ],
        };
        let xml = report("hello", &[(&"hvm".to_owned(), verdict)].into()).to_string().unwrap();
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="hello" tests="3" skipped="1" failures="1" errors="0">
    <testsuite name="hvm" tests="3" skipped="1" errors="0" failures="1" time="0.036">
        <testcase name="port tcp:80: listening" classname="hello.booted" time="0.012"/>
        <testcase name="file &lt;a&gt;: mode" classname="hello.booted" time="0.012">
            <failure message="expected &quot;0644&quot; "/>
        </testcase>
        <testcase name="file &lt;a&gt;: owner" classname="hello.booted" time="0.012">
            <skipped message="`exists` is false"/>
        </testcase>
    </testsuite>
</testsuites>
"#;
        assert_eq!(xml, expected);
    }
}
