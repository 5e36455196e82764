//! `file`: files and directories of the host copied into the image, or a file of the image to the host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{Reading, copy_tree, tar_of};
use crate::chroot::Chroot;
use crate::template::Options;

pub(crate) enum FileCopy {
    Upload(Upload),
    Download { sources: Vec<String>, destination: PathBuf, into_directory: bool },
}

pub(crate) struct Upload {
    sources: Vec<Source>,
    destination: String,
    /// Whether the files are made by a provisioner before this, and are not there beforehand.
    generated: bool,
}

struct Source {
    path: PathBuf,
    /// As in rsync: with a slash at its end, what is in the directory; without, the directory.
    contents_only: bool,
}

impl FileCopy {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let line = options.line_of("direction");
        let direction = options.string("direction")?.unwrap_or_else(|| "upload".into());
        let source_line = options.line_of(if options.has("source") { "source" } else { "sources" });
        let mut sources = reading.strings(options, "sources")?;
        sources.extend(reading.string(options, "source")?);
        if sources.is_empty() {
            let why = "provisioner 'file' needs the option 'source'";
            return Err(options.fault(options.line(), why, "add \"source\": …").into());
        }
        let destination = options.required("destination")?;
        let destination = reading.text(options, "destination", &destination)?;
        let generated = options.bool("generated")?.unwrap_or(false);
        let inside: Vec<&str> = match direction.as_str() {
            "upload" => vec![&destination],
            "download" => sources.iter().map(String::as_str).collect(),
            other => {
                let why = format!("there is no direction '{other}'");
                return Err(options.fault(line, why, "use \"upload\" or \"download\"").into());
            }
        };
        if let Some(relative) = inside.iter().find(|path| !path.starts_with('/')) {
            let name = if direction == "upload" { "destination" } else { "source" };
            let why = format!("{name} '{relative}' is not absolute");
            return Err(options.fault(options.line_of(name), why, "begin it with '/'").into());
        }
        if direction == "download" {
            if let Some(directory) = sources.iter().find(|source| source.ends_with('/')) {
                let why = format!("source '{directory}' is a directory, and only files can be downloaded");
                return Err(options.fault(source_line, why, "name the files in \"sources\"").into());
            }
            let into_directory = destination.ends_with('/') || sources.len() > 1;
            return Ok(Self::Download { sources, destination: reading.outside()?.join(destination), into_directory });
        }
        let sources = sources
            .iter()
            .map(|text| {
                let path = match generated {
                    true => reading.base.join(text),
                    false => reading.existing(options, "source", source_line, text)?,
                };
                Ok(Source { path, contents_only: text.ends_with('/') })
            })
            .collect::<Result<_>>()?;
        Ok(Self::Upload(Upload { sources, destination, generated }))
    }

    /// Whether it must run each time: for what it writes on the host, or because what it reads is made in the run.
    pub(crate) fn acts_on_host(&self) -> bool {
        match self {
            Self::Upload(upload) => upload.generated,
            Self::Download { .. } => true,
        }
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        match self {
            Self::Upload(upload) if !upload.generated => upload.stage(stage),
            _ => Ok(()),
        }
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        match self {
            Self::Upload(upload) => upload.run(chroot, stage),
            Self::Download { sources, destination, into_directory } => {
                for source in sources {
                    let name = Path::new(source).file_name().unwrap_or_default();
                    let target = if *into_directory { destination.join(name) } else { destination.clone() };
                    download(chroot, source, &target)?;
                }
                Ok(())
            }
        }
    }
}

impl Upload {
    fn stage(&self, stage: &Path) -> Result<()> {
        for (number, source) in self.sources.iter().enumerate() {
            copy_tree(&source.path, &stage.join(number.to_string()))?;
        }
        Ok(())
    }

    fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        if self.generated {
            self.stage(stage)?;
        }
        for (number, source) in self.sources.iter().enumerate() {
            self.upload(chroot, source, &stage.join(number.to_string()))?;
        }
        Ok(())
    }

    fn upload(&self, chroot: &Chroot, source: &Source, staged: &Path) -> Result<()> {
        let name = source.path.file_name().unwrap_or_default().to_string_lossy();
        let below = format!("{}/{name}", self.destination.trim_end_matches('/'));
        if staged.is_dir() {
            let destination = if source.contents_only { &self.destination } else { &below };
            return chroot.unpack(tar_of(staged)?, destination);
        }
        // A destination that is a directory, or is meant as one, takes the file under its own name.
        let is_directory = self.destination.ends_with('/')
            || self.sources.len() > 1
            || chroot.command("/usr/bin/test").args(["-d", &self.destination]).ask()?.status.success();
        if is_directory {
            chroot.command("/bin/mkdir").args(["-p", &self.destination]).run()?;
            return chroot.upload(staged, &below, None);
        }
        // As Packer does it, which goes by way of a temporary file of its own.
        chroot.upload(staged, &self.destination, None)
    }
}

fn download(chroot: &Chroot, source: &str, target: &Path) -> Result<()> {
    let content = chroot.command("/bin/cat").args(["--", source]).run()?.stdout;
    let doing = || format!("writing {}", target.display());
    if let Some(directory) = target.parent() {
        fs::create_dir_all(directory).with_context(doing)?;
    }
    fs::write(target, content).with_context(doing)
}
