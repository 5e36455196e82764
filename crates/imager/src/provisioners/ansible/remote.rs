//! `ansible`: the host's Ansible, for which the volume is a host of its inventory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::Command;

use super::super::{Reading, copy_tree};
use super::galaxy::Galaxy;
use super::runner::Runner;
use super::{COLLECTIONS, ROLES, host, host_version, stage_connection};
use crate::chroot::Chroot;
use crate::template::Options;

/// The name of our connection in the inventory.
const CONNECTION: &str = "kiln";
/// The generated inventory.
const INVENTORY: &str = ".kiln-inventory";
/// What is said of every host: how it is reached.
const REACHED: &str = ".kiln-reached";

/// Options of the connection that Packer makes to an instance.
const ABOUT_SSH: &[&str] = &[
    "ansible_proxy_host",
    "ansible_proxy_key_type",
    "ansible_winrm_use_http",
    "local_port",
    "sftp_command",
    "ssh_authorized_key_file",
    "ssh_host_key_file",
    "use_proxy",
    "use_sftp",
];

pub(crate) struct Ansible {
    playbook: PathBuf,
    /// Path on the host, and its place in the stage.
    copies: Vec<(PathBuf, PathBuf)>,
    inventory: Inventory,
    extra_arguments: Vec<String>,
    command: String,
    environment: Vec<(String, String)>,
    galaxy: Option<Galaxy>,
    build_name: String,
    build_type: String,
    /// Whether modules run in a process that stays.
    accelerate: bool,
    /// The host's Ansible: another version may do other things.
    version: String,
}

enum Inventory {
    /// A file or a directory of the user's.
    Given(PathBuf),
    Generated(String),
}

impl Ansible {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        for name in ABOUT_SSH {
            options.refuse(name, "remove it: there is no ssh between Ansible and the volume")?;
        }
        let user_line = options.line_of("user");
        if let Some(user) = reading.string(options, "user")?.filter(|user| user != "root") {
            let why = format!("the volume is reached as root, not as '{user}'");
            return Err(options.fault(user_line, why, "use become and become_user in the play").into());
        }
        options.bool("skip_version_check")?;
        options.bool("keep_inventory_file")?;
        let playbook = options.required("playbook_file")?;
        let playbook = reading.text(options, "playbook_file", &playbook)?;
        let playbook = reading.existing(options, "playbook_file", options.line_of("playbook_file"), &playbook)?;
        let mut copies = Vec::new();
        for (name, place) in [("roles_path", ROLES), ("collections_path", COLLECTIONS)] {
            // Where galaxy_file installs to, and where roles that are there already stand.
            let line = options.line_of(name);
            if let Some(text) = reading.string(options, name)? {
                if options.has("galaxy_file") && reading.base.join(&text).symlink_metadata().is_err() {
                    continue;
                }
                copies.push((reading.existing(options, name, line, &text)?, PathBuf::from(place)));
            }
        }
        let configuration = reading.base.join("ansible.cfg");
        if configuration.exists() {
            copies.push((configuration, PathBuf::from("ansible.cfg")));
        }
        let force = match (options.bool("galaxy_force_install")?, options.bool("galaxy_force_with_deps")?) {
            (_, Some(true)) => Some("--force-with-deps"),
            (Some(true), _) => Some("--force"),
            _ => None,
        };
        let galaxy = Galaxy::read_plain(options, reading)?;
        Ok(Self {
            playbook,
            copies,
            inventory: Inventory::read(options, reading)?,
            extra_arguments: reading.strings(options, "extra_arguments")?,
            command: reading.string(options, "command")?.unwrap_or_else(|| "ansible-playbook".into()),
            environment: environment(options, reading)?,
            galaxy: galaxy.map(|galaxy| galaxy.forced(force)),
            build_name: reading.values.build_name.clone(),
            build_type: reading.values.build_type.clone(),
            accelerate: reading.accelerate,
            version: host_version()?,
        })
    }

    /// Stages the playbook with everything beside it, which is where it looks for roles, variables and files.
    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        copy_tree(self.playbook.parent().unwrap_or(Path::new(".")), stage)?;
        // A repository's history changes with each commit, and no play reads it.
        let history = stage.join(".git");
        if history.is_dir() {
            fs::remove_dir_all(&history).with_context(|| format!("removing {}", history.display()))?;
        }
        for (from, to) in &self.copies {
            copy_tree(from, &stage.join(to))?;
        }
        if let Some(galaxy) = &self.galaxy {
            galaxy.install(stage)?;
        }
        match &self.inventory {
            Inventory::Given(path) => copy_tree(path, &stage.join(INVENTORY))?,
            Inventory::Generated(text) => fs::write(stage.join(INVENTORY), text)?,
        }
        fs::write(stage.join(REACHED), format!("[all:vars]\nansible_connection={CONNECTION}\n"))?;
        stage_connection(stage, CONNECTION, &self.version)
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        let words = shell_words::split(&self.command).context("the option 'command'")?;
        let (program, arguments) = words.split_first().context("the option 'command' is empty")?;
        let ansible = Command::new(program)
            .args(arguments)
            .args(["-e", &format!("packer_build_name={}", shell_words::quote(&self.build_name))])
            .args(["-e", &format!("packer_builder_type={}", self.build_type)])
            .args(&self.extra_arguments)
            .args(["-i", INVENTORY, "-i", REACHED])
            .arg(self.playbook.file_name().unwrap_or_default());
        let runner = self.accelerate.then(|| Runner::start(chroot)).transpose()?;
        host(chroot, stage, ansible, &self.environment, runner.as_ref())
    }
}

impl Inventory {
    fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let alias = reading.string(options, "host_alias")?.unwrap_or_else(|| "default".into());
        let groups = reading.strings(options, "groups")?;
        let empty_groups = reading.strings(options, "empty_groups")?;
        let template_line = options.line_of("inventory_file_template");
        let template = options.string("inventory_file_template")?;
        let directory = reading.path(options, "inventory_directory")?;
        if let Some(given) = reading.path(options, "inventory_file")?.or(directory) {
            return Ok(Self::Given(given));
        }
        let mut values = reading.values.clone();
        values.fields.extend([
            ("HostAlias", alias.clone()),
            ("Host", "127.0.0.1".to_owned()),
            ("User", "root".to_owned()),
            ("Port", "22".to_owned()),
        ]);
        let host = values.interpolate(
            template.as_deref().unwrap_or("{{.HostAlias}} ansible_host={{.Host}} ansible_user={{.User}}\n"),
        );
        let host =
            host.map_err(|why| options.fault(template_line, format!("inventory_file_template: {why}"), "mend it"))?;
        let groups = groups.iter().map(|group| format!("[{group}]\n{alias}\n"));
        let empty_groups = empty_groups.iter().map(|group| format!("[{group}]\n"));
        Ok(Self::Generated([host].into_iter().chain(groups).chain(empty_groups).collect()))
    }
}

fn environment(options: &mut Options, reading: &Reading) -> Result<Vec<(String, String)>> {
    let line = options.line_of("ansible_env_vars");
    let variables = reading.strings(options, "ansible_env_vars")?;
    let pair = |variable: &String| {
        let (name, value) = variable.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let pairs: Option<Vec<_>> = variables.iter().map(pair).collect();
    pairs.ok_or_else(|| options.fault(line, "an environment variable has no '='", "write NAME=value").into())
}
