//! Small texts that say what something is: JSON, or `name=value` in lines.

use std::collections::BTreeMap;

/// The names and values in user data or a file. What is neither JSON nor lines of `name=value`, such as a script for
/// cloud-init, says nothing.
pub fn parse(text: &str) -> BTreeMap<String, String> {
    let text = text.trim_start_matches('\u{feff}').trim();
    if text.starts_with("#!") || text.starts_with("#cloud-config") || text.starts_with("Content-Type:") {
        return BTreeMap::new();
    }
    if let Ok(object) = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text) {
        return object.into_iter().filter_map(|(name, value)| Some((name, scalar(&value)?))).collect();
    }
    text.lines().filter_map(assignment).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// The values that the kernel's command line has for `config-agent.NAME`. As with the kernel, the last one counts.
pub fn of_command_line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let key = format!("config-agent.{name}");
    let pairs = text.split_ascii_whitespace().filter_map(|word| word.split_once('='));
    pairs.filter(|(found, _)| *found == key).map(|(_, value)| unquoted(value)).next_back()
}

fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().split_once('=')?;
    let name = name.trim();
    (!name.is_empty() && !name.starts_with('#')).then(|| (name, unquoted(value.trim())))
}

fn unquoted(value: &str) -> &str {
    let inner = |quote| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(value)
}

fn scalar(value: &serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::String(text) => Some(text.clone()),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).into_iter().collect()
    }

    #[test]
    fn json_and_lines() {
        let expected = [("country".to_owned(), "uk".to_owned()), ("shard".to_owned(), "3".to_owned())];
        assert_eq!(pairs("{\"country\": \"uk\", \"shard\": 3, \"more\": {}}"), expected);
        assert_eq!(pairs("# where\ncountry=uk\n\nshard = '3'\nnothing\n"), expected);
    }

    #[test]
    fn a_script_says_nothing() {
        for text in ["#!/bin/sh\ncountry=uk\n", "#cloud-config\na=b\n", "", "\0\u{1f}binary"] {
            assert_eq!(pairs(text), [], "{text:?}");
        }
    }

    #[test]
    fn the_last_word_of_the_command_line_counts() {
        let line = "root=/dev/vda1 config-agent.country=us quiet config-agent.country=\"uk\" config-agent.countryx=z\n";
        assert_eq!(of_command_line(line, "country"), Some("uk"));
        assert_eq!(of_command_line(line, "environment"), None);
    }
}
