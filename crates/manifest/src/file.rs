//! The document as text, and as a file with that text.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::{Component, Manifest, SCHEMA_VERSION};

/// Why a manifest could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such file.
    #[error("no manifest at {path}: run the stage before this one, or name the file with --manifest")]
    Missing {
        /// The file that was looked for.
        path: PathBuf,
    },
    /// It is not a manifest.
    #[error("{path}:{line}:{column}: not a manifest: {why}; mend it, or move it away and start with `artifact build`")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line of the first fault, from 1.
        line: usize,
        /// Column of the first fault, from 1.
        column: usize,
        /// What is wrong there.
        why: String,
    },
    /// A newer version of this tool wrote it.
    #[error(
        "{path}: its schema_version is {found}, and this build knows up to {SCHEMA_VERSION}: use the version of Kiln that wrote it, or a newer one"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version that it states.
        found: u64,
    },
    /// The file system refused.
    #[error("manifest {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// Reads the manifest at `path`.
pub fn read(path: &Path) -> Result<Manifest, ReadError> {
    let text = fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing { path: path.to_owned() },
        _ => ReadError::Io { path: path.to_owned(), source },
    })?;
    parse(path, &text)
}

/// Makes the new document of the old one, `before`, or of a new one for `initial` where there is none. Returns it with its
/// text. `path` is where it stands, for messages.
pub fn edit(
    path: &Path,
    before: Option<&str>,
    initial: Option<&Component>,
    change: impl FnOnce(&mut Manifest),
) -> Result<(Manifest, String), ReadError> {
    let mut manifest = match (before, initial) {
        (Some(text), _) => parse(path, text)?,
        (None, Some(component)) => Manifest::new(component.clone()),
        (None, None) => return Err(ReadError::Missing { path: path.to_owned() }),
    };
    change(&mut manifest);
    manifest.mark_stale();
    let text = serde_json::to_string_pretty(&manifest);
    let text = text.map_err(|error| ReadError::Io { path: path.to_owned(), source: error.into() })?;
    Ok((manifest, text + "\n"))
}

/// Changes the manifest at `path` under a lock on it, starting with `initial` where there is none. What says the same
/// already is not written again.
///
/// The new document replaces the old one in one rename, after it has reached the
/// disk; a run that is killed leaves the old one.
pub fn update(
    path: &Path,
    initial: Option<&Component>,
    change: impl FnOnce(&mut Manifest),
) -> Result<Manifest, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if initial.is_some() {
        fs::create_dir_all(directory).map_err(io)?;
    }
    let _lock = lock(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing { path: path.to_owned() },
        _ => io(source),
    })?;
    let before = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io(error)),
    };
    let (manifest, text) = edit(path, before.as_deref(), initial, change)?;
    if before.as_ref() == Some(&text) {
        return Ok(manifest);
    }
    // The lock is held, so its name can be the same each time, and what a killed run left of it goes.
    let new = beside(path, ".new");
    write(&new, &text).and_then(|()| fs::rename(&new, path)).map_err(|error| {
        // It may not even be there.
        let _ = fs::remove_file(&new);
        io(error)
    })?;
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)?;
    Ok(manifest)
}

/// Writes the text to a new file that everybody may read: the manifest is for every stage, whoever runs it. What has the
/// name is removed, not opened: in a directory of many it could be somebody's link to something else.
fn write(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(path)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The lock stands beside the manifest: the manifest itself is replaced by every write.
fn lock(path: &Path) -> io::Result<File> {
    let lock = OpenOptions::new().create(true).truncate(false).write(true).open(beside(path, ".lock"))?;
    lock.lock()?;
    Ok(lock)
}

/// The file beside `path` whose name ends so.
fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(end);
    path.with_file_name(name)
}

/// Reads the text of a manifest. `path` is where it stands, for messages.
pub fn parse(path: &Path, text: &str) -> Result<Manifest, ReadError> {
    let malformed = |error: serde_json::Error| ReadError::Malformed {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        why: strip_position(&error.to_string()),
    };
    /// The version is looked at first: a newer document need not parse as ours.
    #[derive(serde::Deserialize)]
    struct Versioned {
        schema_version: u64,
    }
    let Versioned { schema_version: found } = serde_json::from_str(text).map_err(malformed)?;
    if found > u64::from(SCHEMA_VERSION) {
        return Err(ReadError::Newer { path: path.to_owned(), found });
    }
    serde_json::from_str(text).map_err(malformed)
}

fn strip_position(message: &str) -> String {
    message.rsplit_once(" at line ").map_or(message, |(why, _)| why).to_owned()
}
