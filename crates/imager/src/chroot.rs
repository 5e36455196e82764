//! The volume's root inside a session: mounts, and files that are there for the build only.

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cli::Command;

use crate::device::Device;
use crate::isolation::{self, Booted, Directory, Inside, LeftOver};
use crate::mounts::mount_below;
use crate::package_cache::PackageCache;
use crate::plan::Plan;
use crate::session::Session;
use crate::suppress_sync::CHROOT;
use crate::template::Mount;

/// Keeps package scripts from starting daemons: 101 is "action forbidden by policy" in invoke-rc.d(8).
const POLICY_RC_D: &[u8] = b"#!/bin/sh\nexit 101\n";

/// ext4 has each commit of its journal reach the disk in order (ext4(5), barrier), at the latest when it is mounted.
/// A volume is throw-away until it is complete; it is written out as a whole when it is detached.
const WITHOUT_BARRIERS: &[&str] = &["-t", "ext4", "-o", "barrier=0"];

/// The environment of what runs in the chroot.
const ENVIRONMENT: &[(&str, &str)] = &[
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
    ("TERM", "dumb"),
    ("USER", "root"),
];

/// Variables that come along from the host.
const PROXIES: &[&str] = &["http_proxy", "https_proxy", "no_proxy"];

/// A mounted volume that commands can be run in: chrooted, or in its own system where that is booted.
pub(crate) struct Chroot<'a> {
    session: &'a Session,
    /// What templates know the volume's device by.
    device: PathBuf,
    root: PathBuf,
    packages: Option<PackageCache>,
    booted: Option<Booted>,
    put_in: Vec<PutIn>,
    /// Name of the builder, for what is shown.
    label: String,
    secrets: Vec<String>,
    /// When what runs has to have ended.
    deadline: Cell<Option<Instant>>,
    /// The words before a command that keep it from syncing what it writes.
    without_sync: [String; 2],
    /// A line of shell that every command is put into, as `"$@"`.
    wrapper: Option<String>,
}

/// A file that is there for the build only.
struct PutIn {
    path: PathBuf,
    /// Device and inode of what we put there: if it is another file later, a provisioner has made it.
    ours: (u64, u64),
    /// Name under which what stood there before waits.
    original: Option<OsString>,
}

impl<'a> Chroot<'a> {
    /// Mounts the root file system of `device` at `root`, as the plan has it.
    pub(crate) fn mount_root(session: &'a Session, device: &Device, root: &Path, plan: &Plan) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("creating the mount point {}", root.display()))?;
        let device_of_root = device.present(plan.root_partition())?;
        let mount = |more: &[&str]| {
            let options = plan.options.mount_options.iter().flat_map(|option| ["-o", option]);
            session.command("mount").args(more).args(options).arg(&device_of_root).arg(root).run()
        };
        mount(WITHOUT_BARRIERS).or_else(|_| mount(&[]))?;
        Ok(Self {
            session,
            device: device.path().to_owned(),
            root: root.to_owned(),
            packages: None,
            booted: None,
            put_in: Vec::new(),
            label: plan.builder.clone(),
            secrets: plan.secrets.clone(),
            deadline: Cell::new(None),
            without_sync: crate::suppress_sync::words()?,
            wrapper: plan.options.command_wrapper.clone(),
        })
    }

    /// What is mounted below the root.
    pub(crate) fn mounted_below(&self) -> Result<Vec<String>> {
        let mounts = self.session.mounts()?;
        Ok(mounts
            .into_iter()
            .filter(|mount| Path::new(mount) != self.root && Path::new(mount).starts_with(&self.root))
            .collect())
    }

    /// Mounts further file systems inside the root.
    pub(crate) fn mount_extra<'m>(&self, mounts: impl IntoIterator<Item = &'m Mount>) -> Result<()> {
        mount_below(self.session, &self.root, mounts)
    }

    /// Lets apt use what other builds have downloaded.
    pub(crate) fn share_packages(&mut self, shared: &Path, scratch: &Path) -> Result<()> {
        self.packages = PackageCache::mount(self.session, &self.root, shared, scratch, &self.label)?;
        Ok(())
    }

    /// Copies files of the host to the same place inside, for the time of the build.
    pub(crate) fn copy_files<'f>(&mut self, files: impl IntoIterator<Item = &'f String>) -> Result<()> {
        for file in files {
            let content = fs::read(file).with_context(|| format!("copying {file} into the chroot"))?;
            self.put_in(Path::new(file), &content, 0o644)?;
        }
        Ok(())
    }

    /// Keeps packages that are installed from starting services.
    pub(crate) fn forbid_services(&mut self) -> Result<()> {
        self.put_in(Path::new("/usr/sbin/policy-rc.d"), POLICY_RC_D, 0o755)
    }

    /// Boots the volume's own system: from here on commands run in it.
    pub(crate) fn boot(&mut self, scratch: &Path) -> Result<()> {
        self.put_in(Path::new("/etc/resolv.conf"), Booted::resolv_conf().as_bytes(), 0o644)?;
        self.booted = Some(Booted::boot(self.session, &self.root, scratch, &self.label)?);
        Ok(())
    }

    /// A program inside the root, with a clean environment.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let words = self.words();
        let command = Command::new(&words[0]).args(&words[1..]).arg(program).env_clear();
        self.shown(environment().fold(command, |command, (name, value)| command.env(name, value)))
    }

    /// A command whose output is shown as the builder's, without its secrets, and which ends at the deadline.
    pub(crate) fn shown(&self, command: Command) -> Command {
        self.secrets.iter().fold(command, Command::secret).labelled(&self.label).until(self.deadline.get())
    }

    /// From here on commands end at this moment.
    pub(crate) fn set_deadline(&self, deadline: Option<Instant>) {
        self.deadline.set(deadline);
    }

    /// What templates know the volume's device by.
    pub(crate) fn device(&self) -> &Path {
        &self.device
    }

    /// Where it is mounted, in the session.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A command outside the root, with the host's files and environment, that sees the mounted volume.
    pub(crate) fn on_host(&self, directory: &Path, words: &[String]) -> Command {
        let directory = format!("--wdns={}", directory.display());
        self.shown(self.session.enter(&[&directory]).args(words))
    }

    /// Name of the builder, for what is shown.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// A text without secrets.
    pub(crate) fn redact(&self, text: String) -> String {
        cli::redact(text, &self.secrets)
    }

    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if let Some(wrapper) = &self.wrapper {
            words.extend(["/bin/sh", "-c", wrapper, "sh"].map(str::to_owned));
        }
        match &self.booted {
            Some(booted) => {
                words.extend(self.without_sync.iter().cloned());
                words.extend(booted.enter_words());
            }
            None => {
                words.push("nsenter".to_owned());
                words.extend(self.session.enter_arguments());
                words.push("--".to_owned());
                words.extend(self.without_sync.iter().cloned());
                words.push(format!("{CHROOT}{}", self.root.display()));
            }
        }
        words
    }

    /// The words that bring any command into the root: what the Ansible connection runs.
    pub(crate) fn enter_words(&self) -> Vec<String> {
        let mut words = self.words();
        words.extend(["env", "-i"].map(str::to_owned));
        words.extend(environment().map(|(name, value)| format!("{name}={value}")));
        words
    }

    /// Whether the program is found inside.
    pub(crate) fn has(&self, program: &str) -> Result<bool> {
        Ok(self.command("/bin/sh").args(["-c", "command -v \"$1\"", "sh", program]).ask()?.status.success())
    }

    /// Writes a file inside, from a file of the host. Without a mode one that is there keeps its own, and a new one is
    /// for root alone.
    pub(crate) fn upload(&self, from: &Path, to: &str, mode: Option<u32>) -> Result<()> {
        let doing = || format!("uploading {} to {to} in the chroot", from.display());
        let file = File::open(from).with_context(doing)?;
        let script = "set -e; umask 077; case $1 in */) mkdir -p \"$1\"; esac; cat > \"$1\"; \
                      [ -z \"$2\" ] || chmod \"$2\" \"$1\"";
        let mode = mode.map(|mode| format!("{mode:o}")).unwrap_or_default();
        self.command("/bin/sh")
            .args(["-c", script, "sh", to, &mode])
            .configure(|command| _ = command.stdin(file))
            .run()
            .with_context(doing)?;
        Ok(())
    }

    /// Unpacks a tar stream below a directory inside, which is made where it is not there.
    pub(crate) fn unpack(&self, tar: File, directory: &str) -> Result<()> {
        let script = "mkdir -p \"$1\" && exec tar --extract --no-same-owner --directory \"$1\"";
        self.command("/bin/sh")
            .args(["-c", script, "sh", directory])
            .configure(|command| _ = command.stdin(tar))
            .run()
            .with_context(|| format!("unpacking into {directory} in the chroot"))?;
        Ok(())
    }

    /// Removes something inside, whatever it is.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        self.command("/bin/rm").args(["-rf", "--", path]).run()?;
        Ok(())
    }

    /// Ends what a provisioner left running, and says what it was.
    pub(crate) fn end_left_over(&self) -> Result<Vec<LeftOver>> {
        match &self.booted {
            Some(booted) => isolation::end(|| Ok(booted.left_over())),
            None => isolation::end(|| self.session.left_over()),
        }
    }

    /// Takes out what was put in, puts back what stood there, discards unused blocks, and unmounts.
    pub(crate) fn clean_up(mut self) -> Result<()> {
        if let Some(booted) = self.booted.take() {
            booted.shut_down(self.session, &self.root, &self.label)?;
        }
        while let Some(put_in) = self.put_in.pop() {
            self.take_out(&put_in).with_context(|| format!("putting back {}", put_in.path.display()))?;
        }
        // A removed file may have held a secret: its blocks must not stay in the image. A device that
        // cannot discard says so, and then what it frees is its provider's concern.
        self.session.command("fstrim").arg(&self.root).ask()?;
        self.session.command("umount").arg("--recursive").arg(&self.root).run()?;
        self.packages.map_or(Ok(()), PackageCache::share)
    }

    fn put_in(&mut self, path: &Path, content: &[u8], mode: u32) -> Result<()> {
        let doing = || format!("putting {} into the chroot", path.display());
        let place = self.place(path).with_context(doing)?;
        let original = match place.target.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error).with_context(doing),
            Ok(_) => {
                let mut name = OsString::from(".kiln-original-");
                name.push(&place.name);
                fs::rename(&place.target, place.target.with_file_name(&name)).with_context(doing)?;
                Some(name)
            }
        };
        let mut file =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&place.target).with_context(doing)?;
        file.write_all(content).with_context(doing)?;
        let metadata = file.metadata().with_context(doing)?;
        self.put_in.push(PutIn { path: path.to_owned(), ours: (metadata.dev(), metadata.ino()), original });
        Ok(())
    }

    fn take_out(&self, put_in: &PutIn) -> Result<()> {
        let place = self.place(&put_in.path)?;
        let found = place.target.symlink_metadata().ok().map(|found| (found.dev(), found.ino()));
        let original = put_in.original.as_ref().map(|name| place.target.with_file_name(name));
        // A provisioner that replaced or removed the file meant the image to be so.
        let untouched = found == Some(put_in.ours);
        if untouched {
            fs::remove_file(&place.target)?;
        }
        match original {
            Some(original) if untouched => fs::rename(original, &place.target)?,
            Some(original) => fs::remove_file(original)?,
            None => {}
        }
        Ok(())
    }

    /// Finds a path inside the root, symlinks resolved as the volume's own system would.
    fn place(&self, path: &Path) -> Result<Place> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            bail!("{} is not the path of a file", path.display());
        };
        let directory = Inside::open(&self.session.path(&self.root))?.directory(parent)?;
        let directory = directory.with_context(|| format!("there is no directory {}", parent.display()))?;
        let target = directory.path().join(name);
        Ok(Place { _directory: directory, target, name: name.to_owned() })
    }
}

/// A place in a directory inside the root, reached through an open handle of that directory.
struct Place {
    _directory: Directory,
    target: PathBuf,
    name: OsString,
}

fn environment() -> impl Iterator<Item = (&'static str, String)> {
    let own = ENVIRONMENT.iter().map(|(name, value)| (*name, (*value).to_owned()));
    own.chain(PROXIES.iter().filter_map(|name| Some((*name, std::env::var(name).ok()?))))
}
