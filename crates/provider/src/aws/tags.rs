//! Tags, in the forms in which EC2 takes and gives them.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

/// Tags by name.
pub(super) type Tags = BTreeMap<String, String>;

/// The image at the bottom of a volume, a layer or an image.
pub(super) const SOURCE_IMAGE: &str = "kiln:source-image";
/// The key of the layer that a volume or a snapshot holds; one that holds none yet does not have it.
pub(super) const LAYER: &str = "kiln:layer";
/// Digest of the content: of an image that was published, and of the snapshot that it is of.
pub(super) const DIGEST: &str = "kiln:digest";

/// The tags of what is about to be made.
pub(super) fn specification(kind: ResourceType, tags: &Tags) -> TagSpecification {
    TagSpecification::builder().resource_type(kind).set_tags(Some(list(tags))).build()
}

/// Tags as EC2 takes them.
pub(super) fn list(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(name, value)| Tag::builder().key(name).value(value).build()).collect()
}

/// Tags as EC2 gives them.
pub(super) fn read(tags: &[Tag]) -> Tags {
    tags.iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value().unwrap_or_default().to_owned()))).collect()
}

/// A filter of the Describe calls: one of the values must fit.
pub(super) fn filter(name: impl Into<String>, values: impl IntoIterator<Item = impl Into<String>>) -> Filter {
    Filter::builder().name(name).set_values(Some(values.into_iter().map(Into::into).collect())).build()
}
