//! `imager images`

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use cli::{ExitCode, narrate};
use comfy_table::Table;
use comfy_table::presets::NOTHING;
use provider::{Images, InUse, RegisteredImage};

/// Arguments of `imager images`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Remove the images of each component, but those of its newest versions, what has an alias, and what instances run.
    #[arg(long, requires = "keep")]
    prune: bool,
    /// How many versions of each component stay, the newest ones.
    #[arg(long, value_name = "NUMBER", requires = "prune")]
    keep: Option<usize>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Lists all images, oldest first; with `--prune`, those that it removed.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let (images, aliases) = (provider.list().await?, provider.aliases().await?);
    let (images, failed) = match args.keep {
        Some(keep) => {
            let aliased = aliases.values().map(String::as_str).collect();
            remove(provider, superseded(images, keep, &aliased)).await
        }
        None => (images, Vec::new()),
    };
    print(&images, &aliases, args.json)?;
    if !failed.is_empty() {
        bail!("{} could not be removed: see the notes above, and run again", failed.join(", "));
    }
    Ok(ExitCode::Done)
}

fn print(images: &[RegisteredImage], aliases: &BTreeMap<String, String>, json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(images)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["ID", "NAME", "TYPE", "SIZE", "CREATED", "TESTED", "ALIASES"]);
    for image in images {
        let names: Vec<_> =
            aliases.iter().filter(|(_, id)| **id == image.id).map(|(alias, _)| alias.as_str()).collect();
        let tested = match &image.verdict {
            None => "-",
            Some(verdict) if verdict.passed => "passed",
            Some(_) => "failed",
        };
        table.add_row([
            image.id.as_str(),
            &image.name,
            &image.virtualization_type,
            &format!("{} MiB", image.size >> 20),
            &format!("{:.0}", image.created),
            tested,
            &names.join(" "),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Removes the images, but those that instances run. Returns those that are removed, and the ids of those that could not
/// be: they do not keep the rest from it.
async fn remove(provider: &impl Images, images: Vec<RegisteredImage>) -> (Vec<RegisteredImage>, Vec<String>) {
    let (mut removed, mut failed) = (Vec::new(), Vec::new());
    for image in images {
        match provider.remove(&image.id).await {
            Ok(()) => removed.push(image),
            Err(error) => {
                narrate::note(&format!("{error:#}"));
                failed.extend((!error.is::<InUse>()).then_some(image.id));
            }
        }
    }
    (removed, failed)
}

/// Of images that are sorted by age, those of all but the newest versions of each component, unless they have an alias.
/// A version is as new as its newest image: a template may have several builders.
fn superseded(images: Vec<RegisteredImage>, keep: usize, aliased: &BTreeSet<&str>) -> Vec<RegisteredImage> {
    let version = |image: &RegisteredImage| {
        let tag = |name| image.tags.get(name).cloned();
        Some((tag("kiln:component")?, tag("kiln:version")?))
    };
    let mut versions = BTreeMap::<String, Vec<String>>::new();
    for (component, version) in images.iter().rev().filter_map(version) {
        let versions = versions.entry(component).or_default();
        if !versions.contains(&version) {
            versions.push(version);
        }
    }
    let is_kept =
        |(component, version): (String, String)| versions[&component].iter().take(keep).any(|it| *it == version);
    let is_superseded = |image: &RegisteredImage| {
        !aliased.contains(image.id.as_str()) && version(image).is_some_and(|version| !is_kept(version))
    };
    images.into_iter().filter(is_superseded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superseded_ids(keep: usize, aliased: &[&str]) -> Vec<String> {
        let image = |(id, component, version): (&str, &str, &str)| {
            let value = serde_json::json!({
                "id": id, "name": id, "digest": {"kind": "sha256", "value": "0"}, "size": 0, "virtualization_type": "hvm",
                "created": "2026-01-01T00:00:00Z", "tags": {"kiln:component": component, "kiln:version": version}
            });
            let mut image: RegisteredImage = serde_json::from_value(value).unwrap();
            image.tags.retain(|_, value| !value.is_empty());
            image
        };
        let images = [
            ("base", "", ""),
            ("a1", "a", "1"),
            ("a1-pv", "a", "1"),
            ("b1", "b", "1"),
            ("a2", "a", "2"),
            ("a3", "a", "3"),
            ("a1-again", "a", "1"),
        ];
        let aliased = aliased.iter().copied().collect();
        superseded(images.map(image).into(), keep, &aliased).into_iter().map(|image| image.id).collect()
    }

    #[test]
    fn all_but_the_newest_versions_of_each_component_are_superseded() {
        assert_eq!(superseded_ids(3, &[]), [""; 0]);
        assert_eq!(superseded_ids(2, &[]), ["a2"], "the first version was built again");
        assert_eq!(superseded_ids(1, &[]), ["a2", "a3"]);
        assert_eq!(superseded_ids(1, &["a3"]), ["a2"]);
        assert_eq!(superseded_ids(0, &[]), ["a1", "a1-pv", "b1", "a2", "a3", "a1-again"]);
    }
}
