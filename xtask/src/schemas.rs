//! `cargo xtask schemas`

use std::fs;

use anyhow::{Context, Result};
use cli::{ExitCode, narrate};

use crate::workspace::Workspace;

/// Write the JSON Schema of the manifest to docs/schemas/. A test fails where it differs.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Asks the manifest's own package for the schema: this program stays free of it.
pub fn run(_: &Args) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let path = workspace.root.join("docs/schemas/manifest.schema.json");
    let example = ["run", "--quiet", "--package", "manifest", "--example", "schema"];
    let schema = workspace.cargo().args(example).run()?.stdout;
    if fs::read(&path).is_ok_and(|present| present == schema) {
        narrate::unchanged(&format!("{} is up to date", Workspace::shown(&path)));
        return Ok(ExitCode::Done);
    }
    fs::create_dir_all(path.with_file_name(""))
        .and_then(|()| fs::write(&path, schema))
        .with_context(|| format!("writing {}", path.display()))?;
    narrate::step(&format!("{} is written", Workspace::shown(&path)));
    narrate::finish();
    Ok(ExitCode::Done)
}
