//! The programs that Kiln uses on the host, and where Debian has them.

use crate::args::ProviderName;

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// The program, as found by PATH.
    pub program: &'static str,
    /// The Debian package.
    pub package: &'static str,
    /// What Kiln needs it for.
    pub used_for: &'static str,
}

/// Every program that the line uses wherever the fleet is.
const TOOLS: &[Tool] = &[
    tool("git", "git", "checking out revisions"),
    tool("dpkg-deb", "dpkg", "building Debian packages"),
    tool("zstd", "zstd", "packing trees inside images"),
    tool("unshare", "util-linux", "provisioning sessions"),
    tool("nsenter", "util-linux", "provisioning sessions"),
    tool("fstrim", "util-linux", "keeping images sparse"),
    tool("addpart", "util-linux", "attaching volumes"),
    tool("partx", "util-linux", "attaching volumes"),
    tool("mount", "mount", "provisioning sessions"),
    tool("ansible-playbook", "ansible-core", "provisioning images that have no Ansible inside"),
    tool("systemd-nspawn", "systemd-container", "booting instances, and volumes that are provisioned"),
    tool("slirp4netns", "slirp4netns", "a network of its own for a build that boots its volume"),
    tool("ip", "iproute2", "networks of fleets, and of builds that boot their volume"),
];

/// What the local provider uses beside that.
const LOCAL_TOOLS: &[Tool] = &[
    tool("mmdebstrap", "mmdebstrap", "making base images"),
    tool("sfdisk", "fdisk", "partitioning base images"),
    tool("mke2fs", "e2fsprogs", "making file systems"),
    tool("e2fsck", "e2fsprogs", "checking file systems"),
    tool("mkfs.vfat", "dosfstools", "making the EFI system partition"),
    tool("mcopy", "mtools", "filling the EFI system partition"),
    tool("dnsmasq", "dnsmasq-base", "the fleet's DHCP and DNS"),
    tool("haproxy", "haproxy", "balancing"),
];

/// Every program that the line uses with this provider. `cargo xtask setup` installs those of the local one.
pub fn tools(provider: ProviderName) -> impl Iterator<Item = Tool> {
    let local = if provider == ProviderName::Local { LOCAL_TOOLS } else { &[] };
    TOOLS.iter().chain(local).copied()
}

const fn tool(program: &'static str, package: &'static str, used_for: &'static str) -> Tool {
    Tool { program, package, used_for }
}

/// The Debian package that has `program`, if it is one of ours.
pub fn package_of(program: &str) -> Option<&'static str> {
    tools(ProviderName::Local).find(|tool| tool.program == program).map(|tool| tool.package)
}

/// Whether `program` is found by PATH, or in the directories that only root has there.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(sbin).any(|directory| directory.join(program).is_file())
}

/// The [`tools`] that this machine lacks.
pub fn missing_tools(provider: ProviderName) -> Vec<Tool> {
    tools(provider).filter(|tool| !has(tool.program)).collect()
}
