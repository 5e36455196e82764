//! The subcommands.

pub mod check;
pub mod once;
pub mod run;
pub mod select;
pub mod status;

use std::future::Future;
use std::path::Path;

use anyhow::{Context, Result};

use crate::managed_file::{ManagedFile, load_templates};
use crate::settings::Settings;
use crate::template::Templates;

/// Runs a command's body on this one thread: the agent waits far more than it works.
fn block_on<T>(body: impl Future<Output = Result<T>>) -> Result<T> {
    // Two cryptography providers could be linked; this says which one counts.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("starting the runtime")?.block_on(body)
}

/// Everything that belongs to the image: settings, conf.d and templates.
fn load(path: &Path) -> Result<(Settings, Vec<ManagedFile>, Templates)> {
    let settings = Settings::read(path)?;
    let files = ManagedFile::read_all(&settings.conf_dir, &settings.template_dir)?;
    let templates = load_templates(&files)?;
    Ok((settings, files, templates))
}
