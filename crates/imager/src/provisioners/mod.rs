//! Provisioners: each is read from its options, stages what it can see, and runs in the chroot.
//!
//! What a provisioner uses from the host it first copies into its stage, and it
//! runs from there: the digest of the stage is then all that it can have seen.

mod ansible;
mod artifact;
mod attempts;
mod breakpoint;
mod file;
mod scripts;
mod shell;
mod shell_local;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;

pub(crate) use artifact::ArtifactFile;
pub(crate) use attempts::Attempts;
use scripts::Scripts;
pub(crate) use shell_local::ShellLocal;

use crate::chroot::Chroot;
use crate::template::{DOING, Options, Values};

/// A provisioner, ready to be staged.
pub(crate) enum Provisioner {
    Ansible(ansible::Ansible),
    AnsibleLocal(ansible::AnsibleLocal),
    Artifact(artifact::InstallArtifact),
    Breakpoint(breakpoint::Breakpoint),
    File(file::FileCopy),
    Shell(shell::Shell),
    ShellLocal(ShellLocal),
}

/// What a provisioner is read with.
pub(crate) struct Reading<'a> {
    /// Values of its text.
    pub(crate) values: &'a Values,
    /// Directory at which its relative paths start.
    pub(crate) base: &'a Path,
    /// What is fetched from a store that is not on this machine is kept below it.
    pub(crate) cache: &'a Path,
    /// The artifact to install, if this run has one.
    pub(crate) artifact: Option<&'a ArtifactFile>,
    /// Whether nothing is going to be run: then an artifact is not missed.
    pub(crate) only_checking: bool,
    /// Whether Ansible's modules run in a process that stays.
    pub(crate) accelerate: bool,
}

impl Provisioner {
    /// Reads a provisioner of any type. Every fault names its line.
    pub(crate) async fn read(mut options: Options, reading: &Reading<'_>) -> Result<(String, Self)> {
        let line = options.line_of("type");
        let kind = options.required("type")?;
        let mut options = options.called(format!("provisioner '{kind}'")).of_kind(kind.as_str());
        let provisioner = match kind.as_str() {
            "ansible" => Self::Ansible(ansible::Ansible::read(&mut options, reading)?),
            "ansible-local" => Self::AnsibleLocal(ansible::AnsibleLocal::read(&mut options, reading)?),
            "artifact" => Self::Artifact(artifact::InstallArtifact::read(&mut options, reading).await?),
            "breakpoint" => Self::Breakpoint(breakpoint::Breakpoint::read(&mut options, reading)?),
            "file" => Self::File(file::FileCopy::read(&mut options, reading)?),
            "shell" => Self::Shell(shell::Shell::read(&mut options, reading)?),
            "shell-local" => Self::ShellLocal(ShellLocal::read(&mut options, reading)?),
            other => {
                let why = format!("there is no provisioner type '{other}'");
                let remedy = "the types are shell, shell-local, file, ansible, ansible-local, artifact and breakpoint";
                return Err(options.fault(line, why, remedy).into());
            }
        };
        options.finish()?;
        Ok((kind, provisioner))
    }

    /// Whether it is there for what it does outside the image, or rests on what another has made there: a layer
    /// cannot stand for that.
    pub(crate) fn acts_on_host(&self) -> bool {
        match self {
            Self::Breakpoint(_) | Self::ShellLocal(_) => true,
            Self::File(file) => file.acts_on_host(),
            _ => false,
        }
    }

    /// Whether it installs what the artifact stage has built.
    pub(crate) fn installs_artifact(&self) -> bool {
        matches!(self, Self::Artifact(_))
    }

    /// Whether what it runs is told the builder's name and type, which its result may follow.
    pub(crate) fn is_told_of_builder(&self) -> bool {
        matches!(self, Self::Ansible(_) | Self::AnsibleLocal(_) | Self::Shell(_) | Self::ShellLocal(_))
    }

    /// Copies everything that it uses from the host into `stage`.
    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        match self {
            Self::Ansible(ansible) => ansible.stage(stage),
            Self::AnsibleLocal(ansible) => ansible.stage(stage),
            Self::Artifact(artifact) => artifact.stage(stage),
            Self::Breakpoint(_) => Ok(()),
            Self::File(file) => file.stage(stage),
            Self::Shell(shell) => shell.stage(stage),
            Self::ShellLocal(shell) => shell.stage(stage),
        }
    }

    /// Runs it, from its stage.
    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        match self {
            Self::Ansible(ansible) => ansible.run(chroot, stage),
            Self::AnsibleLocal(ansible) => ansible.run(chroot, stage),
            Self::Artifact(artifact) => artifact.run(chroot, stage),
            Self::Breakpoint(breakpoint) => breakpoint.run(chroot),
            Self::File(file) => file.run(chroot, stage),
            Self::Shell(shell) => shell.run(chroot, stage),
            Self::ShellLocal(shell) => shell.run(chroot, stage),
        }
    }
}

impl Reading<'_> {
    /// The directory at which relative paths start that are written to. A component's tree is a copy that goes
    /// with the run.
    pub(crate) fn outside(&self) -> Result<PathBuf> {
        std::env::current_dir().context("finding the working directory")
    }

    pub(crate) fn text(&self, options: &Options, name: &str, text: &str) -> Result<String> {
        let line = options.line_of(name);
        self.values.interpolate(text).map_err(|why| options.fault(line, format!("{name}: {why}"), "mend it").into())
    }

    pub(crate) fn string(&self, options: &mut Options, name: &'static str) -> Result<Option<String>> {
        let line = options.line_of(name);
        let Some(text) = options.string(name)? else { return Ok(None) };
        let text = self.values.interpolate(&text);
        text.map(Some).map_err(|why| options.fault(line, format!("{name}: {why}"), "mend it").into())
    }

    fn strings(&self, options: &mut Options, name: &'static str) -> Result<Vec<String>> {
        let line = options.line_of(name);
        let texts = options.strings(name)?.into_iter().map(|text| self.values.interpolate(&text));
        texts.collect::<Result<_, _>>().map_err(|why| options.fault(line, format!("{name}: {why}"), "mend it").into())
    }

    /// A path on the host that must be there.
    fn path(&self, options: &mut Options, name: &'static str) -> Result<Option<PathBuf>> {
        let line = options.line_of(name);
        let Some(text) = self.string(options, name)? else { return Ok(None) };
        self.existing(options, name, line, &text).map(Some)
    }

    fn paths(&self, options: &mut Options, name: &'static str) -> Result<Vec<PathBuf>> {
        let line = options.line_of(name);
        let texts = self.strings(options, name)?;
        texts.iter().map(|text| self.existing(options, name, line, text)).collect()
    }

    fn existing(&self, options: &Options, name: &str, line: usize, text: &str) -> Result<PathBuf> {
        let path = self.base.join(text);
        match path.metadata() {
            Ok(_) => Ok(path),
            Err(error) => {
                let why = format!("{name} '{text}': {error}");
                let remedy = format!("name a file below {}", self.base.display());
                Err(BadInput::new(DOING, why, remedy).in_file(options.file()).at_line(line).into())
            }
        }
    }
}

/// Copies a file or a directory with its modes and symlinks.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let doing = || format!("copying {} to {}", from.display(), to.display());
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.with_context(doing)?;
        let relative = entry.path().strip_prefix(from)?;
        let target = if relative.as_os_str().is_empty() { to.to_owned() } else { to.join(relative) };
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).with_context(doing)?;
        }
        if entry.file_type().is_dir() {
            std::fs::create_dir_all(&target).with_context(doing)?;
        } else if entry.file_type().is_symlink() && entry.depth() > 0 {
            std::os::unix::fs::symlink(std::fs::read_link(entry.path())?, &target).with_context(doing)?;
        } else {
            std::fs::copy(entry.path(), &target).with_context(doing)?;
        }
    }
    Ok(())
}

/// A tar of what is in `directory`, in a file that has no name.
fn tar_of(directory: &Path) -> Result<std::fs::File> {
    use std::io::Seek;
    let doing = || format!("packing {}", directory.display());
    let mut tar = tar::Builder::new(tempfile::tempfile().with_context(doing)?);
    tar.follow_symlinks(false);
    tar.append_dir_all(".", directory).with_context(doing)?;
    let mut file = tar.into_inner().with_context(doing)?;
    file.rewind().with_context(doing)?;
    Ok(file)
}
