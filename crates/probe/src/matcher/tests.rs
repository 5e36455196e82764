use serde_json::json;

use super::*;
use crate::gossfile::schema::Shape;
use crate::gossfile::yaml;

fn matcher(shape: Shape, yaml: &str) -> Matcher {
    let node = yaml::parse(yaml).unwrap().unwrap();
    Matcher::parse("property", shape, &node).unwrap()
}

fn check(yaml: &str, found: &Value) -> Result<(), String> {
    matcher(Shape::Value, yaml).check(found)
}

#[test]
fn what_matches() {
    for (yaml, found) in [
        ("foo", json!("foo")),
        ("5", json!(5)),
        ("5", json!("5\n")),
        ("'5'", json!(5)),
        ("1.5", json!("1.50")),
        ("true", json!(true)),
        ("'true'", json!(true)),
        ("'0644'", json!("0644")),
        ("0644", json!("0644")),
        ("644", json!("0644")),
        ("\"a\\nb\"", json!(["a", "b"])),
        ("[b, a]", json!(["a", "b", "c"])),
        ("[4]", json!([4, 6])),
        ("[one]", json!("one\ntwo")),
        ("{equal: foo}", json!("foo")),
        ("{equal: [a, b]}", json!(["a", "b"])),
        ("{have-prefix: fo}", json!("foo")),
        ("{have-suffix: oo}", json!("foo")),
        ("{have-prefix: 06}", json!("0644")),
        ("{match-regexp: '^f.*o$'}", json!("foo")),
        ("{contain-substring: o}", json!("foo")),
        ("{have-len: 3}", json!("foo")),
        ("{have-len: 2}", json!(["a", "b"])),
        ("{have-key: a}", json!({"a": 1})),
        ("{have-key: {have-prefix: a}}", json!({"abc": 1})),
        ("{have-patterns: ['/^tw/', '!three']}", json!("one\ntwo")),
        ("{contain-element: {have-prefix: a}}", json!(["x", "ab"])),
        ("{contain-elements: [{have-prefix: a}, b]}", json!(["b", "c", "ab"])),
        ("{consist-of: [{have-prefix: a}, ab]}", json!(["ab", "ac"])),
        ("{consist-of: []}", json!([])),
        ("{not: foo}", json!("bar")),
        ("{not: {have-prefix: f}}", json!("bar")),
        ("{and: [{gt: 1}, {lt: 5}]}", json!(3)),
        ("{or: [1, 3]}", json!(3)),
        ("{gt: 1}", json!("2")),
        ("{ge: 2}", json!(2)),
        ("{lt: 2.5}", json!(2)),
        ("{le: 2}", json!(2)),
        ("{semver-constraint: '>=1.0.0 <2.0.0'}", json!("1.4.2")),
        ("{semver-constraint: 1.x}", json!(["1.4.2", "1.0.0"])),
    ] {
        assert_eq!(check(yaml, &found), Ok(()), "{yaml} against {found}");
    }
}

#[test]
fn what_does_not_match_and_why() {
    for (yaml, found, why) in [
        ("foo", json!("bar"), "expected to equal \"foo\""),
        ("foo", json!("foo\n"), "expected to equal \"foo\"; they differ in the white space at the end"),
        ("5", json!("five"), "expected to equal 5"),
        ("true", json!("true"), "expected to be true"),
        ("[a, d]", json!(["a", "b"]), "expected to have elements to equal \"a\", to equal \"d\""),
        ("[a, a]", json!(["a", "b"]), "expected to have elements to equal \"a\", to equal \"a\""),
        ("{have-prefix: b}", json!("foo"), "expected to start with \"b\""),
        ("{match-regexp: ^b}", json!("foo"), "expected to match /^b/"),
        ("{have-len: 4}", json!("foo"), "expected to have length 4"),
        ("{have-len: 4}", json!(true), "expected something with a length, found true"),
        ("{have-key: b}", json!("a"), "expected a map, found \"a\""),
        ("{consist-of: [a]}", json!(["a", "b"]), "expected to have just the elements to equal \"a\""),
        ("{not: foo}", json!("foo"), "expected to not equal \"foo\""),
        ("{and: [{gt: 1}, {lt: 5}]}", json!(7), "expected to be less than 5"),
        ("{or: [1, 3]}", json!(2), "expected to equal 1 or equal 3"),
        ("{gt: 1}", json!("many"), "expected a number, found \"many\""),
        ("{not: {gt: 1}}", json!("many"), "expected a number, found \"many\""),
        ("{semver-constraint: 1.x}", json!("2.0.0"), "expected to be a version 1.x"),
        ("{semver-constraint: 1.x}", json!([]), "expected to be a version 1.x"),
    ] {
        assert_eq!(check(yaml, &found), Err(why.to_owned()), "{yaml} against {found}");
    }
    assert!(
        check("{semver-constraint: 1.x}", &json!("1.2-3"))
            .unwrap_err()
            .starts_with("expected a semantic version, found \"1.2-3\"")
    );
}

#[test]
fn a_list_against_text_is_patterns_per_line() {
    let patterns = matcher(Shape::Text, "[two, '!four', 22]");
    assert_eq!(patterns.check(&json!("one\ntwo\n22\n")), Ok(()));
    let why = "no line has `two`, `22`, and a line breaks `!four`";
    assert_eq!(patterns.check(&json!("four\n")), Err(why.to_owned()));
}

#[test]
fn a_scalar_against_text_is_all_of_it() {
    let whole = matcher(Shape::Text, "\"one\\n\"");
    assert_eq!(whole.check(&json!("one\n")), Ok(()));
    assert!(whole.check(&json!("one\ntwo\n")).is_err());
}
