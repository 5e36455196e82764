use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::checks::{CheckResult, Outcome};

const NONCE: &str = "b7c1-42";

fn report(checks: usize) -> Report {
    let check = |number: usize| CheckResult {
        resource_type: "file".to_owned(),
        resource_id: format!("/etc/file-{number}"),
        property: "exists".to_owned(),
        title: None,
        outcome: Outcome::Passed,
        expected: true.into(),
        found: true.into(),
        message: None,
        duration_ms: number as u64,
    };
    Report::new(UNIX_EPOCH, Duration::from_millis(1500), None, (0..checks).map(check).collect())
}

fn sent() -> String {
    let text = frame(&report(40), NONCE);
    assert!(text.lines().count() > 8, "a frame of several lines");
    text
}

/// The frame with `change` made to its line `number`; 1 is the first marked one.
fn changed(number: usize, change: impl Fn(&str) -> String) -> String {
    sent()
        .lines()
        .enumerate()
        .map(|(index, line)| if index == number { change(line) } else { line.to_owned() } + "\n")
        .collect()
}

#[test]
fn there_and_back() {
    for checks in [0, 1, 40] {
        assert_eq!(unframe(&frame(&report(checks), NONCE), NONCE), Ok(Some(report(checks))));
    }
}

#[test]
fn lines_are_short() {
    let text = frame(&report(40), &"n".repeat(MAX_NONCE));
    assert!(text.lines().all(|line| line.len() <= 900));
}

#[test]
fn not_there_yet() {
    let text = sent();
    assert_eq!(unframe("", NONCE), Ok(None));
    assert_eq!(unframe("login: ", NONCE), Ok(None));
    for length in (0..text.len() - 70).step_by(97) {
        assert_eq!(unframe(&text[..length], NONCE), Ok(None), "{length}");
    }
}

#[test]
fn a_report_is_whole_before_its_last_line() {
    let text = sent();
    let end = text.rfind(MARKER).unwrap();
    assert_eq!(unframe(&text[..end], NONCE), Ok(Some(report(40))));
}

#[test]
fn another_nonce_is_another_report() {
    assert_eq!(unframe(&sent(), "b7c1-43"), Ok(None));
    assert_eq!(unframe(&sent(), "b7c1"), Ok(None));
    let both = format!("{}{}", frame(&report(3), "old"), sent());
    assert_eq!(unframe(&both, NONCE), Ok(Some(report(40))));
}

#[test]
fn carriage_returns_prefixes_and_foreign_lines() {
    let text: String = sent()
        .lines()
        .enumerate()
        .map(|(index, line)| format!("[{index:>5}.123456] probe[412]: {line}\r\n[    9.000001] eth0: link up\r\n"))
        .collect();
    assert_eq!(unframe(&text, NONCE), Ok(Some(report(40))));
}

#[test]
fn a_message_behind_a_line_does_no_harm() {
    for gap in ["", " "] {
        let text = changed(4, |line| format!("{line}{gap}[    9.000001] eth0: link up"));
        assert_eq!(unframe(&text, NONCE), Ok(Some(report(40))));
    }
}

#[test]
fn a_message_within_a_line_is_seen() {
    let text = changed(4, |line| format!("{}[    9.000001] eth0: link up\n{}", &line[..300], &line[300..]));
    let error = unframe(&text, NONCE).unwrap_err();
    let FrameError::Corrupted { good, lines } = error else { panic!("{error}") };
    assert_eq!(good + 1, lines);
}

#[test]
fn a_letter_that_changed_is_seen() {
    let text = changed(3, |line| {
        format!("{}{}{}", &line[..200], if &line[200..201] == "A" { "B" } else { "A" }, &line[201..])
    });
    assert!(matches!(unframe(&text, NONCE), Err(FrameError::Corrupted { .. })));
}

#[test]
fn copies_repair_each_other() {
    let lost_first = changed(1, |_| String::new());
    assert_eq!(unframe(&lost_first, NONCE), Ok(Some(report(40))), "the last line says the same as the first");
    let lost_third = changed(3, |_| String::new());
    let lost_fifth = changed(5, |line| line[..100].to_owned());
    assert!(unframe(&lost_third, NONCE).is_err());
    assert_eq!(unframe(&format!("{lost_third}{lost_fifth}"), NONCE), Ok(Some(report(40))));
    assert_eq!(unframe(&sent().repeat(3), NONCE), Ok(Some(report(40))));
}

#[test]
fn the_first_whole_report_counts() {
    let text = format!("{}{}{}", changed(3, |_| String::new()), frame(&report(2), NONCE), frame(&report(5), NONCE));
    assert_eq!(unframe(&text, NONCE), Ok(Some(report(2))));
}

#[test]
fn the_console_keeps_only_its_end() {
    let text = sent().repeat(2);
    assert_eq!(unframe(&text[text.len() / 3..], NONCE), Ok(Some(report(40))));
}

#[test]
fn another_version_is_refused() {
    let newer = Report { schema_version: SCHEMA_VERSION + 1, ..report(1) };
    let error = unframe(&frame(&newer, NONCE), NONCE).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the report on the console cannot be read (it is of schema version 2, not 1): \
         use the probe of the same version as the tester"
    );
}

#[test]
fn nonces() {
    assert!(is_nonce(NONCE));
    for text in ["", "a b", "a@probe", &"n".repeat(65)] {
        assert!(!is_nonce(text), "{text}");
    }
}
