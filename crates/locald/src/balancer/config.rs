//! HAProxy's configuration, rendered from the recorded state at every start: what was added at run
//! time is in no file of HAProxy's.

use std::fmt::Write as _;
use std::path::Path;

use provider::local::api::ServiceRecord;

use super::{BACKEND, Server};

/// Renders the configuration of a service's balancer.
///
/// Descriptor 0 is its listening socket on the host; HAProxy itself runs in the fleet's network.
/// Sources: HAProxy 2.6's configuration manual, "bind" (`fd@`), "retry-on" and "http-check".
pub fn render(service: &ServiceRecord, servers: &[Server], socket: &Path) -> String {
    let spec = &service.spec;
    let listen = spec.listen.unwrap_or_default();
    let (health, dns, address) = (&spec.health, &spec.dns, service.address);
    let socket = socket.display();
    let mut config = format!(
        "# Written by locald.\n\
         global\n    \
             stats socket unix@{socket} mode 600 level admin\n    \
             # Nobody: it needs no rights once its sockets are open.\n    \
             uid 65534\n    \
             gid 65534\n    \
             maxconn 4000\n    \
             hard-stop-after 10s\n\
         \n\
         defaults\n    \
             mode http\n    \
             timeout connect 2s\n    \
             timeout client 60s\n    \
             timeout server 60s\n    \
             timeout check 1s\n    \
             timeout queue 10s\n    \
             # An instance that goes away takes no request with it that can be asked again.\n    \
             retries 3\n    \
             option redispatch 1\n    \
             retry-on conn-failure empty-response\n\
         \n\
         frontend service\n    \
             bind fd@0\n    \
             bind {address}:{listen}\n"
    );
    if listen != 80 {
        let _ = writeln!(config, "    bind {address}:80");
    }
    let _ = write!(
        config,
        "    http-request disable-l7-retry unless {{ method GET HEAD OPTIONS PUT DELETE TRACE }}\n    \
             default_backend {BACKEND}\n\
         \n\
         backend {BACKEND}\n    \
             balance roundrobin\n    \
             option httpchk\n    \
             http-check send meth GET uri {health} ver HTTP/1.1 hdr Host {dns}\n    \
             http-check expect status 200\n"
    );
    for server in servers {
        let _ = writeln!(config, "    server {} {}", server.id, server.keywords());
    }
    config
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;

    use provider::ServiceSpec;

    use super::*;

    #[test]
    fn everything_is_in_the_configuration() {
        let spec = ServiceSpec {
            name: "hello-local".to_owned(),
            port: 8080,
            health: "/health".to_owned(),
            dns: "hello.kiln.test".to_owned(),
            listen: Some(8000),
            aws: Default::default(),
        };
        let service = ServiceRecord {
            spec,
            address: Ipv4Addr::new(10, 77, 255, 1),
            resolver: ([127, 0, 0, 1], 5300).into(),
            groups: BTreeMap::new(),
        };
        let server =
            |id: &str, weight| Server { id: id.to_owned(), address: Ipv4Addr::new(10, 77, 0, 16), port: 8080, weight };
        let servers = [server("i-0123456789abcdef0", 256), server("i-0123456789abcdef1", 0)];
        insta::assert_snapshot!(render(&service, &servers, Path::new("/run/kiln-01234567/hello-local")));
    }
}
