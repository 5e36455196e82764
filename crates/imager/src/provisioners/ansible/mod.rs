//! Ansible: `ansible-local`, which means the image by localhost, and `ansible`, which means the host by it.

mod galaxy;
mod local;
mod remote;
mod runner;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use cli::Command;

pub(super) use local::AnsibleLocal;
pub(super) use remote::Ansible;

use crate::chroot::Chroot;
use runner::Runner;

/// The connection that leads into the volume, as Ansible's own `local`, whose place it can take.
const CONNECTION: &str = include_str!("connection.py");
/// Directory of the connection plugin in the stage.
const PLUGINS: &str = ".kiln-connection";
/// Directory of roles in the stage, as in Packer.
const ROLES: &str = "roles";
/// Directory of collections in the stage, as in Packer.
const COLLECTIONS: &str = "collections";
/// Where Ansible keeps what it keeps in a home directory.
const HOME: &str = ".kiln-home";
/// Where Ansible keeps temporary files in the image.
const REMOTE_TMP: &str = "/tmp/.ansible-kiln";

/// Puts the connection plugin into the stage under the name `connection`, and the version of Ansible.
fn stage_connection(stage: &Path, connection: &str, version: &str) -> Result<()> {
    let plugins = stage.join(PLUGINS);
    fs::create_dir_all(&plugins)?;
    let plugin = CONNECTION
        .replace("name: local", &format!("name: {connection}"))
        .replace("transport = \"local\"", &format!("transport = \"{connection}\""));
    fs::write(plugins.join(format!("{connection}.py")), plugin)?;
    fs::write(plugins.join("version"), version)?;
    Ok(())
}

/// Runs the host's Ansible from the stage, with our connection at hand.
fn host(
    chroot: &Chroot,
    stage: &Path,
    ansible: Command,
    environment: &[(String, String)],
    runner: Option<&Runner>,
) -> Result<()> {
    let home = stage.join(HOME);
    fs::create_dir_all(&home).context("creating a home directory for Ansible")?;
    let words = serde_json::to_string(&chroot.enter_words())?;
    let ansible = ansible
        .current_dir(stage)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .env("ANSIBLE_LOCALHOST_WARNING", "False")
        .env("ANSIBLE_INVENTORY_UNPARSED_WARNING", "False")
        .env("ANSIBLE_CONNECTION_PLUGINS", stage.join(PLUGINS))
        .env("ANSIBLE_ROLES_PATH", stage.join(ROLES))
        .env("ANSIBLE_COLLECTIONS_PATH", stage.join(COLLECTIONS))
        .env("ANSIBLE_PIPELINING", "True")
        .env("ANSIBLE_PYTHON_INTERPRETER", "auto_silent")
        .env("ANSIBLE_REMOTE_TMP", REMOTE_TMP)
        .env("KILN_ENTER", words);
    let ansible = environment.iter().fold(ansible, |ansible, (name, value)| ansible.env(name, value));
    let ansible = match runner {
        Some(runner) => runner.lead(ansible)?,
        None => ansible,
    };
    chroot.shown(ansible).as_group().narrated().run()?;
    chroot.remove(REMOTE_TMP)
}

/// The version of the host's Ansible; `none` where there is none, which is a fault only if it is needed.
fn host_version() -> Result<String> {
    // Asking Ansible itself takes half a second, asking the package database does not.
    let packaged = Command::new("dpkg-query").args(["--show", "--showformat=${Version}", "ansible-core"]).ask();
    if let Ok(packaged) = packaged
        && packaged.status.success()
    {
        return Ok(packaged.text());
    }
    match Command::new("ansible-playbook").arg("--version").run() {
        Ok(output) => Ok(output.text().lines().next().unwrap_or_default().to_owned()),
        Err(_) => Ok("none".to_owned()),
    }
}
