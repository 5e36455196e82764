//! Why a provisioner runs: which of the inputs of its layer is another than at the last build.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use manifest::Isolation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How many names are listed before the rest is counted.
const LISTED: usize = 3;

/// What a volume's content follows from: names, and digests of what they stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// Digest of the source image.
    pub(crate) source: Option<String>,
    pub(crate) isolation: Isolation,
    /// The builder's options.
    pub(crate) builder: BTreeMap<String, String>,
    pub(crate) steps: Vec<StepInputs>,
}

/// What a provisioner's result follows from, beside the layer below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StepInputs {
    /// The provisioner's type.
    pub(crate) kind: String,
    pub(crate) options: BTreeMap<String, String>,
    /// Every file that it can see.
    pub(crate) files: BTreeMap<String, String>,
}

/// The digest of each member of an object.
pub(crate) fn digests(options: &serde_json::Value) -> BTreeMap<String, String> {
    let members = options.as_object().into_iter().flatten();
    members.map(|(name, value)| (name.clone(), hex::encode(Sha256::digest(value.to_string())))).collect()
}

/// For each step why its layer is not that of the `past` build; `None` where nothing says so.
pub(crate) fn reasons(past: Option<&Inputs>, now: &Inputs) -> Vec<Option<String>> {
    let Some(past) = past else {
        let none = || Some("there is no earlier build to compare with".to_owned());
        return now.steps.iter().map(|_| none()).collect();
    };
    let mut before = below(past, now);
    let mut reasons = Vec::new();
    for (number, step) in now.steps.iter().enumerate() {
        let reason = before.clone().or_else(|| match past.steps.get(number) {
            Some(past) if past.kind == step.kind => changed(past, step),
            Some(past) => Some(format!("it stands where {} stood", past.kind)),
            None => Some("it is new".to_owned()),
        });
        if reason.is_some() {
            before = Some("what comes before it is another".to_owned());
        }
        reasons.push(reason);
    }
    reasons
}

/// What is another at the bottom.
fn below(past: &Inputs, now: &Inputs) -> Option<String> {
    if past.source != now.source {
        return Some("the source image is another".to_owned());
    }
    if past.isolation != now.isolation {
        return Some("the isolation is another".to_owned());
    }
    let options = differing(&past.builder, &now.builder);
    (!options.is_empty()).then(|| format!("of the builder's options {}", listed(&options)))
}

fn changed(past: &StepInputs, now: &StepInputs) -> Option<String> {
    let options = differing(&past.options, &now.options);
    let files = differing(&past.files, &now.files);
    let parts: Vec<_> = [("option", options), ("file", files)]
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(what, names)| format!("{what} {}", listed(&names)))
        .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// The names whose digests differ, and how.
fn differing(past: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let gone = past.keys().filter(|name| !now.contains_key(*name)).map(|name| format!("'{name}' is gone"));
    let others = now.iter().filter_map(|(name, digest)| match past.get(name) {
        None => Some(format!("'{name}' is new")),
        Some(past) if past != digest => Some(format!("'{name}' is another")),
        Some(_) => None,
    });
    others.chain(gone).collect()
}

fn listed(names: &[String]) -> String {
    let shown = names[..names.len().min(LISTED)].join(", ");
    match names.len().saturating_sub(LISTED) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Where the inputs of the last build of a builder are kept, below the provider's `cache`.
fn place(cache: &Path, build: &str) -> PathBuf {
    cache.join("inputs").join(hex::encode(&Sha256::digest(build)[..16]))
}

/// The inputs of the last build of the same name. What cannot be read is as if it had never been kept.
pub(crate) fn recall(cache: &Path, build: &str) -> Option<Inputs> {
    serde_json::from_slice(&fs::read(place(cache, build)).ok()?).ok()
}

/// Keeps the inputs of a build that succeeded.
pub(crate) fn remember(cache: &Path, build: &str, inputs: &Inputs) -> Result<()> {
    let place = place(cache, build);
    let doing = || format!("writing {}", place.display());
    let directory = place.parent().with_context(doing)?;
    fs::create_dir_all(directory).with_context(doing)?;
    let file = tempfile::NamedTempFile::new_in(directory).with_context(doing)?;
    serde_json::to_writer(&file, inputs).with_context(doing)?;
    file.persist(&place).with_context(doing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect()
    }

    fn step(kind: &str, options: &[(&str, &str)], files: &[(&str, &str)]) -> StepInputs {
        StepInputs { kind: kind.to_owned(), options: map(options), files: map(files) }
    }

    fn inputs(steps: Vec<StepInputs>) -> Inputs {
        Inputs { source: Some("s".into()), isolation: Isolation::Boot, builder: map(&[("tags", "1")]), steps }
    }

    #[test]
    fn a_reason_names_the_first_input_that_is_another() {
        let shell = || step("shell", &[("inline", "1")], &[]);
        let play =
            |main: &str| step("ansible", &[("playbook_file", "1")], &[("site.yml", "1"), ("roles/a/main.yml", main)]);
        let past = inputs(vec![shell(), play("1"), shell()]);
        let told = |now: &Inputs| {
            let told = reasons(Some(&past), now).into_iter().map(Option::unwrap_or_default);
            told.collect::<Vec<_>>().join("; ")
        };
        assert_eq!(told(&past), "; ; ");
        assert_eq!(
            told(&inputs(vec![shell(), play("2"), shell()])),
            "; file 'roles/a/main.yml' is another; what comes before it is another"
        );
        assert_eq!(
            told(&inputs(vec![step("shell", &[("script", "1")], &[("a", "1"), ("b", "1")])])),
            "option 'script' is new, 'inline' is gone, file 'a' is new, 'b' is new"
        );
        assert_eq!(
            told(&inputs(vec![play("1"), shell()])),
            "it stands where shell stood; what comes before it is another"
        );
        assert_eq!(told(&Inputs { source: None, ..inputs(vec![shell()]) }), "the source image is another");
        assert_eq!(reasons(None, &past)[2].as_deref(), Some("there is no earlier build to compare with"));
    }

    #[test]
    fn what_was_remembered_is_recalled_by_its_name() {
        let cache = tempfile::tempdir().unwrap();
        let kept = inputs(Vec::new());
        remember(cache.path(), "a template: hvm", &kept).unwrap();
        assert_eq!(recall(cache.path(), "a template: hvm"), Some(kept));
        assert_eq!(recall(cache.path(), "another"), None);
    }
}
