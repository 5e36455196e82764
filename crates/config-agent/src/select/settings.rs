//! `/etc/config-agent/select.toml`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde::Deserialize;

use super::{Pattern, Source};
use crate::bad_input::BadInput;
use crate::imds;
use crate::settings::Span;
use crate::toml_file::TomlFile;

/// What is chosen from, by whose word, and where it goes.
#[derive(Debug)]
pub struct Settings {
    /// Which files there may be.
    pub pattern: Pattern,
    /// The name under which the service finds its configuration.
    pub destination: PathBuf,
    /// How it gets there.
    pub how: How,
    /// The sources that were named, in order; `None` for all.
    pub from: Option<Vec<Source>>,
    /// The file of [`Source::File`].
    pub file: PathBuf,
    /// Where the kernel's command line is.
    pub cmdline: PathBuf,
    /// Where the metadata service is.
    pub imds: String,
    /// How long the metadata service is asked.
    pub imds_deadline: Duration,
}

/// How a configuration is put in place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// A symbolic link to it.
    #[default]
    Link,
    /// A copy, with its mode and owner.
    Copy,
}

/// What the command line says instead of the file.
#[derive(Debug, Default)]
pub struct Overrides {
    /// Instead of `pattern`.
    pub pattern: Option<String>,
    /// Instead of `destination`.
    pub destination: Option<PathBuf>,
    /// Instead of `how`.
    pub how: Option<How>,
    /// Instead of `from`.
    pub from: Option<Vec<Source>>,
    /// Instead of `file`.
    pub file: Option<PathBuf>,
    /// Instead of `imds`.
    pub imds: Option<String>,
    /// Instead of `imds_deadline`.
    pub imds_deadline: Option<Duration>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    pattern: Option<String>,
    destination: Option<PathBuf>,
    how: Option<How>,
    from: Option<Vec<Source>>,
    file: Option<PathBuf>,
    cmdline: Option<PathBuf>,
    imds: Option<String>,
    imds_deadline: Option<Span>,
}

const DOING: &str = "reading what is to be chosen";

impl Settings {
    /// Reads the file, which may be missing if the command line says all that is needed.
    pub fn read(path: &Path, over: Overrides) -> Result<Self, BadInput> {
        let enough = over.pattern.is_some() && over.destination.is_some();
        let (written, file) = if enough && !path.exists() {
            TomlFile::parse::<Written>(DOING, path, String::new())?
        } else {
            TomlFile::read(DOING, path)?
        };
        let missing = |key: &str| file.complaint(&[key], "is missing", "add it; docs/config-agent.md has an example");
        let pattern = over.pattern.or(written.pattern).ok_or_else(|| missing("pattern"))?;
        let pattern = Pattern::parse(&pattern)
            .map_err(|why| file.complaint(&["pattern"], &why, "write, say, /etc/{country}-{environment}-conf.json"))?;
        let from = over.from.or(written.from);
        if from.as_ref().is_some_and(Vec::is_empty) {
            return Err(file.complaint(&["from"], "is empty", "name a source, or remove it to ask all"));
        }
        Ok(Self {
            pattern,
            destination: over.destination.or(written.destination).ok_or_else(|| missing("destination"))?,
            how: over.how.or(written.how).unwrap_or_default(),
            from,
            file: over.file.or(written.file).unwrap_or_else(|| "/etc/config-agent/instance".into()),
            cmdline: written.cmdline.unwrap_or_else(|| "/proc/cmdline".into()),
            imds: over.imds.or(written.imds).unwrap_or_else(|| imds::ADDRESS.to_owned()),
            imds_deadline: over
                .imds_deadline
                .or(written.imds_deadline.map(Into::into))
                .unwrap_or(Duration::from_secs(60)),
        })
    }

    /// The sources to ask, in order.
    pub fn sources(&self) -> Vec<Source> {
        let all = || vec![Source::Imds, Source::Cmdline, Source::File, Source::Environment];
        self.from.clone().unwrap_or_else(all)
    }

    /// Whether someone named this source, and so relies on it.
    pub fn named(&self, source: Source) -> bool {
        self.from.as_ref().is_some_and(|from| from.contains(&source))
    }
}
