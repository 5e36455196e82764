//! One revision of a component: which files it has, and the version that follows from them.

use std::collections::BTreeSet;
use std::path::{Component as Part, Path, PathBuf};

use anyhow::{Context, Result};
use cli::{BadInput, CommandError};
use jiff::Timestamp;
use manifest::{Identity, Source};

use crate::component_file::{self, ComponentFile};
use crate::repository::{Repository, or_root};

const DOING: &str = "resolving the revision";

/// A component as it was at a commit.
#[derive(Debug)]
pub struct Revision {
    /// The commit that was asked for.
    pub commit: String,
    /// The last commit that touched the component.
    pub component_commit: String,
    /// The component's directory in the repository; empty for its root.
    pub subdirectory: String,
    /// Id of the git tree of that directory.
    pub tree: String,
    /// Committer's time of `component_commit`, in seconds since 1970.
    pub epoch: i64,
    /// The component's version; see [`version`].
    pub version: String,
    repository: Repository,
    files: BTreeSet<String>,
}

impl Revision {
    /// Finds `rev` in the repository, and the component in its directory `subdir` there.
    pub fn resolve(repository: Repository, rev: &str, subdir: &str) -> Result<Self> {
        let subdirectory = below(&repository.prefix, subdir)?;
        let Some(commit) = repository.commit(rev)? else {
            let why = format!("{} has no revision '{rev}'", repository.name);
            return Err(BadInput::new(DOING, why, "name a commit, a branch or a tag with --rev").into());
        };
        if repository.is_shallow() {
            let why = format!("{} is a shallow clone: which commit made the component is not known", repository.name);
            return Err(BadInput::new(DOING, why, "run `git fetch --unshallow` there").into());
        }
        let listing = repository.git().args(["ls-tree", "-r", "-z", "--full-tree"]);
        let listing = match listing.arg(format!("{commit}:{subdirectory}")).run() {
            Err(CommandError::Failed { .. }) => {
                let why = format!("{} has no directory '{subdirectory}' at {}", repository.name, short(&commit));
                return Err(BadInput::new(DOING, why, "name the component's directory with --subdir").into());
            }
            listing => listing?.stdout,
        };
        let files = files(&String::from_utf8_lossy(&listing))?;
        let tree = repository.git().args(["rev-parse", "--verify"]).arg(format!("{commit}:{subdirectory}")).run()?;
        let log = repository.git().args(["log", "-1", "--no-show-signature", "--format=%H %ct"]).arg(&commit);
        let log = log.arg("--").arg(or_root(&subdirectory)).run()?.text();
        let (component_commit, epoch) = log.split_once(' ').context("git log names no commit of the component")?;
        let epoch = epoch.parse().with_context(|| format!("commit {component_commit} has the time '{epoch}'"))?;
        Ok(Self {
            version: version(component_commit, epoch)?,
            component_commit: component_commit.to_owned(),
            tree: tree.text(),
            commit,
            subdirectory,
            epoch,
            repository,
            files,
        })
    }

    /// Reads the component file of this revision.
    pub fn component_file(&self) -> Result<ComponentFile> {
        let doing = format!("reading the component at {} of {}", short(&self.commit), self.repository.name);
        let path = Path::new(&self.subdirectory).join(component_file::NAME);
        let refuse = |why: &str, remedy: &str| BadInput::new(&doing, why, remedy).in_file(&path);
        if !self.files.contains(component_file::NAME) {
            let remedy = "commit one (docs/artifact.md), or name the component's directory with --subdir";
            return Err(refuse("there is no such file", remedy).into());
        }
        let blob = format!("{}:{}", self.tree, component_file::NAME);
        let text = String::from_utf8(self.repository.git().args(["cat-file", "blob", &blob]).run()?.stdout)
            .map_err(|_| refuse("it is not text in UTF-8", "save it as UTF-8"))?;
        Ok(ComponentFile::parse(&doing, &path, &text, |file| self.files.contains(file))?)
    }

    /// Whether the work tree has changes of the component that no commit has.
    pub fn has_uncommitted_changes(&self) -> Result<bool> {
        Ok(self.repository.has_uncommitted_changes(&self.subdirectory)?)
    }

    /// Writes the component's files below `directory`, which exists; `index` is a file that git may use and leave.
    ///
    /// Only what the tree says counts, not what is set up for git on this machine.
    pub fn export(&self, directory: &Path, index: &Path) -> Result<()> {
        let git = || {
            let git = self.repository.git().arg("--work-tree").arg(directory);
            git.args(["-c", "core.autocrlf=false", "-c", "core.eol=lf", "-c", "core.sparseCheckout=false"])
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_ATTR_NOSYSTEM", "1")
                .env("GIT_INDEX_FILE", index)
                .current_dir(directory)
        };
        git().args(["read-tree", &self.tree]).run()?;
        git().args(["checkout-index", "--all", "--force", "--quiet"]).run()?;
        Ok(())
    }

    /// What the manifest says of this revision.
    pub fn source(&self, archive: Identity) -> Source {
        Source {
            repository: self.repository.name.clone(),
            subdirectory: self.subdirectory.clone(),
            commit: self.commit.clone(),
            component_commit: self.component_commit.clone(),
            tree: self.tree.clone(),
            version: self.version.clone(),
            epoch: self.epoch,
            archive,
        }
    }
}

/// The first digits of a commit. Git's own abbreviation grows with the repository; this does not.
pub fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

/// `0.20261123.075625.gc48c0c6f`: the commit's time in UTC, and the commit.
///
/// Versions sort by time as Debian compares them, need no count of commits, and have only
/// characters that image names, tags and host names take too.
fn version(commit: &str, epoch: i64) -> Result<String> {
    let time = Timestamp::from_second(epoch).with_context(|| format!("the time of commit {commit}"))?;
    Ok(format!("0.{}.g{}", time.strftime("%Y%m%d.%H%M%S"), short(commit)))
}

/// The paths that `git ls-tree -r -z` lists.
fn files(listing: &str) -> Result<BTreeSet<String>, BadInput> {
    let entries = listing.split_terminator('\0').filter_map(|entry| entry.split_once('\t'));
    entries
        .map(|(kind, path)| {
            if kind.starts_with("160000 ") {
                let why = format!("the component has a git submodule at '{path}', which is not exported");
                return Err(BadInput::new(DOING, why, "commit the files themselves"));
            }
            Ok(path.to_owned())
        })
        .collect()
}

/// The directory `subdir` below `prefix`, in git's spelling.
fn below(prefix: &str, subdir: &str) -> Result<String, BadInput> {
    let mut path = PathBuf::from(prefix);
    for part in Path::new(subdir).components() {
        match part {
            Part::Normal(name) => path.push(name),
            Part::CurDir => {}
            _ => {
                let why = format!("--subdir is '{subdir}', which is not a path below the source");
                return Err(BadInput::new(DOING, why, "write it relative to the source, without '..'"));
            }
        }
    }
    Ok(path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_has_the_time_and_the_commit() {
        let version = version("c48c0c6f0123456789", 1_795_420_585).unwrap();
        assert_eq!(version, "0.20261123.075625.gc48c0c6f");
        assert!(super::version("c48c0c6f", i64::MAX).is_err());
    }

    #[test]
    fn a_listing_gives_paths_and_a_submodule_is_refused() {
        let listing = "100644 blob 1\tREADME\x00100755 blob 2\ta dir/\trun\0";
        assert_eq!(files(listing).unwrap(), ["README".to_owned(), "a dir/\trun".to_owned()].into());
        let error = files("160000 commit 1\tvendor\0").unwrap_err().to_string();
        assert!(error.contains("submodule at 'vendor'"), "{error}");
    }

    #[test]
    fn a_subdirectory_stays_below_the_source() {
        assert_eq!(below("", "").unwrap(), "");
        assert_eq!(below("", "./examples/hello/").unwrap(), "examples/hello");
        assert_eq!(below("examples", "hello").unwrap(), "examples/hello");
        assert!(below("", "../x").is_err());
        assert!(below("", "/x").is_err());
    }
}
