//! Roles and collections that a `galaxy_file` names, fetched on the host into the stage.

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use cli::Command;

use super::super::Reading;
use super::{COLLECTIONS, ROLES};
use crate::template::Options;

/// What ansible-galaxy is asked for.
pub(super) struct Galaxy {
    file: PathBuf,
    command: String,
    roles: PathBuf,
    collections: PathBuf,
    /// `--force` or `--force-with-deps`.
    force: Option<&'static str>,
}

impl Galaxy {
    /// Reads the options. Where roles and collections go is in the stage, which the image sees as `staging`.
    pub(super) fn read(options: &mut Options, reading: &Reading, staging: &str) -> Result<Option<Self>> {
        let mut place = |name: &'static str, default: &str| -> Result<PathBuf> {
            let line = options.line_of(name);
            let given = reading.string(options, name)?.unwrap_or_else(|| default.into());
            let path = Path::new(&given);
            let path = path.strip_prefix(staging).unwrap_or(path);
            if path.components().any(|part| !matches!(part, Component::Normal(_))) {
                let why = format!("{name} '{given}' is not below the staging directory");
                return Err(options.fault(line, why, "leave it out, or write a relative path").into());
            }
            Ok(path.to_owned())
        };
        let roles = place("galaxy_roles_path", ROLES)?;
        let collections = place("galaxy_collections_path", COLLECTIONS)?;
        Ok(Self::read_plain(options, reading)?.map(|galaxy| Self { roles, collections, ..galaxy }))
    }

    /// Reads the options but for those places.
    pub(super) fn read_plain(options: &mut Options, reading: &Reading) -> Result<Option<Self>> {
        let command = reading.string(options, "galaxy_command")?.unwrap_or_else(|| "ansible-galaxy".into());
        let Some(file) = reading.path(options, "galaxy_file")? else { return Ok(None) };
        Ok(Some(Self { file, command, roles: ROLES.into(), collections: COLLECTIONS.into(), force: None }))
    }

    pub(super) fn forced(self, force: Option<&'static str>) -> Self {
        Self { force, ..self }
    }

    /// Fetches everything into the stage. ansible-galaxy has the host's environment, for it may need keys.
    pub(super) fn install(&self, stage: &Path) -> Result<()> {
        let text = fs::read_to_string(&self.file)
            .with_context(|| format!("reading the galaxy_file {}", self.file.display()))?;
        let install = |kind: &str, to: &Path| -> Result<()> {
            let words = shell_words::split(&self.command).context("galaxy_command")?;
            let (program, arguments) = words.split_first().context("galaxy_command is empty")?;
            let mut command = Command::new(program).args(arguments).args([kind, "install", "-r"]).arg(&self.file);
            command = command.arg("-p").arg(to).args(self.force).narrated();
            // A path such as `git+file://…/../roles` starts where the file is.
            command.current_dir(self.file.parent().unwrap_or(stage)).as_group().run()?;
            Ok(())
        };
        let roles = stage.join(&self.roles);
        if is_list(&text) || has_key(&text, "roles") {
            install("role", &roles)?;
            forget_when(&roles)?;
        }
        if has_key(&text, "collections") {
            install("collection", &stage.join(&self.collections))?;
        }
        Ok(())
    }
}

/// Whether a requirements file is the older form: a list of roles.
fn is_list(text: &str) -> bool {
    !has_key(text, "roles") && !has_key(text, "collections")
}

/// Whether a key is at the top of a requirements file, whose two keys are all that matters here.
fn has_key(text: &str, key: &str) -> bool {
    text.lines().any(|line| line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with(':')))
}

/// Removes the note of when a role was installed: the same roles must be the same stage.
fn forget_when(roles: &Path) -> Result<()> {
    for entry in walkdir::WalkDir::new(roles).into_iter().filter_map(Result::ok) {
        if entry.file_name() == ".galaxy_install_info" {
            fs::remove_file(entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirements_file_says_what_it_has() {
        let both = "---\nroles:\n  - src: a\ncollections :\n  - name: b.c\n";
        assert!(has_key(both, "roles") && has_key(both, "collections") && !is_list(both));
        let old = "- src: git+file:///roles/a\n  name: collections\n";
        assert!(is_list(old) && !has_key(old, "collections"));
    }
}
