//! What made a thing and from what, as the thing's tags: who finds it later need not ask anybody.

use std::collections::BTreeMap;

use manifest::Manifest;

/// Variables that name the run of a pipeline: ours first, then Jenkins'.
const RUN: [&str; 2] = ["KILN_RUN", "BUILD_TAG"];

/// Tags that say which stage made something, for which version of which component, and in which run of the pipeline.
pub fn tags(stage: &str, manifest: Option<&Manifest>) -> BTreeMap<String, String> {
    let run = RUN.into_iter().find_map(|name| std::env::var(name).ok());
    let source = manifest.and_then(|manifest| manifest.source.as_ref());
    let said = [
        ("kiln:stage", Some(stage.to_owned())),
        ("kiln:component", manifest.map(|manifest| manifest.component.name.clone())),
        ("kiln:version", source.map(|source| source.version.clone())),
        ("kiln:commit", source.map(|source| source.component_commit.clone())),
        ("kiln:run", run),
    ];
    said.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
