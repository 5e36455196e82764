//! Single instances.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// An instance to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Id of the image.
    pub image: String,
    /// What the instance is for, such as `test of hello`; shown in listings.
    pub purpose: String,
    /// User data, which the image's cloud-init runs at the first boot. At most 16 KiB, as on EC2.
    pub user_data: Option<String>,
    /// Tags of the instance.
    pub tags: BTreeMap<String, String>,
}

/// What an instance is doing, in EC2's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// It is being started.
    Pending,
    /// It runs.
    Running,
    /// It is being shut down.
    ShuttingDown,
    /// It is gone.
    Terminated,
}

/// An instance as its provider knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Instance {
    /// Its id, `i-` and hexadecimal digits.
    pub id: String,
    /// Id of the image that it runs.
    pub image: String,
    /// What it is for.
    pub purpose: String,
    /// What it is doing.
    pub state: InstanceState,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// When it was launched.
    pub launched: Timestamp,
    /// How many times it has been started: more than 1 means that it ended and was restarted.
    pub starts: u32,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// A file that instances can fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Where, by a plain GET request.
    pub url: String,
    /// SHA-256 of its content.
    pub digest: crate::ObjectDigest,
}

/// Launching, watching and ending single instances.
#[expect(async_fn_in_trait, reason = "callers are generic over the provider and never need Send")]
pub trait Instances {
    /// Launches an instance that belongs to this process: if the process ends without terminating
    /// it, the provider does.
    async fn launch(&self, spec: &LaunchSpec) -> Result<Instance>;

    /// The instance, or `None` once it is forgotten.
    async fn describe(&self, id: &str) -> Result<Option<Instance>>;

    /// All instances, oldest first.
    async fn instances(&self) -> Result<Vec<Instance>>;

    /// What the instance wrote to its serial console so far (at least the last 64 KiB).
    async fn console(&self, id: &str) -> Result<String>;

    /// Puts a file into the provider's store and makes it reachable for instances by HTTP.
    async fn offer(&self, file: &Path) -> Result<Offer>;

    /// Terminates the instance and waits until nothing of it is left.
    async fn terminate(&self, id: &str) -> Result<()>;
}
