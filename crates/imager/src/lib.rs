//! What `imager` is made of: a library for its program and for the fuzz target of its templates.

mod bake;
mod base;
mod chroot;
mod commands;
mod device;
mod diff;
mod explain;
mod isolation;
mod layers;
mod mounts;
mod on_error;
mod package_cache;
mod plan;
mod post_processors;
mod provisioners;
mod recipe;
mod session;
mod suppress_sync;
mod template;

use std::path::Path;

use anyhow::Result;

pub use commands::run;

use template::{GivenVariables, Template};

/// Reads the text of a template and fills in all of its builders, as far as that goes without a provider. An error
/// says what is wrong in it, and on which line.
pub fn read_template(text: &str) -> Result<serde_json::Value> {
    let template = Template::parse(Path::new("template.json"), text, Path::new("."), &GivenVariables::default())?;
    template.shown(&template.select(&[], &[])?)
}
