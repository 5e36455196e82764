//! `shell`: commands and scripts, run inside the chroot.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Reading;
use crate::chroot::Chroot;
use crate::template::{Options, Values};

/// Where a script stands while it runs.
const REMOTE: &str = "/tmp/kiln-script.sh";

pub(crate) struct Shell {
    inline: Vec<String>,
    shebang: String,
    scripts: Vec<PathBuf>,
    environment: Vec<String>,
    execute: String,
    valid_exit_codes: Vec<i32>,
    values: Values,
}

impl Shell {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let inline = reading.strings(options, "inline")?;
        let mut scripts = reading.paths(options, "scripts")?;
        scripts.extend(reading.path(options, "script")?);
        if inline.is_empty() == scripts.is_empty() {
            let why = "provisioner 'shell' needs either 'inline' or 'script' or 'scripts'";
            return Err(options.fault(options.line(), why, "give one of them").into());
        }
        let line = options.line_of("valid_exit_codes");
        let codes = options.strings("valid_exit_codes")?.into_iter().map(|code| code.parse());
        let mut valid_exit_codes: Vec<i32> = codes
            .collect::<Result<_, _>>()
            .map_err(|_| options.fault(line, "valid_exit_codes must be numbers", "write them as 0 to 255"))?;
        if valid_exit_codes.is_empty() {
            valid_exit_codes.push(0);
        }
        let line = options.line_of("environment_vars");
        let environment = reading.strings(options, "environment_vars")?;
        if let Some(wrong) = environment.iter().find(|variable| !variable.contains('=')) {
            let why = format!("environment variable '{wrong}' has no '='");
            return Err(options.fault(line, why, "write NAME=value").into());
        }
        Ok(Self {
            inline,
            shebang: reading.string(options, "inline_shebang")?.unwrap_or_else(|| "/bin/sh -e".into()),
            scripts,
            environment,
            execute: options
                .string("execute_command")?
                .unwrap_or_else(|| "chmod +x {{.Path}}; {{.Vars}} {{.Path}}".into()),
            valid_exit_codes,
            values: reading.values.clone(),
        })
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        if !self.inline.is_empty() {
            let script = format!("#!{}\n{}\n", self.shebang, self.inline.join("\n"));
            fs::write(stage.join("000-inline.sh"), script)?;
        }
        for (number, script) in self.scripts.iter().enumerate() {
            let name = script.file_name().unwrap_or_default().to_string_lossy();
            let staged = stage.join(format!("{number:03}-{name}"));
            fs::copy(script, &staged).with_context(|| format!("copying {}", script.display()))?;
        }
        Ok(())
    }

    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        let mut scripts: Vec<_> = fs::read_dir(stage)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        scripts.sort();
        for script in scripts {
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
            chroot.upload(&script, REMOTE, 0o755)?;
            let ended = chroot
                .command("/bin/sh")
                .args(["-c", &self.command_line()?])
                .narrated()
                .run_for(&self.valid_exit_codes);
            chroot.remove(REMOTE)?;
            ended?;
        }
        Ok(())
    }

    /// The line that a shell *inside* runs: a variable in it means the image's, never the host's.
    fn command_line(&self) -> Result<String> {
        let mut variables = vec![
            format!("PACKER_BUILD_NAME={}", shell_words::quote(&self.values.build_name)),
            format!("PACKER_BUILDER_TYPE={}", shell_words::quote(&self.values.build_type)),
        ];
        for variable in &self.environment {
            if let Some((name, value)) = variable.split_once('=') {
                variables.push(format!("{name}={}", shell_words::quote(value)));
            }
        }
        let mut values = self.values.clone();
        values.fields.insert("Path", REMOTE.into());
        values.fields.insert("Vars", variables.join(" "));
        values.interpolate(&self.execute).map_err(|why| anyhow::anyhow!("execute_command: {why}"))
    }
}
