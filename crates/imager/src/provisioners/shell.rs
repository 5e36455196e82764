//! `shell`: commands and scripts, run inside the chroot.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use cli::narrate;

use super::attempts::pause;
use super::{Reading, Scripts};
use crate::chroot::Chroot;
use crate::template::{Options, Values};

/// Where a script stands while it runs, unless the template says otherwise.
const FOLDER: &str = "/tmp";
const FILE: &str = "kiln-script.sh";
/// Where the variables stand while it runs.
const VARIABLES: &str = "/tmp/kiln-variables.sh";

pub(crate) struct Shell {
    scripts: Scripts,
    execute: String,
    variables_in_file: bool,
    remote: String,
    skip_clean: bool,
    pause_after: Duration,
    /// Options that mean nothing where there is no connection that could break.
    unused: Vec<&'static str>,
    values: Values,
}

impl Shell {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let scripts = Scripts::read(options, reading)?;
        let variables_in_file = options.bool("use_env_var_file")?.unwrap_or(false);
        let default = match variables_in_file {
            true => "chmod +x {{.Path}}; . {{.EnvVarFile}} && {{.Path}}",
            false => "chmod +x {{.Path}}; {{.Vars}} {{.Path}}",
        };
        let folder = reading.string(options, "remote_folder")?.unwrap_or_else(|| FOLDER.into());
        let file = reading.string(options, "remote_file")?.unwrap_or_else(|| FILE.into());
        let line = options.line_of("remote_path");
        let remote = reading.string(options, "remote_path")?.unwrap_or_else(|| format!("{folder}/{file}"));
        if !remote.starts_with('/') {
            let why = format!("the script's place '{remote}' is not absolute");
            return Err(options.fault(line, why, "begin it with '/'").into());
        }
        let mut unused = Vec::new();
        if options.bool("expect_disconnect")?.is_some() {
            unused.push("expect_disconnect");
        }
        if options.duration("start_retry_timeout")?.is_some() {
            unused.push("start_retry_timeout");
        }
        let shell = Self {
            scripts,
            execute: options.string("execute_command")?.unwrap_or_else(|| default.into()),
            variables_in_file,
            remote,
            skip_clean: options.bool("skip_clean")?.unwrap_or(false),
            pause_after: options.duration("pause_after")?.unwrap_or_default(),
            unused,
            values: reading.values.clone(),
        };
        let line = options.line_of("execute_command");
        match shell.command_line() {
            Ok(_) => Ok(shell),
            Err(why) => Err(options.fault(line, format!("execute_command: {why}"), "mend it").into()),
        }
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        self.scripts.stage(stage)
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        if !self.unused.is_empty() {
            let unused = self.unused.join(" and ");
            narrate::note(&format!("{}: {unused}: there is no connection that could break", chroot.label()));
        }
        let line = self.command_line().map_err(anyhow::Error::msg)?;
        for script in Scripts::staged(stage)? {
            chroot.upload(&script, &self.remote, Some(0o755))?;
            if self.variables_in_file {
                let mut file = tempfile::NamedTempFile::new()?;
                std::io::Write::write_all(&mut file, self.scripts.variables_file(&self.values).as_bytes())?;
                chroot.upload(file.path(), VARIABLES, Some(0o600))?;
            }
            let run = chroot.command("/bin/sh").args(["-c", &line]).narrated();
            let ended = run.run_for(&self.scripts.valid_exit_codes);
            if !self.skip_clean {
                chroot.remove(&self.remote)?;
            }
            if self.variables_in_file {
                chroot.remove(VARIABLES)?;
            }
            ended?;
        }
        pause(self.pause_after)
    }

    /// The line that a shell *inside* runs: a variable in it means the image's, never the host's.
    fn command_line(&self) -> Result<String, String> {
        let mut values = self.values.clone();
        values.fields.insert("Path", self.remote.clone());
        if self.variables_in_file {
            values.fields.insert("EnvVarFile", VARIABLES.into());
        }
        values.fields.insert("Vars", self.scripts.variables(&self.values));
        values.interpolate(&self.execute)
    }
}
