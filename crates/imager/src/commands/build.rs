//! `imager build`

use anyhow::Result;
use cli::ExitCode;
use provider::Images;

use super::{provision, snapshot};

/// Provisions, then registers.
pub(crate) async fn run(provider: &(impl Images + Sync), args: &provision::Args) -> Result<ExitCode> {
    provision::run(provider, args).await?;
    snapshot::run(provider, &snapshot::Args { manifest: args.manifest.clone(), only: args.only.clone() }).await
}
