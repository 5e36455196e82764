//! `/etc/config-agent/config-agent.toml`: which store, and where things are.

mod span;
mod store;

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::bad_input::BadInput;
use crate::toml_file::TomlFile;
pub use span::Span;
pub use store::{ConsulSettings, DirectorySettings, EtcdSettings, SsmSettings, StoreSettings, Tls, secret};

/// Where the settings are unless an option says otherwise.
pub const PATH: &str = "/etc/config-agent/config-agent.toml";

/// The agent's settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The store that is followed.
    pub store: StoreSettings,
    /// The directory with one TOML file for each file that is kept.
    #[serde(default = "conf_dir")]
    pub conf_dir: PathBuf,
    /// Where templates are that are not named by an absolute path.
    #[serde(default = "template_dir")]
    pub template_dir: PathBuf,
    /// Where the agent keeps the last values, and which reloads are pending. For root alone: values may be secrets.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// The socket that answers `config-agent status`.
    #[serde(default = "socket")]
    pub socket: PathBuf,
    /// How long a check, reload or health command may run before it is killed.
    #[serde(default = "command_timeout")]
    pub command_timeout: Span,
}

impl Settings {
    /// Reads and checks the settings.
    pub fn read(path: &Path) -> Result<Self, BadInput> {
        let (settings, file): (Self, _) = TomlFile::read("reading the settings", path)?;
        settings.store.check(&file)?;
        Ok(settings)
    }
}

fn conf_dir() -> PathBuf {
    "/etc/config-agent/conf.d".into()
}

fn template_dir() -> PathBuf {
    "/etc/config-agent/templates".into()
}

fn state_dir() -> PathBuf {
    "/var/lib/config-agent".into()
}

fn socket() -> PathBuf {
    "/run/config-agent.sock".into()
}

fn command_timeout() -> Span {
    Span::seconds(60)
}
