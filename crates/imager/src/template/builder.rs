//! The options of the builders: `amazon-chroot`, which is Packer's, and `chroot`, the same in names that
//! belong to no provider.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Result;
use manifest::{Account, Isolation};
use provider::Access;

use crate::isolation;

use super::amazon::{self, Amazon, Reading};
use super::{Content, Options, Values};

/// What the options are called that have another name with each type of builder.
pub(super) struct Names {
    pub(super) source: &'static str,
    pub(super) source_filter: &'static str,
    name: &'static str,
    pub(super) virtualization_type: &'static str,
    description: &'static str,
}

const AMAZON: Names = Names {
    source: "source_ami",
    source_filter: "source_ami_filter",
    name: "ami_name",
    virtualization_type: "ami_virtualization_type",
    description: "ami_description",
};

const NEUTRAL: Names = Names {
    source: "source_image",
    source_filter: "source_image_filter",
    name: "image_name",
    virtualization_type: "virtualization_type",
    description: "image_description",
};

impl Names {
    pub(super) fn of(options: &Options) -> &'static Self {
        if options.kind() == "chroot" { &NEUTRAL } else { &AMAZON }
    }

    pub(super) fn is_amazon(&self) -> bool {
        self.source == AMAZON.source
    }
}

/// A builder, interpolated.
#[derive(Debug, Clone)]
pub(crate) struct Builder {
    /// Name that the image is to have.
    pub(crate) image_name: String,
    /// `hvm`, `paravirtual`, or as the source is.
    pub(crate) virtualization_type: Option<String>,
    /// The partition that has the root, if that is not as the virtualization type has it; 0 is the whole disk.
    pub(crate) root_partition: Option<u32>,
    /// Size of the volume in bytes, if it is not the source's.
    pub(crate) size: Option<u64>,
    /// What every command is put into, such as `sudo {{.Command}}`.
    pub(crate) command_wrapper: Option<String>,
    /// What keeps the provisioners apart from the host; `None` is whatever the volume and the host can do.
    pub(crate) isolation: Option<Isolation>,
    /// Where the root is mounted; may name `.Device`.
    pub(crate) mount_path: Option<String>,
    /// Options of the root's mount.
    pub(crate) mount_options: Vec<String>,
    /// File systems that are mounted inside the root.
    pub(crate) chroot_mounts: Vec<Mount>,
    /// Files that are there during provisioning only.
    pub(crate) copy_files: Vec<String>,
    /// Shell commands before the root is mounted; may name `.Device`.
    pub(crate) pre_mount_commands: Vec<String>,
    /// Shell commands after it is mounted; may name `.Device` and `.MountPath`.
    pub(crate) post_mount_commands: Vec<String>,
    /// Tags of the image.
    pub(crate) tags: BTreeMap<String, String>,
    /// Take the name over from an image that has it.
    pub(crate) force_deregister: bool,
    /// What means something on AWS only.
    pub(crate) amazon: Amazon,
}

/// One of `chroot_mounts`: what, from where, and where to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Mount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) target: PathBuf,
}

impl Mount {
    /// Whether a booted system has it by itself.
    pub(crate) fn is_kernels(&self) -> bool {
        ["/proc", "/sys", "/dev", "/run"].iter().any(|kernels| self.target.starts_with(kernels))
    }
}

impl Builder {
    /// In whose name it works, and where, before its source is looked for.
    pub(crate) fn access(options: &mut Options, values: &Values) -> Result<Access> {
        let mut reading = Reading { options, values };
        if Names::of(reading.options).is_amazon() {
            return amazon::access(&mut reading);
        }
        Ok(Access { account: Account { region: reading.text("region")?, ..Account::default() }, keys: None })
    }

    /// The builder's options, after [`super::Source::read`].
    pub(crate) fn read(mut options: Options, values: &Values) -> Result<Self> {
        let names = Names::of(&options);
        let mut reading = Reading { options: &mut options, values };
        let mut amazon = if names.is_amazon() { Amazon::read(&mut reading)? } else { Amazon::default() };
        amazon.publication.description = reading.text(names.description)?;
        let line = options.line_of(names.name);
        let image_name = text(&mut options, values, names.name)?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
        if !(3..=128).contains(&image_name.len()) || !image_name.chars().all(allowed) {
            let why = format!("'{image_name}' cannot be an image's name");
            return Err(options.fault(line, why, "use 3 to 128 of A-Z a-z 0-9 ( ) [ ] space . / - ' @ _").into());
        }
        let line = options.line_of(names.virtualization_type);
        let virtualization_type = options.string(names.virtualization_type)?;
        if let Some(other) = virtualization_type.as_deref().filter(|kind| !["hvm", "paravirtual"].contains(kind)) {
            let why = format!("there is no virtualization type '{other}'");
            return Err(options.fault(line, why, "use hvm or paravirtual").into());
        }
        let partition_line = options.line_of("mount_partition");
        let root_partition = options.number("mount_partition")?;
        if root_partition.is_some_and(|number| number > 0) && virtualization_type.as_deref() == Some("paravirtual") {
            let why = "a paravirtual volume is a file system on the whole disk, without partitions";
            return Err(options.fault(partition_line, why, "remove mount_partition").into());
        }
        let tags = Reading { options: &mut options, values }.tags("tags")?;
        let copies_given = options.has("copy_files");
        let copy_files = options.strings("copy_files")?;
        let builder = Self {
            image_name,
            virtualization_type,
            root_partition,
            // Packer's unit is GiB.
            size: options.number("root_volume_size")?.filter(|size| *size > 0).map(|size| u64::from(size) << 30),
            command_wrapper: command_wrapper(&mut options)?,
            mount_path: options.string("mount_path")?,
            mount_options: options.strings("mount_options")?,
            isolation: isolation(&mut options)?,
            chroot_mounts: chroot_mounts(&mut options)?,
            copy_files: if copies_given { copy_files } else { vec!["/etc/resolv.conf".into()] },
            pre_mount_commands: options.strings("pre_mount_commands")?,
            post_mount_commands: options.strings("post_mount_commands")?,
            tags,
            amazon,
            force_deregister: options.bool("force_deregister")?.unwrap_or(false),
        };
        options.finish()?;
        Ok(builder)
    }
}

/// A required option, interpolated.
fn text(options: &mut Options, values: &Values, name: &'static str) -> Result<String> {
    let line = options.line_of(name);
    let text = options.required(name)?;
    values.interpolate(&text).map_err(|why| mend(options, line, name, &why))
}

fn mend(options: &Options, line: usize, name: &str, why: &str) -> anyhow::Error {
    options.fault(line, format!("{name}: {why}"), "mend it").into()
}

/// `None` if it adds nothing.
fn command_wrapper(options: &mut Options) -> Result<Option<String>> {
    const COMMAND: &str = "{{.Command}}";
    let line = options.line_of("command_wrapper");
    match options.string("command_wrapper")? {
        Some(wrapper) if wrapper.matches(COMMAND).count() != 1 || wrapper.matches("{{").count() != 1 => {
            let why = format!("command_wrapper '{wrapper}' does not have {COMMAND} once, and nothing else in braces");
            Err(options.fault(line, why, format!("write it as sudo {COMMAND}")).into())
        }
        // The command's own words, each as it is.
        wrapper => {
            Ok(wrapper.map(|wrapper| wrapper.replace(COMMAND, "\"$@\"")).filter(|wrapper| wrapper.trim() != "\"$@\""))
        }
    }
}

fn isolation(options: &mut Options) -> Result<Option<Isolation>> {
    let line = options.line_of("isolation");
    match options.string("isolation")?.as_deref() {
        None | Some("auto") => Ok(None),
        Some("chroot") => Ok(Some(Isolation::Chroot)),
        Some("boot") => match isolation::lacking() {
            None => Ok(Some(Isolation::Boot)),
            Some(lacking) => {
                let why = format!("isolation 'boot' is not possible here: {lacking}");
                Err(options.fault(line, why, "mend that, or use \"auto\" or \"chroot\"").into())
            }
        },
        Some(other) => {
            let why = format!("there is no isolation '{other}'");
            Err(options.fault(line, why, "use chroot, boot or auto").into())
        }
    }
}

fn chroot_mounts(options: &mut Options) -> Result<Vec<Mount>> {
    let mount = |kind: &str, source: &str, target: &str| Mount {
        kind: kind.into(),
        source: source.into(),
        target: target.into(),
    };
    let given = options.objects("chroot_mounts")?;
    if given.is_empty() {
        return Ok(vec![
            mount("proc", "proc", "/proc"),
            mount("sysfs", "sysfs", "/sys"),
            mount("bind", "/dev", "/dev"),
            mount("devpts", "devpts", "/dev/pts"),
            mount("binfmt_misc", "binfmt_misc", "/proc/sys/fs/binfmt_misc"),
        ]);
    }
    let mut mounts = Vec::new();
    for node in given {
        let line = node.line;
        let fault =
            || options.fault(line, "a chroot mount must be a list of three strings", "write [type, source, target]");
        let Content::Array(parts) = node.content else { return Err(fault().into()) };
        let parts: Vec<_> = parts
            .iter()
            .map(|part| match &part.content {
                Content::String(text) => text.as_str(),
                _ => "",
            })
            .collect();
        let [kind, source, target] = parts[..] else { return Err(fault().into()) };
        mounts.push(mount(kind, source, target));
    }
    Ok(mounts)
}
