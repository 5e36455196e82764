//! What the local provider and its supervisor `locald` say to each other, and where they meet.
//!
//! Requests are HTTP with JSON bodies on a unix socket. What can be read is read from files, which
//! locald alone writes, so that read-only commands never start it:
//!
//! ```text
//! locald/{locald, process.json, log}     the copy that runs, which process that is, what it says
//! instances/ID/{instance.json, process.json, console.log}
//! services/NAME/{service.json, process.json, journal}
//! /run/kiln-KEY/                         sockets, and nothing that a reboot may not take
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use cli::process::ProcessId;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Group, Instance, LaunchSpec, Service, ServiceSpec};

/// The version of this interface. A client that meets another one asks that locald to hand over.
pub const API_VERSION: u32 = 2;

/// How long the balancer waits between two checks of a healthy instance.
pub const CHECK_PAUSE: Duration = Duration::from_millis(500);

/// How long a check of a healthy instance may take and still count as another one: the pause begins when it ends.
const CHECK_DURATION: Duration = Duration::from_millis(100);

/// What locald answers to `GET /hello`, in every version of the interface.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hello {
    /// The version of the interface that it speaks.
    pub api: u32,
    /// The process.
    pub process: ProcessId,
}

/// The body of `POST /instances`; the answer is an [`Instance`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Launch {
    /// What is to be launched.
    pub spec: LaunchSpec,
    /// The process whose end is the instance's end.
    pub owner: ProcessId,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// The whole message, for the user.
    pub error: String,
}

/// Whom an instance belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// A process: when it ends, the instance is terminated.
    Process(ProcessId),
    /// A group of a service.
    Group {
        /// The service.
        service: String,
        /// The group.
        group: String,
    },
}

/// `instances/ID/instance.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// What is shown of it.
    pub instance: Instance,
    /// Whom it belongs to.
    pub owner: Owner,
    /// Its address, from the start.
    pub address: Ipv4Addr,
    /// What its cloud-init is given.
    pub user_data: Option<String>,
}

/// `services/NAME/service.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What it was created as, with `listen` filled in.
    pub spec: ServiceSpec,
    /// The balancer's address in the fleet's network.
    pub address: Ipv4Addr,
    /// Where the host can ask for its DNS name.
    pub resolver: SocketAddr,
    /// Its groups by name.
    pub groups: BTreeMap<String, GroupRecord>,
}

/// A group within a [`ServiceRecord`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupRecord {
    /// What is shown of it.
    pub group: Group,
    /// Ids of its instances.
    pub members: Vec<String>,
}

impl ServiceRecord {
    /// What is shown of the service.
    pub fn service(&self, running: bool) -> Service {
        Service {
            spec: self.spec.clone(),
            url: format!("http://127.0.0.1:{}/", self.spec.listen.unwrap_or_default()),
            resolver: Some(self.resolver),
            groups: self.groups.iter().map(|(name, record)| (name.clone(), record.group.clone())).collect(),
            running,
            check_interval: CHECK_PAUSE + CHECK_DURATION,
        }
    }
}

/// Where things of one state directory are, and what they are called.
#[derive(Debug, Clone)]
pub struct Place {
    state: PathBuf,
    key: String,
}

impl Place {
    /// The place of a state directory that exists.
    pub fn of(state: &Path) -> Result<Self> {
        let state = fs::canonicalize(state).with_context(|| format!("state directory {}", state.display()))?;
        let digest = hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()));
        Ok(Self { key: format!("kiln-{}", &digest[..8]), state })
    }

    /// The state directory, without symbolic links.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// `kiln-` and eight digits that stand for the state directory: the name of the fleet's network
    /// namespace and control group, and the beginning of the names of the instances'.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The directory of sockets. The path of a socket holds 107 bytes (unix(7)), the one of a state
    /// directory may be longer: so they are not in there.
    pub fn run(&self) -> PathBuf {
        Path::new("/run").join(&self.key)
    }

    /// The socket of locald.
    pub fn socket(&self) -> PathBuf {
        self.run().join("locald")
    }

    /// Files of locald itself.
    pub fn locald(&self) -> PathBuf {
        self.state.join("locald")
    }

    /// Files of an instance.
    pub fn instance(&self, id: &str) -> PathBuf {
        self.state.join("instances").join(id)
    }

    /// Files of a service.
    pub fn service(&self, name: &str) -> PathBuf {
        self.state.join("services").join(name)
    }

    /// Whether the process recorded in `directory` runs.
    pub fn runs(&self, directory: &Path) -> bool {
        matches!(read_json::<ProcessId>(&directory.join("process.json")), Ok(Some(process)) if process.is_alive())
    }

    /// The records of all instances.
    pub fn instance_records(&self) -> Result<Vec<InstanceRecord>> {
        read_all(&self.state.join("instances"), "instance.json")
    }

    /// The records of all services.
    pub fn service_records(&self) -> Result<Vec<ServiceRecord>> {
        read_all(&self.state.join("services"), "service.json")
    }
}

/// Reads a record; `None` if there is no such file.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    serde_json::from_slice(&text).map(Some).with_context(|| format!("reading {}", path.display()))
}

/// Writes a record such that a reader, and the machine after a power cut, has the old or the new one.
pub fn write_json<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(record)?)
}

/// Writes a file such that a reader, and the machine after a power cut, has the old or the new one.
pub fn write_whole(path: &Path, content: &[u8]) -> Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    let write = || -> Result<()> {
        fs::create_dir_all(directory)?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        fs::File::open(directory)?.sync_all()?;
        Ok(())
    };
    write().with_context(|| format!("writing {}", path.display()))
}

fn read_all<T: DeserializeOwned>(directory: &Path, name: &str) -> Result<Vec<T>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", directory.display())),
    };
    let mut records = Vec::new();
    for entry in entries {
        // A directory without a record is one that is being made or removed.
        records.extend(read_json(&entry?.path().join(name))?);
    }
    Ok(records)
}
