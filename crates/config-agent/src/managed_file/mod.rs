//! Files that the agent keeps: one TOML file in `conf.d` for each.

mod source;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::bad_input::BadInput;
use crate::replace::Access;
use crate::template::Templates;
use crate::values::Selector;
pub use source::Source;

/// A file that is kept: what it is made from, where it goes, and who is told.
#[derive(Debug, Clone)]
pub struct ManagedFile {
    /// The name of its TOML file, without `.toml`.
    pub name: String,
    /// The template, by its whole path.
    pub template: PathBuf,
    /// Where the file goes.
    pub destination: PathBuf,
    /// Its mode and owner.
    pub access: Access,
    /// The template's variables, and what each is in the store.
    pub values: BTreeMap<String, Source>,
    /// The shell command that must accept the candidate, whose path is in `CANDIDATE`.
    pub check: Option<String>,
    /// What makes the service read the file.
    pub reload: Option<Reload>,
    /// The files that change with it or not at all.
    pub group: Option<String>,
    /// How it is known that the service still works.
    pub health: Option<Health>,
    /// How long changes may follow one another before the file is made.
    pub quiescence: Quiescence,
    /// A random delay of at most this, so that not all machines change at once.
    pub splay: Duration,
}

/// What makes a service read its files again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reload {
    /// A shell command.
    Command(String),
    /// A systemd unit, which is reloaded, or restarted if it cannot be, and only if it runs.
    Unit(String),
}

/// How it is known that a service works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// How long it may take to become healthy after a reload.
    pub within: Duration,
    /// How long it must stay so.
    pub stay: Duration,
}

/// What is asked whether a service works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A shell command that must succeed.
    Command(String),
    /// A systemd unit that must be active.
    Unit(String),
}

/// How long a file waits while changes follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quiescence {
    /// How long nothing must have changed.
    pub min: Duration,
    /// How long it waits at most.
    pub max: Duration,
}

impl ManagedFile {
    /// Reads all files of `conf_dir` in the order of their names.
    pub fn read_all(conf_dir: &Path, template_dir: &Path) -> Result<Vec<Self>> {
        let doing = || format!("reading the directory {}", conf_dir.display());
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(conf_dir).with_context(doing)? {
            let path = entry.with_context(doing)?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        let files: Vec<_> =
            paths.iter().map(|path| written::read(path, template_dir)).collect::<Result<_, BadInput>>()?;
        if files.is_empty() {
            let remedy = "add one for each file that is to be kept";
            return Err(BadInput::new("reading conf.d", "it has no .toml file", remedy).in_file(conf_dir).into());
        }
        let mut destinations = BTreeMap::new();
        for (file, path) in files.iter().zip(&paths) {
            if let Some(other) = destinations.insert(&file.destination, path) {
                let why = format!("{} is the destination of {} already", file.destination.display(), other.display());
                return Err(BadInput::new("reading conf.d", why, "give each its own").in_file(path).into());
            }
        }
        Ok(files)
    }

    /// The keys that it is made from.
    pub fn selectors(&self) -> impl Iterator<Item = &Selector> {
        self.values.values().map(|source| &source.selector)
    }
}

/// Compiles the templates of all files.
pub fn load_templates(files: &[ManagedFile]) -> Result<Templates, BadInput> {
    let mut templates = Templates::new();
    for file in files {
        templates.load(&file.template, file.values.keys().map(String::as_str))?;
    }
    Ok(templates)
}
