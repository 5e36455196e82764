use super::*;
use crate::gossfile::schema::RESOURCE_TYPES;

fn results(text: &str) -> Vec<CheckResult> {
    run(&Gossfile::parse("goss.yaml", text).unwrap())
}

fn outcomes(text: &str) -> Vec<(String, Outcome)> {
    results(text).into_iter().map(|result| (result.property, result.outcome)).collect()
}

fn outcome(property: &str, outcome: Outcome) -> (String, Outcome) {
    (property.to_owned(), outcome)
}

use Outcome::{Failed, Passed, Skipped};

#[test]
fn a_file_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hello.txt");
    std::fs::write(&path, "hello\nworld\n").unwrap();
    std::os::unix::fs::symlink("hello.txt", directory.path().join("link")).unwrap();
    let text = format!(
        "file:
  {0}/hello.txt:
    exists: true
    filetype: file
    size: 12
    contents: [hello, '!goodbye', '/^wor/']
    md5: 0f723ae7f9bf07744445e93ac5595156
    sha256: 4a1e67f2fe1d1cc7b31d0ca2ec441da4778203a036a77da10344c85e24ff0f92
  {0}/link:
    exists: true
    filetype: symlink
    linked-to: hello.txt
    contents: [hello]
  {0}:
    exists: true
    filetype: directory
  {0}/none:
    exists: false
    mode: '0644'
",
        directory.path().display()
    );
    let results = results(&text);
    let failures: Vec<_> = results.iter().filter(|result| result.outcome == Failed).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    let last = results.last().unwrap();
    assert_eq!((last.outcome, last.message.as_deref()), (Skipped, Some("`exists` is false")));
}

#[test]
fn the_first_property_gates_the_others() {
    let text = "user: {no-such-user: {exists: true, uid: 0}}";
    assert_eq!(outcomes(text), [outcome("exists", Failed), outcome("uid", Skipped)]);
    let text = "command: {'exit 3': {exit-status: 0, stdout: [x]}}";
    assert_eq!(outcomes(text), [outcome("exit-status", Failed), outcome("stdout", Skipped)]);
    let text = "user: {root: {exists: true, uid: 1, home: /root, groups: [root]}}";
    let expected = [("exists", Passed), ("uid", Failed), ("home", Passed), ("groups", Passed)];
    assert_eq!(outcomes(text), expected.map(|(property, it)| outcome(property, it)));
}

#[test]
fn skip_looks_at_nothing() {
    let results = results("command: {'exit 3': {exit-status: 0, stdout: [x], skip: true}}");
    assert!(results.iter().all(|result| result.outcome == Skipped && result.found.is_null()));
}

#[test]
fn a_failed_command_says_why() {
    let results = results("command: {'echo one; echo no such thing >&2; exit 3': {exit-status: 0}}");
    assert_eq!(results[0].message.as_deref(), Some("expected to equal 0 (stderr: no such thing)"));
    assert_eq!(results[0].found, 3);
}

#[test]
fn a_slow_command_is_killed() {
    let results = results("command: {'sleep 60': {exit-status: 0, timeout: 100}}");
    assert_eq!(results[0].message.as_deref(), Some("timed out after 100 ms and was killed"));
}

#[test]
fn a_command_is_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let flag = directory.path().join("flag");
    let text = format!(
        "command: {{again: {{exec: 'test -e {0} || {{ touch {0}; exit 1; }}', exit-status: 0, retry_count: 1, retry_delay: 1}}}}",
        flag.display()
    );
    assert_eq!(outcomes(&text), [outcome("exit-status", Passed)]);
}

#[test]
fn long_texts_are_cut() {
    let results = results("command: {'head -c 5000 /dev/zero | tr \"\\\\0\" ä': {exit-status: 0, stdout: [nothing]}}");
    let found = results[1].found.as_str().unwrap();
    assert!(found.len() < KEPT_OF_TEXT + 50 && found.ends_with("bytes)"), "{found}");
}

/// A property that a gossfile may name must be known where it is looked up.
#[test]
fn every_property_can_be_found_out() {
    for schema in &RESOURCE_TYPES {
        let id = match schema.name {
            "file" => "/etc/passwd",
            "user" | "group" => "root",
            "port" => "tcp:1",
            "http" => "http://127.0.0.1:1/",
            _ => "true",
        };
        let properties: Vec<String> = schema.properties.iter().map(|(name, _)| format!("{name}: {{not: x}}")).collect();
        let text = format!("{}: {{'{id}': {{{}}}}}", schema.name, properties.join(", "));
        let gossfile = Gossfile::parse("goss.yaml", &text).unwrap();
        let facts = Facts::gather(&gossfile.resources[0]);
        for (property, _) in schema.properties {
            if let Err(why) = facts.property(property) {
                assert_ne!(why, unknown(property), "{}", schema.name);
            }
        }
    }
}

/// A report may end up anywhere that a console log does.
#[test]
fn the_contents_of_a_file_are_never_reported() {
    let results = results("file: {/etc/passwd: {exists: true, contents: [root, no such line]}}");
    assert_eq!(results[1].message.as_deref(), Some("no line has `no such line`"));
    assert_eq!(results[1].found, Value::Null);
}
