//! What is said of each store.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;

use super::Span;
use crate::bad_input::BadInput;
use crate::imds;
use crate::toml_file::TomlFile;

/// The one store that an agent follows.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreSettings {
    /// etcd, version 3 of its API.
    Etcd(EtcdSettings),
    /// Consul's key-value store.
    Consul(ConsulSettings),
    /// AWS Systems Manager's Parameter Store.
    Ssm(SsmSettings),
    /// A tree of files.
    Directory(DirectorySettings),
}

/// `[store.etcd]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdSettings {
    /// URLs of the members.
    pub addresses: Vec<String>,
    /// Who the agent is, if the store asks.
    pub user: Option<String>,
    /// The file that has the user's password.
    pub password_file: Option<PathBuf>,
    /// How the members are known.
    pub tls: Option<Tls>,
}

/// `[store.consul]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsulSettings {
    /// URL of the agent, which is best the one on the same machine.
    pub address: String,
    /// The file that has the ACL token.
    pub token_file: Option<PathBuf>,
    /// How long a query waits for a change. Consul allows ten minutes at most.
    #[serde(default = "consul_wait")]
    pub wait: Span,
    /// How the agent is known.
    pub tls: Option<Tls>,
}

/// `[store.ssm]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SsmSettings {
    /// The region; `AWS_REGION` or the instance's own if there is none.
    pub region: Option<String>,
    /// Another URL than the region's own.
    pub endpoint: Option<String>,
    /// A file as `~/.aws/credentials`; without one `AWS_ACCESS_KEY_ID` counts, and then the instance's role.
    pub credentials_file: Option<PathBuf>,
    /// How often parameters are read: there is no way to be told of a change.
    #[serde(default = "ssm_interval")]
    pub interval: Span,
    /// Where the metadata service is that gives the instance's role.
    #[serde(default = "imds_address")]
    pub imds: String,
    /// How the endpoint is known.
    pub tls: Option<Tls>,
}

/// `[store.directory]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectorySettings {
    /// The root of the tree: the key `/a/b` is the file `a/b` below it.
    pub path: PathBuf,
}

/// Certificates, in PEM.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Who vouches for the store; the system's own authorities if there is none.
    pub ca: Option<PathBuf>,
    /// The agent's own certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
}

impl Tls {
    /// The agent's certificate and key.
    pub fn identity(&self) -> Option<(&Path, &Path)> {
        self.cert.as_deref().zip(self.key.as_deref())
    }
}

impl StoreSettings {
    /// Checks what the types do not say.
    pub(super) fn check(&self, file: &TomlFile) -> Result<(), BadInput> {
        match self {
            Self::Etcd(etcd) => {
                let key = ["store", "etcd", "addresses"];
                if etcd.addresses.is_empty() {
                    return Err(file.complaint(&key, "is empty", "write, say, [\"https://etcd-1:2379\"]"));
                }
                etcd.addresses.iter().try_for_each(|address| url(file, &key, address))?;
                if etcd.user.is_some() != etcd.password_file.is_some() {
                    let remedy = "write both or neither";
                    return Err(file.complaint(
                        &["store", "etcd"],
                        "has only one of 'user' and 'password_file'",
                        remedy,
                    ));
                }
                let secure = etcd.addresses.iter().any(|address| address.starts_with("https://"));
                let ca = etcd.tls.as_ref().and_then(|tls| tls.ca.as_ref());
                if secure && ca.is_none() {
                    let why = "has an https address, but no certificate authority";
                    return Err(file.complaint(&["store", "etcd"], why, "name its file as ca in [store.etcd.tls]"));
                }
                tls(file, &["store", "etcd", "tls"], etcd.tls.as_ref())
            }
            Self::Consul(consul) => {
                url(file, &["store", "consul", "address"], &consul.address)?;
                if consul.wait < Span::seconds(1) || consul.wait > Span::seconds(600) {
                    let why = "is not between a second and ten minutes";
                    return Err(file.complaint(&["store", "consul", "wait"], why, "write, say, \"5m\""));
                }
                tls(file, &["store", "consul", "tls"], consul.tls.as_ref())
            }
            Self::Ssm(ssm) => {
                if let Some(endpoint) = &ssm.endpoint {
                    url(file, &["store", "ssm", "endpoint"], endpoint)?;
                }
                if ssm.interval < Span::millis(100) {
                    let why = "is too short: the service throttles who asks too often";
                    return Err(file.complaint(&["store", "ssm", "interval"], why, "write, say, \"30s\""));
                }
                tls(file, &["store", "ssm", "tls"], ssm.tls.as_ref())
            }
            Self::Directory(directory) if !directory.path.is_absolute() => {
                Err(file.complaint(&["store", "directory", "path"], "is not absolute", "write the whole path"))
            }
            Self::Directory(_) => Ok(()),
        }
    }

    /// The kind, as it is written.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::Consul(_) => "consul",
            Self::Ssm(_) => "ssm",
            Self::Directory(_) => "directory",
        }
    }
}

/// A token or password, from a file that others cannot read. It is read anew for each connection, so it can be changed.
pub fn secret(path: &Path) -> Result<String> {
    let doing = || format!("reading the secret in {}", path.display());
    let mode = fs::metadata(path).with_context(doing)?.mode();
    if mode & 0o007 != 0 {
        let why = format!("everyone can use it (mode {:04o})", mode & 0o7777);
        return Err(BadInput::new("reading a secret", why, "chmod 600").in_file(path).into());
    }
    Ok(fs::read_to_string(path).with_context(doing)?.trim().to_owned())
}

fn url(file: &TomlFile, key: &[&str], text: &str) -> Result<(), BadInput> {
    if text.starts_with("http://") || text.starts_with("https://") {
        return Ok(());
    }
    Err(file.complaint(key, &format!("has '{text}', which is no URL"), "write, say, https://HOST:PORT"))
}

fn tls(file: &TomlFile, key: &[&str], tls: Option<&Tls>) -> Result<(), BadInput> {
    match tls {
        Some(tls) if tls.cert.is_some() != tls.key.is_some() => {
            Err(file.complaint(key, "has only one of 'cert' and 'key'", "write both or neither"))
        }
        _ => Ok(()),
    }
}

fn consul_wait() -> Span {
    Span::seconds(300)
}

fn ssm_interval() -> Span {
    Span::seconds(30)
}

fn imds_address() -> String {
    imds::ADDRESS.to_owned()
}
