//! `tester gc`

use anyhow::Result;
use cli::{ExitCode, narrate};
use provider::Instances;

/// Terminates the instances whose time is over, and prints their ids.
pub(crate) async fn run(provider: &impl Instances) -> Result<ExitCode> {
    let outlived = provider.outlived().await?;
    if outlived.is_empty() {
        narrate::unchanged("no instance has outlived its test");
    }
    for instance in outlived {
        narrate::step(&format!(
            "Terminating {}, the {}, launched {}...",
            instance.id, instance.purpose, instance.launched
        ));
        provider.terminate(&instance.id).await?;
        println!("{}", instance.id);
    }
    Ok(ExitCode::Done)
}
