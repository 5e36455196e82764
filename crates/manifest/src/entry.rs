//! The sections that stages write, one struct for each.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Account, Identity, IdentityKind, Medium, Publication};

/// What every entry records about the run that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Stamp {
    /// Version of the tool that wrote the entry.
    pub tool_version: String,
    /// When that run started.
    #[schemars(with = "String")]
    pub started: Timestamp,
    /// When it ended.
    #[schemars(with = "String")]
    pub ended: Timestamp,
    /// What it consumed. An entry whose input is no longer what the manifest holds is stale.
    pub consumed: Identity,
    /// Why this entry no longer follows from what stands above it; absent while it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
}

impl Stamp {
    /// A stamp of a run that started at `started`, consumed `consumed` and ends now.
    pub fn now(tool_version: &str, started: Timestamp, consumed: Identity) -> Self {
        Self { tool_version: tool_version.to_owned(), started, ended: Timestamp::now(), consumed, stale: None }
    }
}

/// The revision that the artifact was built from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Source {
    /// Path or URL of the repository.
    pub repository: String,
    /// The component's directory in it; empty for its root.
    #[serde(default)]
    pub subdirectory: String,
    /// Commit that was asked for.
    pub commit: String,
    /// Last commit that touched the component: the origin of `version` and `epoch`.
    pub component_commit: String,
    /// Id of the git tree of the component: the whole of its inputs.
    pub tree: String,
    /// The component's version, derived from `component_commit`.
    pub version: String,
    /// Committer's time of `component_commit`, in seconds since 1970 (SOURCE_DATE_EPOCH).
    pub epoch: i64,
    /// The component's tree as a reproducible `.tar.zst` in the artifact store: later stages
    /// take template, playbooks and gossfile from it, so that they need no checkout.
    pub archive: Identity,
}

/// What the build made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Artifact {
    /// Who wrote this entry, when, and from which source archive.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// SHA-256 of the artifact: its name in the store.
    pub identity: Identity,
    /// File name that it had, such as `hello_1.4_all.deb`.
    pub file_name: String,
    /// Size in bytes.
    pub size: u64,
    /// The store that has it: a directory or a bucket URL.
    pub store: String,
}

/// A provisioned volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Volume {
    /// Who wrote this entry, when, and from which inputs (the key of its last layer).
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The volume.
    pub identity: Identity,
    /// The artifact that was installed.
    pub artifact: Identity,
    /// The image that the volume was made from, if it was not made from scratch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_image: Option<Identity>,
    /// Name that the image is to have.
    pub image_name: String,
    /// `hvm` or `paravirtual`.
    pub virtualization_type: String,
    /// Tags that the image is to have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Whether the image takes its name over from one that has it.
    #[serde(default)]
    pub force_deregister: bool,
    /// What it is kept on at AWS.
    #[serde(default, skip_serializing_if = "Medium::is_none")]
    pub medium: Medium,
    /// What the image is to be on AWS, beside its name and tags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publication: Option<Box<Publication>>,
    /// In whose name and where its builder works on AWS.
    #[serde(default, skip_serializing_if = "Account::is_none")]
    pub account: Account,
    /// What kept the provisioners apart from the host.
    #[serde(default)]
    pub isolation: Isolation,
    /// What each provisioner did, in order.
    pub provisioners: Vec<ProvisionedStep>,
}

/// What keeps a build's provisioners apart from the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// They run in the volume's root, and no service starts.
    #[default]
    Chroot,
    /// They run in the volume's own system, booted in a container with a network of its own.
    Boot,
}

/// What one provisioner did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProvisionedStep {
    /// Type of the provisioner, such as `ansible-local`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Key of the layer that it leads to, SHA-256 in hexadecimal.
    pub layer: String,
    /// Whether that layer was there already, so that nothing was run.
    pub cached: bool,
    /// How long it ran, in milliseconds; 0 if cached.
    pub millis: u64,
    /// Processes that it left running, which were then killed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_over: Vec<LeftOverProcess>,
}

/// A process that a provisioner left running in the chroot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOverProcess {
    /// Its name, as in `/proc/PID/comm`.
    pub name: String,
    /// Its command line.
    pub command_line: String,
}

/// A registered image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// Who wrote this entry, when, and from which volume.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The image.
    pub identity: Identity,
    /// Digest of the image's content, as the provider defines it.
    pub digest: Identity,
    /// The image's name.
    pub name: String,
    /// Virtual size of its disk in bytes.
    pub size: u64,
    /// Where else it is, by places such as `aws us-east-1`. Written by `imager publish`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub published: BTreeMap<String, PublishedImage>,
}

impl Image {
    /// The image as it is known at `place`, such as `aws us-east-1`, whose images have identities of this kind: itself
    /// if that provider made it, and otherwise what was published of it there. `None` if it is not there.
    ///
    /// What was published has the content of what it was published from, and so its digest.
    pub fn at(&self, place: &str, kind: IdentityKind) -> Option<Self> {
        if self.identity.kind == kind {
            return Some(self.clone());
        }
        let there = self.published.get(place)?;
        Some(Self {
            stamp: there.stamp.clone(),
            identity: there.identity.clone(),
            digest: self.digest.clone(),
            name: there.name.clone(),
            size: self.size,
            published: BTreeMap::new(),
        })
    }

    /// The command that made it, and makes it again.
    pub fn made_by(&self) -> &'static str {
        // What is published is made of an image, and any other of a volume.
        if self.stamp.consumed.kind == IdentityKind::LocalImage { "imager publish --to aws" } else { "imager snapshot" }
    }

    /// That of its identities which `known` is to be compared with: the same, or else one of the same provider.
    pub(crate) fn counterpart(&self, known: &Identity) -> &Identity {
        let all = || std::iter::once(&self.identity).chain(self.published.values().map(|there| &there.identity));
        let same = all().find(|identity| *identity == known);
        same.or_else(|| all().find(|identity| identity.kind == known.kind)).unwrap_or(&self.identity)
    }
}

/// An image that was published at another provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PublishedImage {
    /// Who wrote this entry, when, and from which image.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The image there.
    pub identity: Identity,
    /// Its name there.
    pub name: String,
    /// The verdict that it had earned when it was published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earned: Option<Earned>,
}

/// A verdict, and where it was earned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Earned {
    /// Whether every check passed.
    pub passed: bool,
    /// The provider that ran it.
    pub at: String,
    /// When the test ended.
    #[schemars(with = "String")]
    pub ended: Timestamp,
}

/// What testing an image found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Who wrote this entry, when, and for which image.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// Digest of the image's content that was tested, the same before and after.
    pub digest: Identity,
    /// SHA-256 of the gossfile that it was tested with.
    pub gossfile: Identity,
    /// Whether every check passed.
    pub passed: bool,
    /// Time from launch until the system was up, in milliseconds.
    pub boot_millis: u64,
    /// Every check.
    pub checks: Vec<TestedCheck>,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckOutcome {
    /// As expected.
    Passed,
    /// Not as expected.
    Failed,
    /// Not looked at, because the gossfile says so or because it rests on one that failed.
    Skipped,
}

/// One check of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TestedCheck {
    /// `offline` (audit of the disk) or `booted` (inside a running instance).
    pub phase: String,
    /// What was checked, such as `service hello: running`.
    pub name: String,
    /// How it ended.
    pub outcome: CheckOutcome,
    /// For a check that did not pass: what was expected and what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// A deployment to one environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deployment {
    /// Who wrote this entry, when, and which image it deployed.
    #[serde(flatten)]
    pub stamp: Stamp,
    /// The group that takes the traffic.
    pub group: Identity,
    /// The group that it replaced, while that is kept for a rollback.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_group: Option<Identity>,
    /// Number of instances in service.
    pub instances: u32,
    /// The component's version.
    pub version: String,
    /// Where the service answers.
    pub url: String,
    /// DNS name of the service.
    pub dns: String,
}

/// What a deployment or a rollback intended and when, each written down before it was done, oldest first.
pub type Journal = Vec<serde_json::Map<String, serde_json::Value>>;
