//! Arguments that several binaries take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::lock::IfHeld;

/// Where images, instances and fleets are.
#[derive(Debug, Clone, Args)]
pub struct ProviderArgs {
    /// Which provider has the images, instances and fleets.
    #[arg(long, value_enum, default_value_t, env = "KILN_PROVIDER", global = true)]
    pub provider: ProviderName,

    /// Directory in which the local provider keeps its state.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kiln", env = "KILN_STATE_DIR", global = true)]
    pub state_dir: PathBuf,

    /// Exit instead of waiting when another run holds a lock that is needed.
    #[arg(long, global = true)]
    pub no_wait: bool,
}

impl ProviderArgs {
    /// What `--no-wait` says.
    pub fn if_held(&self) -> IfHeld {
        if self.no_wait { IfHeld::Fail } else { IfHeld::Wait }
    }
}

/// A provider, by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProviderName {
    /// Disks, systems and a balancer on this machine.
    #[default]
    Local,
    /// EC2 and its relatives.
    Aws,
}

/// Where artifacts are.
#[derive(Debug, Clone, Args)]
pub struct StoreArgs {
    /// The artifact store: a directory or s3://BUCKET/PREFIX.
    #[arg(long, value_name = "DIR|URL", env = "KILN_STORE")]
    pub store: Option<String>,
}

/// The document that the stages pass on.
#[derive(Debug, Clone, Args)]
pub struct ManifestArgs {
    /// The manifest that this stage reads and adds its section to: a file or s3://BUCKET/KEY.
    #[arg(long, value_name = "FILE|URL", default_value = "manifest.json", env = "KILN_MANIFEST")]
    pub manifest: PathBuf,

    /// Do it again even if it is done already.
    #[arg(long)]
    pub force: bool,
}
