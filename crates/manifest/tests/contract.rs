//! The contract does not change by accident.

use std::fs;
use std::path::Path;

fn here(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_schema_in_the_documents_is_that_of_the_code() {
    let kept = here("../../docs/schemas/manifest.schema.json");
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert!(kept == manifest::json_schema(), "run `cargo xtask schemas`, and review what changes");
}

/// Every section of every released version: this file is never changed, only joined by others.
#[test]
fn a_document_of_version_1_is_still_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1.json");
    let manifest = manifest::read(&path).unwrap();
    let written: serde_json::Value = serde_json::from_str(&here("tests/fixtures/v1.json")).unwrap();
    assert_kept("", &written, &serde_json::to_value(&manifest).unwrap());
}

/// A later version may add keys, and must lose none.
fn assert_kept(at: &str, written: &serde_json::Value, read: &serde_json::Value) {
    use serde_json::Value::{Array, Object};
    match (written, read) {
        (Object(written), Object(read)) => {
            for (key, value) in written {
                let read = read.get(key).unwrap_or_else(|| panic!("{at}/{key} was lost"));
                assert_kept(&format!("{at}/{key}"), value, read);
            }
        }
        (Array(written), Array(read)) => {
            assert_eq!(written.len(), read.len(), "{at}");
            written.iter().zip(read).for_each(|(written, read)| assert_kept(at, written, read));
        }
        _ => assert_eq!(written, read, "{at}"),
    }
}

#[test]
fn a_newer_document_is_refused_by_its_version() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("manifest.json");
    fs::write(&path, r#"{"schema_version": 2, "component": "of another shape"}"#).unwrap();
    assert!(matches!(manifest::read(&path), Err(manifest::ReadError::Newer { found: 2, .. })));
}
