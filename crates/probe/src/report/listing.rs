//! A report for people, after goss' `documentation` output.

use std::fmt::{self, Write};

use serde_json::Value;

use super::Report;
use crate::checks::{CheckResult, Outcome};

/// The report as text: every check below its resource, then failures and what was
/// skipped with reasons, then the count.
pub fn listing(report: &Report) -> String {
    let mut text = String::new();
    write(report, &mut text).expect("writing to a string does not fail");
    text
}

fn write(report: &Report, out: &mut impl Write) -> fmt::Result {
    if let Some(error) = &report.error {
        return writeln!(out, "Nothing was checked: {error}");
    }
    let mut resource = None;
    for check in &report.checks {
        let this = (&check.resource_type, &check.resource_id);
        if resource.replace(this) != Some(this) {
            let title = check.title.as_ref().map(|title| format!(" ({title})")).unwrap_or_default();
            writeln!(out, "{}: {}{title}", check.resource_type, one_line(&check.resource_id))?;
        }
        let mark = match check.outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "skipped",
        };
        writeln!(out, "    {mark:<8} {}", check.property)?;
    }
    section(report, Outcome::Failed, "Failures", out)?;
    section(report, Outcome::Skipped, "Skipped", out)?;
    if let Some(system) = &report.system_state {
        write!(out, "\nSystem: {}", system.state)?;
        if !system.failed_units.is_empty() {
            write!(out, ", failed units: {}", system.failed_units.join(", "))?;
        }
        writeln!(out)?;
    }
    let Report { passed, failed, skipped, seconds, .. } = report;
    writeln!(
        out,
        "\n{} checks: {passed} passed, {failed} failed, {skipped} skipped, in {seconds:.2} s",
        report.checks.len()
    )
}

fn section(report: &Report, outcome: Outcome, heading: &str, out: &mut impl Write) -> fmt::Result {
    let checks: Vec<&CheckResult> = report.checks.iter().filter(|check| check.outcome == outcome).collect();
    if checks.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{heading}:")?;
    for check in checks {
        let message = check.message.as_deref().unwrap_or("no reason given");
        writeln!(out, "\n  {} {}: {}: {message}", check.resource_type, one_line(&check.resource_id), check.property)?;
        if outcome == Outcome::Failed {
            writeln!(out, "    expected  {}", shown(&check.expected))?;
            if !check.found.is_null() {
                writeln!(out, "    found     {}", shown(&check.found))?;
            }
        }
    }
    Ok(())
}

/// JSON keeps a text of many lines on one, and shows its white space.
fn shown(value: &Value) -> String {
    value.to_string()
}

/// A command may be a script.
fn one_line(id: &str) -> String {
    let mut lines = id.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first} …") } else { first.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::SystemState;
    use std::time::{Duration, UNIX_EPOCH};

    fn check(resource_id: &str, property: &str, outcome: Outcome, message: Option<&str>) -> CheckResult {
        CheckResult {
            resource_type: "file".to_owned(),
            resource_id: resource_id.to_owned(),
            property: property.to_owned(),
            title: None,
            outcome,
            expected: "0644".into(),
            found: "0600".into(),
            message: message.map(str::to_owned),
            duration_ms: 0,
        }
    }

    #[test]
    fn reads_well() {
        let checks = vec![
            CheckResult {
                title: Some("who is who".to_owned()),
                ..check("/etc/passwd", "exists", Outcome::Passed, None)
            },
            check("/etc/passwd", "mode", Outcome::Failed, Some("expected to equal \"0644\"")),
            check("/a\n/b", "exists", Outcome::Skipped, Some("the gossfile says `skip: true`")),
        ];
        let state = SystemState { state: "degraded".to_owned(), failed_units: vec!["hello.service".to_owned()] };
        let report = Report::new(UNIX_EPOCH, Duration::from_millis(1234), Some(state), checks);
        let expected = "\
file: /etc/passwd (who is who)
    ok       exists
    FAILED   mode
file: /a …
    skipped  exists

Failures:

  file /etc/passwd: mode: expected to equal \"0644\"
    expected  \"0644\"
    found     \"0600\"

Skipped:

  file /a …: exists: the gossfile says `skip: true`

System: degraded, failed units: hello.service

3 checks: 1 passed, 1 failed, 1 skipped, in 1.23 s
";
        assert_eq!(listing(&report), expected);
    }
}
