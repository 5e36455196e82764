//! Groups of instances behind a balancer and a DNS name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;
use manifest::AwsFleet;
use serde::{Deserialize, Serialize};

use crate::InstanceState;

/// A service to be: its balancer and its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Name of the service in its environment, such as `hello-production`.
    pub name: String,
    /// Port on which instances serve HTTP.
    pub port: u16,
    /// Path that answers 200 on a healthy instance.
    pub health: String,
    /// DNS name of the service.
    pub dns: String,
    /// Port on which the balancer listens; `None`: one is chosen, and kept.
    pub listen: Option<u16>,
    /// Where it is put on AWS.
    #[serde(default)]
    pub aws: AwsFleet,
}

/// A service as its provider knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Service {
    /// What it was created as, with `listen` filled in.
    pub spec: ServiceSpec,
    /// Where it answers.
    pub url: String,
    /// A name server of the host's that knows the service's DNS name, where the provider has one.
    pub resolver: Option<SocketAddr>,
    /// Its groups by name, with what each was created as.
    pub groups: BTreeMap<String, Group>,
    /// Whether the provider's own processes run that should: false after a reboot of the host. Instances may serve
    /// without them.
    pub running: bool,
    /// How far apart two readings of a healthy member are that rest on two checks of the balancer.
    pub check_interval: Duration,
}

/// A group to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupSpec {
    /// Name of the service that it belongs to.
    pub service: String,
    /// Its name: `<service>-v000` and so on.
    pub name: String,
    /// Id of the image that its instances run.
    pub image: String,
    /// Number of instances that is asked for.
    pub size: u32,
    /// Number that it begins with, where the group that it replaces has grown to more.
    #[serde(default)]
    pub initial: Option<u32>,
    /// Tags of the group and of its instances.
    pub tags: BTreeMap<String, String>,
    /// Where it is put on AWS.
    #[serde(default)]
    pub aws: AwsFleet,
}

/// A group as its provider knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// What it was created as.
    pub spec: GroupSpec,
    /// How many instances it is to have now, where that is not what it was created with: its load made it grow.
    #[serde(default)]
    pub resized: Option<u32>,
    /// Its share of the traffic in percent; 0: none, and open requests run out.
    pub weight: u8,
    /// When it was created.
    pub created: Timestamp,
}

impl Group {
    /// How many instances it is to have now.
    pub fn size(&self) -> u32 {
        self.resized.unwrap_or(self.spec.size)
    }
}

/// What the balancer says of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemberHealth {
    /// Nobody can be asked, for the provider's own processes do not run. Never counts as healthy.
    Unknown,
    /// Not (yet) known to the balancer. Never counts as healthy.
    Absent,
    /// Known, and no answer yet that counts.
    Unhealthy,
    /// It answers the health check.
    Healthy,
    /// It is being taken off the balancer: it gets no new requests, and is given time for those that it has.
    Draining,
}

/// One instance of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Id of the instance.
    pub instance: String,
    /// What the instance is doing.
    pub state: InstanceState,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// How many times it has been started.
    pub starts: u32,
    /// What the balancer says of it.
    pub health: MemberHealth,
    /// Requests of it that are being answered at this moment; `None` where the balancer does not say.
    pub open_requests: Option<u64>,
    /// Its present share of the traffic in the balancer's own units; 0: none.
    pub weight: u32,
    /// What the last health check said, in the balancer's words.
    pub last_check: String,
}

/// A new group that is not, or does not stay, healthy: the verdict on a deployment, and no breakage of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotHealthy(pub String);

/// Shares of the traffic in percent, for people.
pub fn shares(weights: &BTreeMap<String, u8>) -> String {
    let shares: Vec<_> = weights.iter().map(|(group, weight)| format!("{group} {weight} %")).collect();
    shares.join(", ")
}

/// A verb of [`Fleets`] that changes something, with what it is asked for: what a plan is made of.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "each is described at the verb that it is named after")]
pub enum Intent<'a> {
    Lock(&'a str),
    Unlock(&'a str),
    Record(&'a str, &'a serde_json::Value),
    CopyJournal(&'a [&'a str]),
    CreateService(&'a ServiceSpec),
    CreateGroup(&'a ServiceSpec, &'a GroupSpec),
    SetWeights(&'a ServiceSpec, &'a BTreeMap<String, u8>),
    Hold(&'a ServiceSpec, &'a str, Timestamp),
    DestroyGroup(&'a ServiceSpec, &'a str),
    DestroyService(&'a str),
    Repair,
}

impl fmt::Display for Intent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lock(service) => write!(f, "lock service {service}"),
            Self::Unlock(service) => write!(f, "unlock service {service}"),
            Self::Record(service, entry) => {
                write!(f, "record for service {service} {}", entry["event"].as_str().unwrap_or_default())
            }
            Self::CopyJournal(groups) => write!(f, "copy journal to {}", groups.join(", ")),
            Self::CreateService(spec) => write!(f, "create service {}", spec.name),
            Self::CreateGroup(_, spec) => {
                write!(
                    f,
                    "create group {} of {} instances of {}",
                    spec.name,
                    spec.initial.unwrap_or(spec.size),
                    spec.image
                )
            }
            Self::SetWeights(_, weights) => {
                write!(f, "set weights {}", shares(weights))
            }
            Self::Hold(_, group, until) => write!(f, "hold group {group} until {until:.0}"),
            Self::DestroyGroup(_, group) => write!(f, "destroy group {group}"),
            Self::DestroyService(service) => write!(f, "destroy service {service}"),
            Self::Repair => write!(f, "repair"),
        }
    }
}

/// Services, their groups and their traffic.
///
/// Every verb converges: asked again for what is there already, it changes nothing and succeeds.
#[expect(async_fn_in_trait, reason = "callers are generic over the provider and never need Send")]
pub trait Fleets {
    /// What keeps others from changing a service.
    type ServiceLock;

    /// The service, with its groups; `None` if there is none. Read-only: starts nothing.
    async fn service(&self, name: &str) -> Result<Option<Service>>;

    /// All services. Read-only: starts nothing.
    async fn services(&self) -> Result<Vec<Service>>;

    /// Whether those processes of the provider run by which it knows how a service is; so it is where there is none.
    async fn is_watched(&self, service: &str) -> Result<bool> {
        Ok(self.service(service).await?.is_none_or(|service| service.running))
    }

    /// Names of all services that have a journal, also of those that have not been made. Read-only: starts nothing.
    async fn journalled(&self) -> Result<Vec<String>>;

    /// Whether it could make the service with groups of `size` instances, and divide the traffic by `steps`: an error
    /// names the key of the component file that is missing, or that this provider cannot follow. Read-only.
    async fn accepts(&self, service: &ServiceSpec, size: u32, steps: &[u8]) -> Result<()>;

    /// The calls by which a verb would change something now, in order, for people to read. Read-only.
    async fn calls(&self, intent: &Intent<'_>) -> Result<Vec<String>>;

    /// Makes the service's balancer and DNS name, without instances.
    async fn create_service(&self, spec: &ServiceSpec) -> Result<Service>;

    /// Launches a group and attaches its instances to the balancer at weight 0.
    async fn create_group(&self, spec: &GroupSpec) -> Result<Group>;

    /// The group's instances as they are now, from a fresh read.
    async fn members(&self, service: &str, group: &str) -> Result<Vec<Member>>;

    /// Sets the share of traffic of every group named, in percent, all in one step. A group that gets traffic is held
    /// no longer.
    ///
    /// [`NotHealthy`], and traffic where it was: the balancer found that the group which was to get it cannot answer.
    async fn set_weights(&self, service: &str, weights: &BTreeMap<String, u8>) -> Result<()>;

    /// Holds a group without traffic as it is until then, for a switch back: no scaling of its own changes its size.
    async fn hold(&self, service: &str, group: &str, until: Timestamp) -> Result<()>;

    /// Takes a group with weight 0 off the balancer and terminates its instances.
    ///
    /// Where open requests can be counted, it waits for none, and returns how many have been cut off. Where only the
    /// balancer knows of them (`None`), it waits until that says that the instances have drained.
    async fn destroy_group(&self, service: &str, group: &str) -> Result<Option<u64>>;

    /// Destroys the service: its groups, balancer and DNS name.
    async fn destroy_service(&self, name: &str) -> Result<()>;

    /// Starts again what should run and does not, such as after a reboot of the host. Gives back to its own scaling
    /// what is held and should not be.
    async fn repair(&self) -> Result<()>;

    /// The last lines of an instance's log, and the state of its failed units where it can tell.
    async fn diagnose(&self, instance: &str) -> Result<String>;

    /// The journal of the service's deployment, oldest entry first.
    async fn journal(&self, service: &str) -> Result<Vec<serde_json::Value>>;

    /// Adds an entry to the journal. It is kept when this returns. An error if another run has the service's lock.
    async fn record(&self, service: &str, entry: &serde_json::Value) -> Result<()>;

    /// Has entries of the journal stand with those of the groups that are there, in place of what stood there before.
    /// Where the journal has lost its beginning, or all, what stands with groups is read in its place.
    ///
    /// Nothing is copied where the journal cannot be lost without the groups.
    async fn copy_journal(&self, service: &str, groups: &[&str], entries: &[serde_json::Value]) -> Result<()>;

    /// Takes the lock under which one deployment at a time changes the service.
    async fn lock_service(&self, name: &str) -> Result<Self::ServiceLock>;

    /// Gives the lock back. One that is not given back, for its holder was killed, is free after a while.
    async fn unlock_service(&self, lock: Self::ServiceLock) -> Result<()>;
}
