//! Lines and key paths in the text of a component file.

use toml::de::{DeTable, DeValue};

/// The line, from 1, of the byte at `offset`.
pub fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// The line of a key such as `["deploy", "fleet", "steps"]`, or of the last table on the way that is there.
pub fn line_of(text: &str, key: &[&str]) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    let mut table = Some(document.get_ref());
    let mut line = None;
    for part in key {
        let Some((found, value)) = table.and_then(|table| table.get_key_value(*part)) else { break };
        line = Some(line_at(text, found.span().start));
        table = value.get_ref().as_table();
    }
    line
}

/// The dotted path of the innermost key or value at the byte `offset`; empty for the top level.
pub fn path_at(text: &str, offset: usize) -> String {
    let mut path = Vec::new();
    // A file with a fault in its syntax still has the keys before the fault.
    let (document, _) = DeTable::parse_recoverable(text);
    find(document.get_ref(), offset, &mut path);
    path.join(".")
}

fn find(table: &DeTable<'_>, offset: usize, path: &mut Vec<String>) -> bool {
    for (key, value) in table {
        path.push(key.get_ref().to_string());
        let inner = match value.get_ref() {
            DeValue::Table(inner) => find(inner, offset, path),
            _ => false,
        };
        if inner || key.span().contains(&offset) || value.span().contains(&offset) {
            return true;
        }
        path.pop();
    }
    false
}
