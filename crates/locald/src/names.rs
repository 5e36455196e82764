//! Addresses and names: what dnsmasq is told.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;

use provider::local::api::{InstanceRecord, ServiceRecord};

use crate::network::{GATEWAY, METADATA, hardware_address};

/// The configuration of the fleet's name server, which also hands out the instances' addresses.
pub fn fleet_config(directory: &Path) -> String {
    format!(
        "# Written by locald.\n\
         {}\
         listen-address={GATEWAY}\n\
         dhcp-range=10.77.0.0,static,255.255.0.0,infinite\n\
         dhcp-authoritative\n\
         dhcp-rapid-commit\n\
         no-ping\n\
         dhcp-hostsfile={directory}/instances\n\
         dhcp-leasefile={directory}/leases\n\
         dhcp-option=option:router,{GATEWAY}\n\
         dhcp-option=option:dns-server,{GATEWAY}\n\
         # Who is given classless routes ignores the router (RFC 3442), so it is among them.\n\
         dhcp-option=option:classless-static-route,{METADATA}/32,{GATEWAY},0.0.0.0/0,{GATEWAY}\n",
        common(directory),
        directory = directory.display(),
    )
}

/// The configuration of the host's name server.
pub fn host_config(directory: &Path, port: u16) -> String {
    format!("# Written by locald.\n{}listen-address=127.0.0.1\nport={port}\n", common(directory))
}

/// It stays root because the state directory may be root's alone.
fn common(directory: &Path) -> String {
    let directory = directory.display();
    format!(
        "keep-in-foreground\n\
         user=root\n\
         bind-interfaces\n\
         no-resolv\n\
         no-hosts\n\
         log-facility={directory}/log\n\
         pid-file={directory}/pid\n\
         addn-hosts={directory}/hosts\n"
    )
}

/// The addresses of instances, as `dhcp-hostsfile`.
pub fn reservations<'a>(instances: impl IntoIterator<Item = &'a InstanceRecord>) -> String {
    instances.into_iter().fold(String::new(), |mut lines, record| {
        let _ = writeln!(lines, "{},{}", hardware_address(record.address), record.address);
        lines
    })
}

/// The names of services in hosts(5) format, with the address that `address_of` says.
pub fn hosts<'a>(
    services: impl IntoIterator<Item = &'a ServiceRecord>,
    address_of: impl Fn(&ServiceRecord) -> Ipv4Addr,
) -> String {
    services.into_iter().fold(String::new(), |mut lines, record| {
        let _ = writeln!(lines, "{} {}", address_of(record), record.spec.dns);
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fleet_has_addresses_and_names() {
        insta::assert_snapshot!(fleet_config(Path::new("/state/locald/fleet-dns")));
    }

    #[test]
    fn the_host_has_names_only() {
        insta::assert_snapshot!(host_config(Path::new("/state/locald/host-dns"), 5300));
    }
}
