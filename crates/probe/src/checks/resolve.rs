//! Host names for `http` checks: `/etc/hosts`, then DNS by `/etc/resolv.conf`.
//!
//! Never `getaddrinfo`: in a static program glibc would load the name service of
//! the machine that it was built for, and crash where that differs.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::{ResolverBuilder, TokioResolver};
use ureq::config::Config;
use ureq::http::Uri;
use ureq::http::uri::Scheme;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// The client's list of addresses has room for no more, and panics beyond.
const MAX_ADDRESSES: usize = 16;

/// The resolver that the HTTP client is given.
#[derive(Debug)]
pub(super) struct FilesThenDns;

impl Resolver for FilesThenDns {
    fn resolve(&self, uri: &Uri, _: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
        let port = uri.port_u16().unwrap_or(default);
        let addresses = lookup(host, *timeout.after).map_err(|why| ureq::Error::Other(why.into()))?;
        let mut resolved = self.empty();
        for address in addresses.into_iter().take(MAX_ADDRESSES) {
            resolved.push(SocketAddr::new(address, port));
        }
        Ok(resolved)
    }
}

fn lookup(host: &str, timeout: Duration) -> Result<Vec<IpAddr>, String> {
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let hosts = fs::read_to_string("/etc/hosts").unwrap_or_default();
    match in_hosts(&hosts, host) {
        addresses if !addresses.is_empty() => Ok(addresses),
        // RFC 6761, section 6.3: never asked of DNS.
        _ if is_localhost(host) => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
        _ => ask_dns(host, timeout).map_err(|why| format!("cannot resolve `{host}`: {why}")),
    }
}

fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

/// hosts(5).
fn in_hosts(hosts: &str, host: &str) -> Vec<IpAddr> {
    let address = |line: &str| {
        let mut fields = line.split('#').next()?.split_ascii_whitespace();
        let address = fields.next()?.parse().ok()?;
        fields.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
    };
    hosts.lines().filter_map(address).collect()
}

fn ask_dns(host: &str, timeout: Duration) -> Result<Vec<IpAddr>, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let resolver = TokioResolver::builder_tokio()
            .and_then(ResolverBuilder::build)
            .map_err(|error| format!("/etc/resolv.conf is of no use ({error})"))?;
        match tokio::time::timeout(timeout, resolver.lookup_ip(host)).await {
            Ok(Ok(answer)) => Ok(answer.iter().collect()),
            Ok(Err(error)) if error.is_nx_domain() || error.is_no_records_found() => {
                Err("DNS has no such name".to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_hosts() {
        let hosts = "127.0.0.1\tlocalhost\n127.0.1.1 web web.example.org # me\n# 10.0.0.1 web\n::1 localhost ip6-localhost\nnonsense web\n";
        for (host, expected) in [
            ("WEB.example.org", vec!["127.0.1.1"]),
            ("localhost", vec!["127.0.0.1", "::1"]),
            ("me", vec![]),
            ("example.org", vec![]),
        ] {
            let found: Vec<String> = in_hosts(hosts, host).iter().map(IpAddr::to_string).collect();
            assert_eq!(found, expected, "{host}");
        }
    }

    #[test]
    fn addresses_are_not_looked_up() {
        assert_eq!(lookup("[::1]", Duration::ZERO), Ok(vec![Ipv6Addr::LOCALHOST.into()]));
        assert_eq!(lookup("10.1.2.3", Duration::ZERO), Ok(vec![Ipv4Addr::new(10, 1, 2, 3).into()]));
    }
}
