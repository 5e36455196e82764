//! The component that is taken down the line, as git knows it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use cli::{BadInput, Command, CommandError, narrate};

/// A directory in a git repository.
#[derive(Debug)]
pub struct Component {
    /// The repository's working tree.
    pub repository: PathBuf,
    /// The component's directory in it; empty for its root.
    pub subdirectory: String,
}

impl Component {
    /// Finds the repository that has the directory `path`.
    pub fn find(path: &Path) -> Result<Self> {
        let remedy = "name a directory in a git repository with --component";
        let bad = |why: &str| BadInput::new("looking for the component", why, remedy).in_file(path);
        if !path.join("component.toml").is_file() {
            let why = if path.is_dir() { "it has no component.toml" } else { "there is no such directory" };
            return Err(bad(why).into());
        }
        let shown = match git(path, &["rev-parse", "--show-toplevel", "--show-prefix"]).run() {
            Ok(output) => output.text(),
            Err(CommandError::Failed { .. }) => return Err(bad("it is not in a git repository").into()),
            Err(error) => return Err(error.into()),
        };
        let (repository, subdirectory) = parse(&shown);
        Ok(Self { repository, subdirectory })
    }

    /// Says so where the working tree differs from what is committed: only that is built.
    pub fn note_uncommitted(&self, revision: &str) -> Result<()> {
        let directory = self.repository.join(&self.subdirectory);
        let changes = git(&directory, &["status", "--porcelain", "--", "."]).run()?.text();
        if !changes.is_empty() {
            let count = changes.lines().count();
            let files = if count == 1 { "1 file has".to_owned() } else { format!("{count} files have") };
            narrate::note(&format!("{files} uncommitted changes, which are left out: {revision} is built"));
        }
        Ok(())
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Command {
    Command::new("git").arg("-C").arg(directory).args(arguments)
}

/// Git prints the working tree's root and, below it, a path that ends with a slash or is empty.
fn parse(shown: &str) -> (PathBuf, String) {
    let (repository, prefix) = shown.split_once('\n').unwrap_or((shown, ""));
    (repository.into(), prefix.trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_a_directory_or_the_whole_repository() {
        assert_eq!(parse("/src/kiln\nexamples/hello/"), ("/src/kiln".into(), "examples/hello".to_owned()));
        assert_eq!(parse("/src/hello\n"), ("/src/hello".into(), String::new()));
        assert_eq!(parse("/src/hello"), ("/src/hello".into(), String::new()));
    }
}
