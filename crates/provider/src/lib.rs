//! Where artifacts, images, instances and fleets are, behind one seam.
//!
//! A stage's logic is written once against four traits, in verbs of this domain:
//! [`Objects`], [`Images`], [`Instances`] and [`Fleets`]. A provider is a module
//! directory that implements them; [`Provider`] is the choice between providers,
//! and [`dispatch!`] turns that choice into a type.
//!
//! Nothing outside `local/` (and the `locald` program, its other half) knows of
//! loop devices, nspawn or HAProxy.

pub mod archive;
mod fleets;
mod images;
mod instances;
pub mod local;
mod objects;

use anyhow::{Result, bail};
use cli::args::{ProviderArgs, ProviderName};
use cli::narrate;

pub use fleets::{Fleets, Group, GroupSpec, Member, MemberHealth, Service, ServiceSpec};
pub use images::{
    Attachment, ImageFilter, Images, LayerRecord, RegisteredImage, Registration, SourceImage, StoredVerdict,
    VolumeRecord, VolumeSpec, root_partition,
};
pub use instances::{Instance, InstanceState, Instances, LaunchSpec, Offer};
pub use objects::{ObjectDigest, Objects};

/// The provider that the command line chose.
pub enum Provider {
    /// This machine.
    Local(local::Local),
}

/// Opens the provider that the command line chose.
pub fn open(args: &ProviderArgs) -> Result<Provider> {
    match args.provider {
        ProviderName::Local => Ok(Provider::Local(local::Local::open(args)?)),
        ProviderName::Aws => bail!("this build has no AWS provider: use --provider local"),
    }
}

/// Opens the provider that the command line chose, to look and not to change: `None`, and a note, where it has no state.
pub fn open_to_look(args: &ProviderArgs) -> Result<Option<Provider>> {
    match args.provider {
        ProviderName::Local if !args.state_dir.exists() => {
            narrate::note(&format!("there is no state in {}", args.state_dir.display()));
            Ok(None)
        }
        _ => open(args).map(Some),
    }
}

/// Runs an expression with the chosen provider as a concrete type.
///
/// Async methods of a trait are not dyn-compatible, so the choice is made once,
/// here, and everything below it is generic.
#[macro_export]
macro_rules! dispatch {
    ($provider:expr, $name:ident => $body:expr) => {
        match $provider {
            $crate::Provider::Local($name) => $body,
        }
    };
}
