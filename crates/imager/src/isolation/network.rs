//! The network of a booted build: a way out, and no way to what is the host's own.

use std::io::Read;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use cli::{Child, Command};

use crate::session::Session;

/// The resolver that slirp4netns(1) offers.
pub(super) const RESOLVER: &str = "10.0.2.3";
/// Link-local addresses, among which clouds have their metadata services, with the host's credentials in them.
const LINK_LOCAL: &str = "169.254.0.0/16";

/// The program that carries the packets of a network namespace. It ends when this is dropped.
pub(super) struct WayOut(Child);

/// Gives the network namespace of the process `pid` a way out.
pub(super) fn connect(session: &Session, pid: i32) -> Result<WayOut> {
    let namespace = format!("/proc/{pid}/ns/net");
    let mut slirp = session
        .command("slirp4netns")
        .args(["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=1", "--exit-fd=0"])
        .args(["--netns-type=path", &namespace, "tap0"])
        .configure(|command| {
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        })
        .spawn()?;
    let mut ready = [0];
    let read = slirp.stdout.take().map(|mut stdout| stdout.read(&mut ready));
    let way_out = WayOut(slirp);
    if !matches!(read, Some(Ok(1))) {
        bail!("slirp4netns did not give the build a network (it needs /dev/net/tun)");
    }
    let own = own_addresses(&Command::new("ip").args(["-4", "-oneline", "address", "show"]).run()?.text());
    let routes: String =
        own.iter().map(String::as_str).chain([LINK_LOCAL]).map(|to| format!("route add blackhole {to}\n")).collect();
    Command::new("nsenter")
        .arg(format!("--net={namespace}"))
        .args(["--", "ip", "-batch", "-"])
        .input(routes)
        .run()
        .context("closing the build's ways to the host")?;
    Ok(way_out)
}

/// The addresses in what `ip -oneline address show` prints, apart from loopback.
fn own_addresses(shown: &str) -> Vec<String> {
    let address = |line: &str| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "inet").skip(1);
        Some(words.next()?.split('/').next()?.to_owned())
    };
    let mut addresses: Vec<_> = shown.lines().filter_map(address).filter(|own| !own.starts_with("127.")).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

impl Drop for WayOut {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_addresses_are_found() {
        let shown = "1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever\n\
            2: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever\n\
            3: ppp0    inet 198.51.100.7 peer 198.51.100.1/32 scope global ppp0\\       valid_lft forever\n";
        assert_eq!(own_addresses(shown), ["192.0.2.2", "198.51.100.7"]);
    }
}
