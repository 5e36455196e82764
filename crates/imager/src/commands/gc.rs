//! `imager gc`

use anyhow::{Result, bail};
use cli::{ExitCode, narrate};
use provider::Images;

/// Arguments of `imager gc`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only say what would be deleted.
    #[arg(long)]
    dry_run: bool,
}

/// Deletes what runs have left that did not come to their end, and the volumes and layers that builds take up no more.
/// Prints the ids.
///
/// What cannot be deleted does not keep the rest from it.
pub(crate) async fn run(provider: &impl Images, args: &Args) -> Result<ExitCode> {
    let left_over = provider.left_over().await?;
    let (mut deleted, mut kept) = (0, Vec::new());
    for it in &left_over {
        if !args.dry_run
            && let Err(error) = provider.delete_left_over(it).await
        {
            narrate::note(&format!("{error:#}"));
            kept.push(it.id.as_str());
            continue;
        }
        let done = if args.dry_run { "would be deleted" } else { "deleted" };
        narrate::detail(&format!("{} {} {done} ({})", it.kind, it.id, it.from));
        println!("{}", it.id);
        deleted += 1;
    }
    if !kept.is_empty() {
        bail!("{} could not be deleted: see the notes above, and run again", kept.join(", "));
    }
    if deleted == 0 {
        narrate::unchanged("dead runs have left nothing, and nothing's time is past");
    }
    Ok(ExitCode::Done)
}
