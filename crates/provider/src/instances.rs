//! Single instances.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use manifest::Placement;
use serde::{Deserialize, Serialize};

use crate::Store;

/// As on EC2.
const LARGEST_USER_DATA: usize = 16 << 10;

/// An instance to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Id of the image.
    pub image: String,
    /// What the instance is for, such as `test of hello`; shown in listings.
    pub purpose: String,
    /// User data, which the image's cloud-init runs at the first boot. At most 16 KiB, as on EC2.
    pub user_data: Option<String>,
    /// Tags of the instance.
    pub tags: BTreeMap<String, String>,
    /// Where it is put, at a provider that has places.
    #[serde(default)]
    pub placement: Placement,
    /// When it has outlived its purpose, see [`Instances::outlived`]. Without it, it is kept.
    #[serde(default)]
    pub expires: Option<Timestamp>,
    /// Whether files are going to be read in it, see [`Instances::read`].
    #[serde(default)]
    pub lets_in: bool,
}

impl LaunchSpec {
    /// The user data, if it is not too much.
    pub(crate) fn user_data(&self) -> Result<Option<&str>> {
        let length = self.user_data.as_ref().map_or(0, String::len);
        ensure!(
            length <= LARGEST_USER_DATA,
            "user data has {length} bytes, and at most {LARGEST_USER_DATA} are allowed"
        );
        Ok(self.user_data.as_deref())
    }
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
    /// How often it makes sense to ask what an instance does and has written.
    const POLL: Duration;
    /// How long it may take until an instance that was asked for runs, together with how late what it writes can be read.
    const LAG: Duration;

    /// Launches an instance that belongs to this process: if the process ends without terminating
    /// it, the provider does, or [`Instances::outlived`] tells of it.
    async fn launch(&self, spec: &LaunchSpec) -> Result<Instance>;

    /// The instance, or `None` once it is forgotten.
    async fn describe(&self, id: &str) -> Result<Option<Instance>>;

    /// All instances, oldest first.
    async fn instances(&self) -> Result<Vec<Instance>>;

    /// Instances whose time is over, and which nobody ended.
    async fn outlived(&self) -> Result<Vec<Instance>>;

    /// What the instance wrote to its serial console so far (at least the last 64 KiB).
    async fn console(&self, id: &str) -> Result<String>;

    /// The text file `path` in an instance that was launched to let us in. `None` while it, or the way in, is not there.
    async fn read(&self, id: &str, path: &str) -> Result<Option<String>>;

    /// Makes a file reachable for instances by HTTP, for at least as long as `lasting`. A provider without a place for
    /// that puts it into `store`, where artifacts are.
    async fn offer(&self, file: &Path, store: Option<&Store>, lasting: Duration) -> Result<Offer>;

    /// Terminates the instance and waits until nothing of it is left.
    async fn terminate(&self, id: &str) -> Result<()>;
}
