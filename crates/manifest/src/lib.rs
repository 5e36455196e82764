//! The contract between Kiln's stages.
//!
//! One JSON document, `manifest.json`, travels down the line. Each stage reads
//! what stood there and replaces only its own keys. This crate is that
//! document: pure data, with no I/O beyond reading and writing itself.
//!
//! * [`Manifest`] is the whole document; [`component`] is the part that a
//!   component's own `component.toml` says; `entry` has the stages' sections.
//! * [`read`] and [`update`] are the only ways in and out of a file; [`parse`] and [`edit`] are what they do to its text,
//!   for who keeps it elsewhere.
//! * [`json_schema`] is the contract for everyone who is not written in Rust.

mod aws_fleet;
pub mod component;
mod difference;
mod entry;
mod file;
mod identity;
mod name;
mod placement;
mod publication;
mod stale;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use aws_fleet::{AwsBalancer, AwsFleet, BalancerKind, Scheme};
pub use component::Component;
pub use entry::{
    Artifact, CheckOutcome, Deployment, Earned, Image, Isolation, Journal, LeftOverProcess, ProvisionedStep,
    PublishedImage, Source, Stamp, TestedCheck, Verdict, Volume,
};
pub use file::{ReadError, edit, parse, read, update};
pub use identity::{Identity, IdentityKind};
pub use name::NotAName;
pub use placement::Placement;
pub use publication::{Account, BlockDevice, Medium, Protection, Publication, Role, Sharing};

/// The version of the document that this build writes, and the newest it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The document that the stages pass on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this document's format; see [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// What the component's `component.toml` said at the revision in `source`.
    pub component: Component,
    /// The revision that everything below was made from. Written by `artifact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// What the build made of it. Written by `artifact`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Artifact>,
    /// Provisioned volumes by builder name. Written by `imager provision`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// Images by builder name. Written by `imager snapshot`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, Image>,
    /// Verdicts by builder name. Written by `tester`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tests: BTreeMap<String, Verdict>,
    /// Deployments by environment. Written by `deployer`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deployments: BTreeMap<String, Deployment>,
    /// The journal of the deployment or rollback that began last, by environment; one that did not end has no entry
    /// `finished` or `backed-out`. Written by `deployer`, which goes on by the journal that is with the service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub journals: BTreeMap<String, Journal>,
}

impl Manifest {
    /// A manifest in which no stage has written yet.
    pub fn new(component: Component) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            component,
            source: None,
            artifact: None,
            volumes: BTreeMap::new(),
            images: BTreeMap::new(),
            tests: BTreeMap::new(),
            deployments: BTreeMap::new(),
            journals: BTreeMap::new(),
        }
    }
}

/// The JSON Schema of [`Manifest`], as kept in `docs/schemas/manifest.schema.json`.
pub fn json_schema() -> serde_json::Value {
    schemars::schema_for!(Manifest).to_value()
}
