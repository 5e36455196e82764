//! `ansible-local`: a playbook, run by the image's Ansible, or by the host's where the image has none.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::Command;

use super::super::{Reading, copy_tree, tar_of};
use super::galaxy::Galaxy;
use super::runner::Runner;
use super::{COLLECTIONS, PLUGINS, ROLES, host, host_version, stage_connection};
use crate::chroot::Chroot;
use crate::template::Options;

/// The generated inventory.
const INVENTORY: &str = ".kiln-inventory";

pub(crate) struct AnsibleLocal {
    playbooks: Vec<PathBuf>,
    playbook_dir: Option<PathBuf>,
    /// Path on the host, and its place in the stage.
    copies: Vec<(PathBuf, PathBuf)>,
    inventory: Option<PathBuf>,
    inventory_groups: Vec<String>,
    extra_arguments: Vec<String>,
    command: String,
    galaxy: Option<Galaxy>,
    staging_directory: String,
    /// Whether the staging directory stays in the image.
    keep_staged: bool,
    build_name: String,
    build_type: String,
    /// Whether modules run in a process that stays.
    accelerate: bool,
    /// The host's Ansible: another version may do other things.
    version: String,
}

impl AnsibleLocal {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let mut playbooks = reading.paths(options, "playbook_files")?;
        let single = reading.path(options, "playbook_file")?;
        if playbooks.is_empty() == single.is_none() {
            let why = "provisioner 'ansible-local' needs either 'playbook_file' or 'playbook_files'";
            return Err(options.fault(options.line(), why, "give one of them").into());
        }
        playbooks.extend(single);
        let mut copies = Vec::new();
        let named = |path: &Path| PathBuf::from(path.file_name().unwrap_or_default());
        for (name, below) in [("role_paths", ROLES), ("collection_paths", COLLECTIONS), ("playbook_paths", "playbooks")]
        {
            for path in reading.paths(options, name)? {
                let to = Path::new(below).join(named(&path));
                copies.push((path, to));
            }
        }
        for (name, to) in [("group_vars", "group_vars"), ("host_vars", "host_vars")] {
            copies.extend(reading.path(options, name)?.map(|path| (path, PathBuf::from(to))));
        }
        let staging_directory = reading
            .string(options, "staging_directory")?
            .unwrap_or_else(|| "/tmp/packer-provisioner-ansible-local/kiln".into());
        let galaxy = Galaxy::read(options, reading, &staging_directory)?;
        Ok(Self {
            playbooks,
            playbook_dir: reading.path(options, "playbook_dir")?,
            copies,
            inventory: reading.path(options, "inventory_file")?,
            inventory_groups: reading.strings(options, "inventory_groups")?,
            extra_arguments: reading.strings(options, "extra_arguments")?,
            command: reading
                .string(options, "command")?
                .unwrap_or_else(|| "ANSIBLE_FORCE_COLOR=1 PYTHONUNBUFFERED=1 ansible-playbook".into()),
            galaxy,
            staging_directory,
            keep_staged: options.bool("clean_staging_directory")? == Some(false),
            build_name: reading.values.build_name.clone(),
            build_type: reading.values.build_type.clone(),
            accelerate: reading.accelerate,
            version: host_version()?,
        })
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        if let Some(directory) = &self.playbook_dir {
            copy_tree(directory, stage)?;
        }
        for (from, to) in &self.copies {
            copy_tree(from, &stage.join(to))?;
        }
        for playbook in &self.playbooks {
            copy_tree(playbook, &stage.join(self.staged_playbook(playbook)))?;
        }
        let inventory = match &self.inventory {
            Some(file) => fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?,
            None if self.inventory_groups.is_empty() => "127.0.0.1\n".to_owned(),
            None => self.inventory_groups.iter().map(|group| format!("[{group}]\n127.0.0.1\n")).collect(),
        };
        fs::write(stage.join(INVENTORY), inventory)?;
        if let Some(galaxy) = &self.galaxy {
            galaxy.install(stage)?;
        }
        stage_connection(stage, "local", &self.version)
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        let inside = chroot.has("ansible-playbook")?;
        if inside {
            chroot.unpack(tar_of(stage)?, &self.staging_directory)?;
        }
        let runner = self.accelerate.then(|| Runner::start(chroot)).transpose()?;
        for playbook in &self.playbooks {
            let line = self.command_line(&self.staged_playbook(playbook));
            if inside {
                self.run_inside(chroot, &line, runner.as_ref())?;
            } else {
                // A play that says `connection: local` or delegates to localhost means the image, as it would if
                // Ansible were inside, and never the host.
                host(chroot, stage, Command::new("/bin/sh").args(["-c", &line]), &[], runner.as_ref())?;
            }
        }
        if inside && !self.keep_staged {
            chroot.remove(&self.staging_directory)?;
        }
        Ok(())
    }

    /// Runs the image's own Ansible, with our connection in place of its own if there is a runner.
    fn run_inside(&self, chroot: &Chroot, line: &str, runner: Option<&Runner>) -> Result<()> {
        let line = format!("cd {} && {line}", shell_words::quote(&self.staging_directory));
        let mut ansible = chroot.command("/bin/sh").args(["-c", &line]).narrated();
        if let Some(runner) = runner {
            let plugins = Path::new(&self.staging_directory).join(PLUGINS);
            ansible = runner.lead(ansible)?.env("ANSIBLE_CONNECTION_PLUGINS", plugins).env("KILN_ENTER", "[]");
        }
        ansible.run()?;
        Ok(())
    }

    /// The playbook's place in the stage: where it stands in playbook_dir, else its name.
    fn staged_playbook(&self, playbook: &Path) -> PathBuf {
        let below = self.playbook_dir.as_ref().and_then(|directory| playbook.strip_prefix(directory).ok());
        below.map_or_else(|| PathBuf::from(playbook.file_name().unwrap_or_default()), Path::to_owned)
    }

    /// The line that Packer would run: `extra_arguments` go into it as they are, unquoted.
    fn command_line(&self, playbook: &Path) -> String {
        let variables = format!("packer_build_name={} packer_builder_type={}", self.build_name, self.build_type);
        format!(
            "{} {} --extra-vars {} {} -c local -i {INVENTORY}",
            self.command,
            shell_words::quote(&playbook.display().to_string()),
            shell_words::quote(&variables),
            self.extra_arguments.join(" "),
        )
    }
}
