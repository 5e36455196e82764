//! The subcommands.

pub(crate) mod run;
pub(crate) mod validate;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use probe::gossfile::{Gossfile, GossfileError};

/// Some checks failed; goss' number.
const FAILED: u8 = 1;
/// The arguments are wrong, or the report cannot be written; clap's number.
const USAGE: u8 = 2;
/// The gossfile cannot be loaded; goss' number (EX_CONFIG of sysexits.h).
const CONFIG: u8 = 78;

pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<GossfileError>() { CONFIG.into() } else { USAGE.into() }
}

fn load(path: &Path) -> Result<Gossfile, GossfileError> {
    let name = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Gossfile::parse(&name, &text),
        Err(error) => Err(GossfileError {
            file: name,
            line: None,
            why: format!("cannot be read ({error})"),
            remedy: "check the path, and that the file is text".to_owned(),
        }),
    }
}
