//! Names of things made, such that two equal names mean the same thing.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of name an [`Identity`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityKind {
    /// SHA-256 of content, in lower-case hexadecimal.
    Sha256,
    /// A volume in the local provider's state directory.
    LocalVolume,
    /// An image in the local provider's store.
    LocalImage,
    /// A group of instances of the local provider.
    LocalGroup,
    /// An EC2 volume id.
    AwsVolume,
    /// An EC2 image id.
    AwsImage,
    /// The name of an Auto Scaling group.
    AwsGroup,
}

/// The identity of one thing: `{"kind": "sha256", "value": "9f86…"}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// What kind of name `value` is.
    pub kind: IdentityKind,
    /// The name itself.
    pub value: String,
}

impl Identity {
    /// An identity of this kind.
    pub fn new(kind: IdentityKind, value: impl Into<String>) -> Self {
        Self { kind, value: value.into() }
    }

    /// The identity of content with this SHA-256, in lower-case hexadecimal.
    pub fn sha256(digest: impl Into<String>) -> Self {
        Self::new(IdentityKind::Sha256, digest)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            IdentityKind::Sha256 => write!(f, "sha256:{}", self.value),
            _ => f.write_str(&self.value),
        }
    }
}
