//! `file`: a file or a directory of the host, copied into the image.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Reading, copy_tree, tar_of};
use crate::chroot::Chroot;
use crate::template::Options;

/// The name of the copy in the stage.
const STAGED: &str = "source";

pub(crate) struct FileUpload {
    source: PathBuf,
    /// As in rsync: with a slash at its end, what is in the directory; without, the directory.
    contents_only: bool,
    destination: String,
}

impl FileUpload {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let line = options.line_of("direction");
        if let Some(other) = options.string("direction")?.filter(|direction| direction != "upload") {
            let why = format!("direction '{other}' is not supported");
            return Err(options.fault(line, why, "only \"upload\" is").into());
        }
        let text = options.required("source")?;
        let text = reading.text(options, "source", &text)?;
        let source = reading.existing(options, "source", options.line_of("source"), &text)?;
        let destination = options.required("destination")?;
        let destination = reading.text(options, "destination", &destination)?;
        if !destination.starts_with('/') {
            let why = format!("destination '{destination}' is not absolute");
            return Err(options.fault(options.line_of("destination"), why, "begin it with '/'").into());
        }
        Ok(Self { source, contents_only: text.ends_with('/'), destination })
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        copy_tree(&self.source, &stage.join(STAGED))
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        let staged = stage.join(STAGED);
        let name = self.source.file_name().unwrap_or_default().to_string_lossy();
        if staged.is_dir() {
            let destination = match self.contents_only {
                true => self.destination.clone(),
                false => format!("{}/{name}", self.destination.trim_end_matches('/')),
            };
            return chroot.unpack(tar_of(&staged)?, &destination);
        }
        let mode = File::open(&staged)?.metadata()?.permissions().mode() & 0o777;
        // A destination that is a directory, or is meant as one, takes the file under its own name.
        let is_directory = self.destination.ends_with('/')
            || chroot.command("/usr/bin/test").args(["-d", &self.destination]).ask()?.status.success();
        if is_directory {
            chroot.command("/bin/mkdir").args(["-p", &self.destination]).run()?;
            return chroot.upload(&staged, &format!("{}/{name}", self.destination.trim_end_matches('/')), mode);
        }
        chroot.upload(&staged, &self.destination, mode)
    }
}
