//! The fleet's network: a namespace with a bridge, and one namespace for each instance.
//!
//! ```text
//! namespace KEY:     br0 10.77.0.1/16, 169.254.169.254/32, one 10.77.255.N/32 for each service
//!                     ├─ i0123456789ab ── ens5 in namespace KEY-i-0123…
//!                     └─ …
//! ```

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result, anyhow};
use cli::Command;

use crate::become_kept::enter;

/// The bridge's address: the instances' router and name server.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Where instances find the metadata service, as on EC2.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The network of the fleet `key`.
#[derive(Debug, Clone)]
pub struct Network {
    key: String,
}

/// The addresses that instances can have, lowest first.
pub fn instance_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (16..255 * 256).map(|number| Ipv4Addr::from_bits(Ipv4Addr::new(10, 77, 0, 0).to_bits() + number))
}

/// The addresses that balancers can have, lowest first.
pub fn balancer_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (1..=254).map(|number| Ipv4Addr::new(10, 77, 255, number))
}

/// The hardware address of the instance with this address: the same for whoever has it next, so that
/// no cache is ever wrong.
pub fn hardware_address(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    // 02: administered locally (IEEE 802).
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

impl Network {
    /// The network of the fleet `key`.
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned() }
    }

    /// The fleet's namespace.
    pub fn path(&self) -> PathBuf {
        path(&self.key)
    }

    /// The namespace of an instance.
    pub fn instance_path(&self, id: &str) -> PathBuf {
        path(&self.instance_name(id))
    }

    /// Makes the fleet's namespace, unless it is there.
    pub fn create(&self) -> Result<()> {
        if self.is_complete() {
            return Ok(());
        }
        self.remove()?;
        add_namespace(&self.key)?;
        // The metadata address last: its presence says that all is there.
        self.batch(&format!(
            "link set lo up\n\
             link add br0 type bridge forward_delay 0\n\
             link set br0 address {} up\n\
             address add {GATEWAY}/16 dev br0\n\
             address add {METADATA}/32 dev br0\n",
            hardware_address(GATEWAY)
        ))
        .context("making the fleet's network")
    }

    fn is_complete(&self) -> bool {
        self.path().exists()
            && Command::new("ip")
                .args(["-n", &self.key, "-brief", "address", "show", "br0"])
                .ask()
                .is_ok_and(|output| output.text().contains(&METADATA.to_string()))
    }

    /// Removes the fleet's namespace and those of its instances.
    pub fn remove(&self) -> Result<()> {
        for name in self.namespaces()? {
            remove_namespace(&name)?;
        }
        Ok(())
    }

    /// The names of all namespaces of this fleet, its own one last.
    fn namespaces(&self) -> Result<Vec<String>> {
        let Ok(entries) = std::fs::read_dir("/run/netns") else { return Ok(Vec::new()) };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&self.key)).collect();
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Ok(names)
    }

    /// Ids of instances that have a namespace.
    pub fn instances(&self) -> Result<Vec<String>> {
        let prefix = format!("{}-", self.key);
        Ok(self.namespaces()?.iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect())
    }

    /// Makes an instance's namespace anew and connects it to the bridge.
    pub fn add_instance(&self, id: &str, address: Ipv4Addr) -> Result<()> {
        self.remove_instance(id)?;
        let (name, link, hardware) = (self.instance_name(id), link_name(id), hardware_address(address));
        add_namespace(&name)?;
        // The permanent neighbour: who asks for a booting instance's address in vain asks again only a second later.
        self.batch(&format!(
            "link add {link} type veth peer name ens5 address {hardware} netns {name}\n\
             link set {link} master br0 up\n\
             neighbour replace {address} lladdr {hardware} dev br0 nud permanent\n"
        ))
        .with_context(|| format!("connecting instance {id}"))
    }

    /// Removes an instance's namespace, if there is one.
    pub fn remove_instance(&self, id: &str) -> Result<()> {
        let name = self.instance_name(id);
        if !path(&name).exists() {
            return Ok(());
        }
        // The link first: with the namespace it would go later, in the kernel's own time, and its name be taken until then.
        Command::new("ip").args(["-n", &self.key, "link", "delete", &link_name(id)]).ask()?;
        remove_namespace(&name)
    }

    /// Gives the bridge a balancer's address.
    pub fn add_balancer(&self, address: Ipv4Addr) -> Result<()> {
        self.batch(&format!("address replace {address}/32 dev br0\n")).context("making the balancer's address")
    }

    /// Takes it away.
    pub fn remove_balancer(&self, address: Ipv4Addr) -> Result<()> {
        Command::new("ip")
            .args(["-n", &self.key, "address", "delete", &format!("{address}/32"), "dev", "br0"])
            .ask()?;
        Ok(())
    }

    /// Listens in the fleet's namespace. The socket stays there; whoever holds it need not.
    pub fn listen(&self, address: Ipv4Addr, port: u16) -> Result<TcpListener> {
        let netns = self.path();
        let listen = move || {
            enter(&netns)?;
            TcpListener::bind((address, port)).with_context(|| format!("listening on {address}:{port}"))
        };
        // A namespace is an attribute of a thread (setns(2)): this one ends with the call.
        thread::spawn(listen).join().unwrap_or_else(|_| Err(anyhow!("the listening thread ended early")))
    }

    fn instance_name(&self, id: &str) -> String {
        format!("{}-{id}", self.key)
    }

    fn batch(&self, commands: &str) -> Result<()> {
        Command::new("ip").args(["-n", &self.key, "-batch", "-"]).input(commands).run()?;
        Ok(())
    }
}

/// The bridge's end of an instance's link. Names of links have at most 15 characters.
fn link_name(id: &str) -> String {
    format!("i{}", &id.trim_start_matches("i-")[..12])
}

fn path(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn add_namespace(name: &str) -> Result<()> {
    Command::new("ip").args(["netns", "add", name]).run().context("making a network namespace (are you root?)")?;
    Ok(())
}

fn remove_namespace(name: &str) -> Result<()> {
    Command::new("ip").args(["netns", "delete", name]).run().context("removing a network namespace")?;
    Ok(())
}
