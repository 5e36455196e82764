//! Files and directories of the state directory: records in JSON, written as a whole.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Removes a directory with all that it holds; one that is gone is as it should be.
pub(super) fn remove_dir(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// The names in a directory; none if there is no such directory.
pub(super) fn names_in(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", directory.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Reads a JSON file; `None` if there is none.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

/// Writes a JSON file as a whole.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    write_atomically(path, &serde_json::to_vec_pretty(value)?)
}

/// Replaces a file as a whole: after a crash it has the old or the new content.
pub(super) fn write_atomically(path: &Path, content: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let directory = path.parent().with_context(doing)?;
    fs::create_dir_all(directory).with_context(doing)?;
    let mut temporary = tempfile::NamedTempFile::new_in(directory).with_context(doing)?;
    temporary.write_all(content).with_context(doing)?;
    temporary.as_file().set_permissions(Permissions::from_mode(0o644)).with_context(doing)?;
    temporary.as_file().sync_all().with_context(doing)?;
    temporary.persist(path).with_context(doing)?;
    File::open(directory).and_then(|directory| directory.sync_all()).with_context(doing)
}
