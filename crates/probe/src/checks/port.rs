//! Listening sockets, from `/proc/net/{tcp,tcp6,udp,udp6}` (proc_net(5), and
//! `get_tcp4_sock` and its likes in the kernel).

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Found, unknown};
use crate::gossfile::{Port, Transport};

/// `TCP_LISTEN` in the kernel's `tcp_states.h`.
const LISTEN: &str = "0A";
/// `TCP_CLOSE` there, which for UDP is a socket that is bound but not connected.
const UNCONNECTED: &str = "07";

pub(super) struct PortFacts {
    addresses: Vec<IpAddr>,
    note: Option<String>,
}

pub(super) fn gather(port: Port) -> Result<PortFacts, String> {
    let addresses = lookup(port)?;
    let twin = Port { transport: other_family(port.transport), ..port };
    let note = if addresses.is_empty() && !lookup(twin)?.is_empty() {
        Some(format!("but `{}:{}` is", twin.transport, twin.number))
    } else {
        None
    };
    Ok(PortFacts { addresses, note })
}

impl PortFacts {
    pub(super) fn property(&self, property: &str) -> Result<Found, String> {
        match property {
            "listening" => Ok(Found { value: (!self.addresses.is_empty()).into(), note: self.note.clone() }),
            "ip" => Ok(self.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().into()),
            _ => Err(unknown(property)),
        }
    }
}

fn lookup(port: Port) -> Result<Vec<IpAddr>, String> {
    let path = format!("/proc/net/{}", port.transport);
    match fs::read_to_string(&path) {
        Ok(table) => Ok(listeners(&table, port)),
        // A kernel without IPv6 has no such table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("cannot read {path}: {error}")),
    }
}

fn other_family(transport: Transport) -> Transport {
    match transport {
        Transport::Tcp => Transport::Tcp6,
        Transport::Tcp6 => Transport::Tcp,
        Transport::Udp => Transport::Udp6,
        Transport::Udp6 => Transport::Udp,
    }
}

/// The local addresses that listen on the port.
fn listeners(table: &str, port: Port) -> Vec<IpAddr> {
    let state = match port.transport {
        Transport::Tcp | Transport::Tcp6 => LISTEN,
        Transport::Udp | Transport::Udp6 => UNCONNECTED,
    };
    let mut found = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [_, local, _, line_state, ..] = fields.as_slice()
            && *line_state == state
            && let Some((address, number)) = local_address(local)
            && number == port.number
            && !found.contains(&address)
        {
            found.push(address);
        }
    }
    found
}

/// `0100007F:1F90` is 127.0.0.1:8080: an address is printed as words of 32 bits in
/// the machine's own byte order, a port as a number.
fn local_address(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let mut octets = hex::decode(address).ok()?;
    if cfg!(target_endian = "little") {
        octets.chunks_mut(4).for_each(<[u8]>::reverse);
    }
    let address = match octets.len() {
        4 => Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into(),
        _ => Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?).into(),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 18316 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17215 1 0 100 0 0 10 0
   2: 3600007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17216 1 0 100 0 0 10 0
   3: 0500A8C0:D431 0100A8C0:01BB 01 00000000:00000000 02:000A7F1E 00000000  1000        0 20033 2 0 20 4 30 10 -1
";
    const TCP6: &str = "  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19000 1 0 100 0 0 10 0
   1: 00000000000000000000000001000000:0019 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19001 1 0 100 0 0 10 0
";
    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  302: 3500007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 14921 2 0000000000000000 0
  317: 0500A8C0:0044 0100A8C0:0043 01 00000000:00000000 00:00000000 00000000   100        0 14922 2 0000000000000000 0
";

    #[test]
    fn who_listens() {
        for (table, transport, number, expected) in [
            (TCP, Transport::Tcp, 8080, vec!["127.0.0.1"]),
            (TCP, Transport::Tcp, 22, vec!["0.0.0.0", "127.0.0.54"]),
            (TCP, Transport::Tcp, 54321, vec![]),
            (TCP6, Transport::Tcp6, 80, vec!["::"]),
            (TCP6, Transport::Tcp6, 25, vec!["::1"]),
            (UDP, Transport::Udp, 53, vec!["127.0.0.53"]),
            (UDP, Transport::Udp, 68, vec![]),
        ] {
            let found: Vec<String> =
                listeners(table, Port { transport, number }).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, expected, "{transport}:{number}");
        }
    }

    #[test]
    fn a_socket_of_this_process_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let facts = gather(Port { transport: Transport::Tcp, number }).unwrap();
        assert_eq!(facts.addresses, [IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let twin = gather(Port { transport: Transport::Tcp6, number }).unwrap();
        assert_eq!(twin.note, Some(format!("but `tcp:{number}` is")));
    }
}
