//! What all instances and services share: network, name servers, metadata.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use provider::local::api::{InstanceRecord, Place, ServiceRecord, read_json, write_json, write_whole};
use tokio::task::JoinHandle;

use crate::daemon::{Daemon, kept_command};
use crate::kept::Kept;
use crate::names;
use crate::network::Network;

/// How often a port is chosen that is free for TCP until it is free for UDP, too.
const PORT_TRIES: u32 = 20;

/// The running common part of a fleet.
pub struct Fleet {
    place: Place,
    network: Network,
    fleet_names: Arc<Daemon>,
    host_names: Arc<Daemon>,
    metadata: JoinHandle<()>,
    /// Where the host can ask for the services' names.
    pub resolver: SocketAddr,
}

impl Fleet {
    /// Makes the network, and starts or adopts the name servers.
    pub async fn start(
        place: &Place,
        network: &Network,
        metadata: impl FnOnce(TcpListener) -> JoinHandle<()>,
    ) -> Result<Self> {
        network.create()?;
        let resolver = resolver(place)?;
        let fleet_dir = place.locald().join("fleet-names");
        let host_dir = place.locald().join("host-names");
        let netns = network.path();
        write_names(place)?;
        let fleet_config = names::fleet_config(&fleet_dir);
        let host_config = names::host_config(&host_dir, resolver.port());
        let fleet_names = dnsmasq(fleet_dir, Some(netns), fleet_config).await?;
        let host_names = dnsmasq(host_dir, None, host_config).await?;
        let metadata = metadata(network.listen(crate::network::METADATA, 80)?);
        Ok(Self { place: place.clone(), network: network.clone(), fleet_names, host_names, metadata, resolver })
    }

    /// Tells the name servers which instances and services are recorded now.
    pub fn tell_names(&self) -> Result<()> {
        write_names(&self.place)?;
        self.fleet_names.reload();
        self.host_names.reload();
        Ok(())
    }

    /// Ends all of it and removes the network.
    pub async fn end(&self) -> Result<()> {
        self.metadata.abort();
        self.fleet_names.end().await;
        self.host_names.end().await;
        for directory in ["fleet-names", "host-names"] {
            let _ = fs::remove_dir_all(self.place.locald().join(directory));
        }
        self.network.remove()
    }
}

fn write_names(place: &Place) -> Result<()> {
    let instances: Vec<InstanceRecord> = place.instance_records()?;
    let services: Vec<ServiceRecord> = place.service_records()?;
    let write = |file: &str, content: String| write_whole(&place.locald().join(file), content.as_bytes());
    write("fleet-names/instances", names::reservations(&instances))?;
    write("fleet-names/hosts", names::hosts(&services, |service| service.address))?;
    write("host-names/hosts", names::hosts(&services, |_| Ipv4Addr::LOCALHOST))
}

async fn dnsmasq(directory: PathBuf, netns: Option<PathBuf>, config: String) -> Result<Arc<Daemon>> {
    let (config_file, pid_file) = (directory.join("config"), directory.join("pid"));
    let is_current = fs::read_to_string(&config_file).is_ok_and(|present| present == config);
    if let (false, Some(old)) = (is_current, Kept::adopt(&directory)) {
        old.end(std::time::Duration::from_secs(5)).await;
    }
    write_whole(&config_file, config.as_bytes())?;
    let make = {
        let directory = directory.clone();
        Box::new(move || {
            let command = kept_command(&directory, netns.as_deref(), "dnsmasq")?;
            Ok(command.arg(format!("--conf-file={}", config_file.display())))
        })
    };
    // dnsmasq writes the file when it has opened its sockets.
    let ready = move |kept: &Kept| says(&pid_file, kept.pid());
    Daemon::start(&directory, make, Box::new(ready)).await.context("starting the fleet's name server")
}

fn says(pid_file: &Path, pid: i32) -> bool {
    fs::read_to_string(pid_file).is_ok_and(|text| text.trim() == pid.to_string())
}

/// The host's name server keeps the port that it was given at first.
fn resolver(place: &Place) -> Result<SocketAddr> {
    let file = place.locald().join("resolver.json");
    if let Some(kept) = read_json(&file)? {
        return Ok(kept);
    }
    for _ in 0..PORT_TRIES {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("choosing a port for the name server")?;
        let address = tcp.local_addr().context("choosing a port for the name server")?;
        if UdpSocket::bind(address).is_ok() {
            write_json(&file, &address)?;
            return Ok(address);
        }
    }
    bail!("no port on 127.0.0.1 is free for both TCP and UDP")
}
