//! What `shell`, `shell-local` and the post-processor `shell-local` have in common: scripts and their environment.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Reading;
use crate::template::{Options, Values};

/// Lines and scripts to be run one after another.
pub(crate) struct Scripts {
    inline: Vec<String>,
    shebang: String,
    scripts: Vec<PathBuf>,
    /// Scripts that are no text, which are left as they are.
    binary: bool,
    environment: Vec<(String, String)>,
    format: Format,
    pub(crate) valid_exit_codes: Vec<i32>,
}

/// How a variable is written, as Packer's `env_var_format` has it: `%s='%s' `.
struct Format {
    before: String,
    between: String,
    after: String,
}

impl Scripts {
    pub(crate) fn read(options: &mut Options, reading: &Reading) -> Result<Self> {
        let what = options.what().to_owned();
        let binary_line = options.line_of("binary");
        let binary = options.bool("binary")?.unwrap_or(false);
        let mut inline = reading.strings(options, "inline")?;
        if options.kind() == "shell-local" {
            // Its older name for one line.
            inline.extend(reading.string(options, "command")?);
        }
        let mut scripts = reading.paths(options, "scripts")?;
        scripts.extend(reading.path(options, "script")?);
        if inline.is_empty() == scripts.is_empty() {
            let why = format!("{what} needs either 'inline' or 'script' or 'scripts'");
            return Err(options.fault(options.line(), why, "give one of them").into());
        }
        if binary && !inline.is_empty() {
            let why = "'inline' is text, and 'binary' says that it is not";
            return Err(options.fault(binary_line, why, "remove one of them").into());
        }
        Ok(Self {
            inline,
            shebang: reading.string(options, "inline_shebang")?.unwrap_or_else(|| "/bin/sh -e".into()),
            scripts,
            binary,
            environment: environment(options, reading)?,
            format: Format::read(options)?,
            valid_exit_codes: valid_exit_codes(options)?,
        })
    }

    /// Copies the scripts into the stage, in the order in which they run.
    pub(crate) fn stage(&self, stage: &Path) -> Result<()> {
        if !self.inline.is_empty() {
            let script = format!("#!{}\n{}\n", self.shebang, self.inline.join("\n"));
            fs::write(stage.join("000-inline.sh"), script)?;
        }
        for (number, script) in self.scripts.iter().enumerate() {
            let name = script.file_name().unwrap_or_default().to_string_lossy();
            let staged = stage.join(format!("{number:03}-{name}"));
            let doing = || format!("copying {}", script.display());
            let mut content = fs::read(script).with_context(doing)?;
            if !self.binary {
                // A script that was written on Windows runs as well, as with Packer.
                content = without_carriage_returns(&content);
            }
            fs::write(&staged, content).with_context(doing)?;
        }
        Ok(())
    }

    /// The staged scripts, executable, in order.
    pub(crate) fn staged(stage: &Path) -> Result<Vec<PathBuf>> {
        let mut scripts: Vec<_> = fs::read_dir(stage)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        scripts.sort();
        for script in &scripts {
            fs::set_permissions(script, fs::Permissions::from_mode(0o755))?;
        }
        Ok(scripts)
    }

    /// The variables as words before a command.
    pub(crate) fn variables(&self, values: &Values) -> String {
        self.formatted(values, &self.format)
    }

    /// The variables as a file that a shell reads.
    pub(crate) fn variables_file(&self, values: &Values) -> String {
        let format = |before: &str, between: &str, after: &str| Format {
            before: before.into(),
            between: between.into(),
            after: after.into(),
        };
        self.formatted(values, &format("export ", "='", "'\n"))
    }

    fn formatted(&self, values: &Values, format: &Format) -> String {
        let own = [("PACKER_BUILD_NAME", &values.build_name), ("PACKER_BUILDER_TYPE", &values.build_type)];
        let own = own.into_iter().map(|(name, value)| (name, value.as_str()));
        let given = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let Format { before, between, after } = format;
        own.chain(given)
            .map(|(name, value)| {
                let value = value.replace('\'', "'\"'\"'");
                format!("{before}{name}{between}{value}{after}")
            })
            .collect()
    }
}

impl Format {
    fn read(options: &mut Options) -> Result<Self> {
        let line = options.line_of("env_var_format");
        let text = options.string("env_var_format")?.unwrap_or_else(|| "%s='%s' ".into());
        match text.split("%s").collect::<Vec<_>>()[..] {
            [before, between, after] => {
                Ok(Self { before: before.into(), between: between.into(), after: after.into() })
            }
            _ => {
                let why = format!("env_var_format '{text}' has no place for name and value");
                Err(options.fault(line, why, "write %s twice, such as %s='%s'").into())
            }
        }
    }
}

fn environment(options: &mut Options, reading: &Reading) -> Result<Vec<(String, String)>> {
    let line = options.line_of("environment_vars");
    let mut environment = Vec::new();
    for variable in reading.strings(options, "environment_vars")? {
        let Some((name, value)) = variable.split_once('=') else {
            let why = format!("environment variable '{variable}' has no '='");
            return Err(options.fault(line, why, "write NAME=value").into());
        };
        environment.push((name.to_owned(), value.to_owned()));
    }
    for (name, value) in options.string_map("env")? {
        environment.push((name, reading.text(options, "env", &value)?));
    }
    Ok(environment)
}

fn valid_exit_codes(options: &mut Options) -> Result<Vec<i32>> {
    let line = options.line_of("valid_exit_codes");
    let codes: Result<Vec<i32>, _> = options.strings("valid_exit_codes")?.iter().map(|code| code.parse()).collect();
    let codes = codes.map_err(|_| options.fault(line, "valid_exit_codes must be numbers", "write them as 0 to 255"))?;
    Ok(if codes.is_empty() { vec![0] } else { codes })
}

fn without_carriage_returns(content: &[u8]) -> Vec<u8> {
    let next = content.iter().skip(1).map(Some).chain([None]);
    let kept = content.iter().zip(next).filter(|(byte, next)| !(**byte == b'\r' && *next == Some(&b'\n')));
    kept.map(|(byte, _)| *byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_carriage_returns_of_line_ends_go() {
        assert_eq!(without_carriage_returns(b"a\r\nb\rc\r\n\r"), b"a\nb\rc\n\r");
    }
}
