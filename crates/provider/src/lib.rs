//! Where artifacts, images, instances and fleets are, behind one seam.
//!
//! A stage's logic is written once against four traits, in verbs of this domain:
//! [`Objects`], [`Images`], [`Instances`] and [`Fleets`]. A provider is a module
//! directory that implements them; [`Provider`] is the choice between providers,
//! and [`dispatch!`] turns that choice into a type.
//!
//! Nothing outside `local/` (and the `locald` program, its other half) knows of
//! loop devices, nspawn or HAProxy; nothing outside `aws/` knows of AWS's SDK, and without the feature `aws`
//! nothing links it.

pub mod archive;
#[cfg(feature = "aws")]
pub mod aws;
mod fleets;
mod images;
mod instances;
pub mod local;
mod manifest_place;
mod objects;
pub mod origin;
mod publish;
mod store;

use anyhow::Result;
use cli::args::{ProviderArgs, ProviderName};
use cli::narrate;

pub use fleets::{Fleets, Group, GroupSpec, Intent, Member, MemberHealth, NotHealthy, Service, ServiceSpec, shares};
pub use images::{
    Access, AccessKeys, Attachment, ImageFilter, Images, InUse, LayerRecord, LeftOver, RegisteredImage, Registration,
    SourceImage, StoredVerdict, VolumeRecord, VolumeSpec, partition, root_partition,
};
pub use instances::{Instance, InstanceState, Instances, LaunchSpec, Offer};
pub use manifest_place::ManifestPlace;
pub use objects::{ObjectDigest, Objects};
pub use publish::{PublishSpec, Published, known_here};
pub use store::Store;

/// The provider that the command line chose.
pub enum Provider {
    /// This machine.
    Local(local::Local),
    /// EC2 and its relatives.
    #[cfg(feature = "aws")]
    Aws(aws::Aws),
}

impl Provider {
    /// This machine, if that was chosen: some things are only made here.
    pub fn local(&self) -> Option<&local::Local> {
        match self {
            Self::Local(local) => Some(local),
            #[cfg(feature = "aws")]
            Self::Aws(_) => None,
        }
    }
}

/// Opens the provider that the command line chose.
pub async fn open(args: &ProviderArgs) -> Result<Provider> {
    match args.provider {
        ProviderName::Local => Ok(Provider::Local(local::Local::open(args)?)),
        #[cfg(feature = "aws")]
        ProviderName::Aws => Ok(Provider::Aws(aws::Aws::open(args).await?)),
        #[cfg(not(feature = "aws"))]
        ProviderName::Aws => Err(built_without_aws("opening the provider aws").into()),
    }
}

/// What is to be done is on AWS, which this program knows nothing of.
#[cfg(not(feature = "aws"))]
fn built_without_aws(doing: &str) -> cli::BadInput {
    const REMEDY: &str =
        "build it with `cargo build --features aws`, or use --provider local and files of this machine";
    cli::BadInput::new(doing, "this program was built without AWS", REMEDY)
}

/// Opens the provider that the command line chose, to look and not to change: `None`, and a note, where it has no state.
pub async fn open_to_look(args: &ProviderArgs) -> Result<Option<Provider>> {
    match args.provider {
        ProviderName::Local if !args.state_dir.exists() => {
            narrate::note(&format!("there is no state in {}", args.state_dir.display()));
            Ok(None)
        }
        _ => open(args).await.map(Some),
    }
}

/// Runs an expression with the chosen provider as a concrete type.
///
/// Async methods of a trait are not dyn-compatible, so the choice is made once,
/// here, and everything below it is generic.
#[cfg(feature = "aws")]
#[macro_export]
macro_rules! dispatch {
    ($provider:expr, $name:ident => $body:expr) => {
        match $provider {
            $crate::Provider::Local($name) => $body,
            $crate::Provider::Aws($name) => $body,
        }
    };
}

/// Runs an expression with the chosen provider as a concrete type.
#[cfg(not(feature = "aws"))]
#[macro_export]
macro_rules! dispatch {
    ($provider:expr, $name:ident => $body:expr) => {
        match $provider {
            $crate::Provider::Local($name) => $body,
        }
    };
}
