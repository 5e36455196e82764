//! HAProxy as a process: what it is started with.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result};
use cli::Command;
use provider::local::api::{Place, ServiceRecord, read_json, write_whole};

use super::{Server, render, server_weights};
use crate::daemon::kept_command;
use crate::network::Network;

/// The servers that the balancer of a service is to have.
pub fn servers(record: &ServiceRecord, address_of: impl Fn(&str) -> Option<Ipv4Addr>) -> Vec<Server> {
    let shares: Vec<_> = record.groups.values().map(|group| (group.group.weight, group.members.len())).collect();
    let weights = server_weights(&shares);
    let members = record.groups.values().zip(weights);
    let members = members.flat_map(|(group, weight)| group.members.iter().map(move |id| (id, weight)));
    let server = |(id, weight): (&String, u32)| {
        Some(Server { id: id.clone(), address: address_of(id)?, port: record.spec.port, weight })
    };
    members.filter_map(server).collect()
}

/// HAProxy with a configuration of what is recorded now, and its listening socket as descriptor 0.
pub fn command(place: &Place, network: &Network, service: &str, socket: &Path) -> Result<Command> {
    let files = place.service(service);
    let record: ServiceRecord = read_json(&files.join("service.json"))?.context("the service has no record")?;
    let instances = place.instance_records()?;
    let address_of = |id: &str| instances.iter().find(|record| record.instance.id == id).map(|record| record.address);
    let config = files.join("haproxy.cfg");
    write_whole(&config, render(&record, &servers(&record, address_of), socket).as_bytes())?;
    let listener = listen(record.spec.listen)?;
    let command = kept_command(&files, Some(&network.path()), "haproxy")?.args(["-db", "-f"]).arg(config);
    Ok(command.configure(|command| {
        command.stdin(Stdio::from(OwnedFd::from(listener)));
    }))
}

/// Opens the port on which the host reaches the balancer; any free one if none is named.
pub fn listen(port: Option<u16>) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port.unwrap_or(0))).map_err(|error| match (error.kind(), port) {
        (std::io::ErrorKind::AddrInUse, Some(port)) => anyhow::anyhow!(
            "port {port} of 127.0.0.1, on which the balancer is to listen, is in use by another program \
             (`ss -ltnp sport = :{port}` names it): end that, or choose another port with `listen = ` in component.toml"
        ),
        _ => anyhow::Error::new(error).context("opening the balancer's port on 127.0.0.1"),
    })
}
