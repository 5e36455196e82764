//! `shell-local`: commands and scripts, run on the host.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::Command;

use super::{Reading, Scripts};
use crate::chroot::Chroot;
use crate::template::{Content, Options, Values};

/// What stands in the place of the device and the mount path until it runs: private-use characters, so that no
/// text of a user's is taken for them.
const DEVICE: &str = "\u{e000}Device\u{e000}";
const MOUNT_PATH: &str = "\u{e000}MountPath\u{e000}";

pub(crate) struct ShellLocal {
    scripts: Scripts,
    /// The words that run a script; each may name `.Vars` and `.Script`.
    execute: Vec<String>,
    /// Systems that it is for, in Go's names; empty: any.
    only_on: Vec<String>,
    directory: PathBuf,
    values: Values,
}

impl ShellLocal {
    /// Reads the provisioner: it may name the device and the mount path, which are known only when it runs.
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let mut values = reading.values.clone();
        values.fields.extend([("Device", DEVICE.to_owned()), ("MountPath", MOUNT_PATH.to_owned())]);
        Self::read_alone(options, &Reading { values: &values, ..*reading })
    }

    /// Reads the post-processor.
    pub(crate) fn read_alone(options: &mut Options, reading: &Reading) -> Result<Self> {
        options.refuse("use_linux_pathing", "remove it: it is for Windows")?;
        options.refuse("tempfile_extension", "remove it: a script's name does not matter on Linux")?;
        let execute_line = options.line_of("execute_command");
        let execute = match options.node("execute_command").map(|node| node.content) {
            None => ["/bin/sh", "-c", "{{.Vars}} {{.Script}}"].map(str::to_owned).to_vec(),
            Some(Content::String(line)) => vec!["/bin/sh".into(), "-c".into(), line],
            Some(Content::Array(words)) if !words.is_empty() => words
                .into_iter()
                .map(|word| match word.content {
                    Content::String(word) => Ok(word),
                    _ => Err(options.fault(word.line, "'execute_command' must be a list of strings", "quote it")),
                })
                .collect::<Result<_, _>>()?,
            Some(_) => {
                return Err(options
                    .fault(execute_line, "'execute_command' must be a list of strings", "mend it")
                    .into());
            }
        };
        let shell = Self {
            scripts: Scripts::read(options, reading)?,
            execute,
            only_on: reading.strings(options, "only_on")?,
            directory: reading.base.to_owned(),
            values: reading.values.clone(),
        };
        match shell.words(Path::new("script"), &shell.values) {
            Ok(_) => Ok(shell),
            Err(why) => Err(options.fault(execute_line, format!("execute_command: {why}"), "mend it").into()),
        }
    }

    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        self.scripts.stage(stage)
    }

    /// Runs it in the session, where the volume is mounted, but outside the volume's root.
    pub(crate) fn run(&self, chroot: &Chroot, stage: &Path) -> Result<()> {
        let (device, mount_path) = (chroot.device().display().to_string(), chroot.root().display().to_string());
        let fill = |text: &str| text.replace(DEVICE, &device).replace(MOUNT_PATH, &mount_path);
        for script in Scripts::staged(stage)? {
            if let Ok(text) = fs::read_to_string(&script) {
                fs::write(&script, fill(&text))?;
            }
        }
        self.run_each(stage, |words| {
            let words: Vec<_> = words.iter().map(|word| fill(word)).collect();
            chroot.on_host(&self.directory, &words)
        })
    }

    /// Runs it when there is no volume, as a post-processor.
    pub(crate) fn run_alone(&self, stage: &Path, shown: impl Fn(Command) -> Command) -> Result<()> {
        self.run_each(stage, |words| {
            shown(Command::new(&words[0]).args(&words[1..]).current_dir(&self.directory).as_group())
        })
    }

    fn run_each(&self, stage: &Path, command: impl Fn(&[String]) -> Command) -> Result<()> {
        if !self.only_on.is_empty() && !self.only_on.iter().any(|system| system == "linux") {
            return Ok(());
        }
        for script in Scripts::staged(stage)? {
            let words = self.words(&script, &self.values).map_err(anyhow::Error::msg)?;
            command(&words).narrated().run_for(&self.scripts.valid_exit_codes)?;
        }
        Ok(())
    }

    fn words(&self, script: &Path, values: &Values) -> Result<Vec<String>, String> {
        let mut values = values.clone();
        values.fields.insert("Script", script.display().to_string());
        values.fields.insert("Vars", self.scripts.variables(&values));
        self.execute.iter().map(|word| values.interpolate(word)).collect()
    }
}
