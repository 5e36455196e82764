//! Which images fit a filter.

use anyhow::{Result, bail};
use wildmatch::WildMatch;

use crate::{ImageFilter, RegisteredImage};

/// Whether the image fits every filter. An error names one that cannot be told from what is known here.
pub fn fits(filter: &ImageFilter, image: &RegisteredImage) -> Result<bool> {
    for (name, wanted) in &filter.filters {
        let has = values(name, image)?;
        if !wanted.iter().any(|wanted| has.iter().any(|has| WildMatch::new(wanted).matches(has))) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What an image has of a filter's property.
fn values<'a>(filter: &str, image: &'a RegisteredImage) -> Result<Vec<&'a str>> {
    Ok(match filter {
        "name" => vec![&image.name],
        "image-id" => vec![&image.id],
        "virtualization-type" => vec![&image.virtualization_type],
        "architecture" => vec![architecture()],
        // The same for every image here.
        "root-device-type" => vec!["ebs"],
        "state" => vec!["available"],
        "image-type" => vec!["machine"],
        "tag-key" => image.tags.keys().map(String::as_str).collect(),
        _ => match filter.strip_prefix("tag:") {
            Some(tag) => image.tags.get(tag).map(String::as_str).into_iter().collect(),
            None => bail!(
                "images of the local provider cannot be told by '{filter}', but by name, image-id, \
                 virtualization-type, architecture, root-device-type, state, image-type, tag-key and tag:NAME"
            ),
        },
    })
}

/// EC2's name of this machine's architecture.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use manifest::Identity;

    use super::*;

    #[test]
    fn one_value_of_each_filter_has_to_fit() {
        let image = RegisteredImage {
            id: "img-1".into(),
            name: "debian-12-2026".into(),
            digest: Identity::sha256("d"),
            size: 1,
            virtualization_type: "hvm".into(),
            root_partition: None,
            created: Timestamp::UNIX_EPOCH,
            source_image: None,
            tags: [("component".to_owned(), "web".to_owned())].into(),
            verdict: None,
            copies: std::collections::BTreeMap::new(),
        };
        let fits = |filters: &[(&str, &[&str])]| {
            let pair = |(name, values): &(&str, &[&str])| {
                ((*name).to_owned(), values.iter().map(|value| (*value).to_owned()).collect())
            };
            fits(&ImageFilter { filters: filters.iter().map(pair).collect(), owners: Vec::new() }, &image)
        };
        assert!(fits(&[("name", &["debian-1?-*"]), ("virtualization-type", &["paravirtual", "hvm"])]).unwrap());
        assert!(!fits(&[("name", &["debian-12"])]).unwrap());
        assert!(fits(&[("tag:component", &["w*"]), ("tag-key", &["component"])]).unwrap());
        assert!(!fits(&[("tag:stage", &["*"])]).unwrap());
        assert!(fits(&[("hypervisor", &["xen"])]).unwrap_err().to_string().contains("'hypervisor'"));
    }
}
