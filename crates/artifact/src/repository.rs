//! Git repositories: one on this machine, or a bare copy of one elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cli::lock::{IfHeld, Lock};
use cli::{BadInput, Command, CommandError, narrate};
use sha2::{Digest, Sha256};

const DOING: &str = "opening the component's repository";

/// What HEAD of a fetched copy is: what HEAD is on the other side, whatever branch that is.
const REMOTE_HEAD: &str = "refs/kiln/HEAD";

/// A repository that can be read on this machine.
#[derive(Debug)]
pub struct Repository {
    /// Path or URL by which the manifest names it, without credentials.
    pub name: String,
    /// Directory in it that the source named, relative to its root; empty for the root.
    pub prefix: String,
    /// Its work tree, if it has one.
    work_tree: Option<PathBuf>,
    git_dir: PathBuf,
    shallow: bool,
}

impl Repository {
    /// Opens the repository that `source` is in or names. One elsewhere is fetched into `cache` first, unless `rev` is
    /// a commit that is there.
    pub fn open(source: &str, rev: &str, cache: &Path, if_held: IfHeld) -> Result<Self> {
        if Path::new(source).is_dir() {
            return Self::here(Path::new(source));
        }
        if source.contains(':') || Path::new(source).is_file() {
            return Self::elsewhere(source, rev, cache, if_held);
        }
        let why = format!("there is no directory '{source}', and it is not a URL");
        Err(BadInput::new(DOING, why, "name a directory of a git repository, or its URL, with --source").into())
    }

    fn here(directory: &Path) -> Result<Self> {
        let asked = git()
            .current_dir(directory)
            .args(["rev-parse", "--is-bare-repository", "--is-shallow-repository", "--absolute-git-dir"])
            .arg("--show-prefix")
            .run();
        let answer = match asked {
            Err(CommandError::Failed { tail, .. }) => {
                let why = format!("'{}' cannot be read by git: {}", directory.display(), tail.trim());
                return Err(BadInput::new(DOING, why, "name a directory of a git repository with --source").into());
            }
            answer => answer?.text(),
        };
        let mut lines = answer.lines();
        let bare = lines.next() == Some("true");
        let shallow = lines.next() == Some("true");
        let git_dir = PathBuf::from(lines.next().unwrap_or_default());
        let prefix = lines.next().unwrap_or_default().trim_end_matches('/').to_owned();
        let mut root = directory.canonicalize().with_context(|| format!("source {}", directory.display()))?;
        for _ in Path::new(&prefix).components() {
            root.pop();
        }
        Ok(Self { name: root.display().to_string(), prefix, work_tree: (!bare).then_some(root), git_dir, shallow })
    }

    fn elsewhere(url: &str, rev: &str, cache: &Path, if_held: IfHeld) -> Result<Self> {
        let (name, secret) = without_credentials(url);
        let git_dir = cache.join(format!("{}.git", hex::encode(Sha256::digest(&name))));
        let _lock = Lock::take(&git_dir.with_extension("lock"), &format!("the copy of {name}"), if_held)?;
        let repository =
            Self { name, prefix: String::new(), work_tree: None, git_dir: git_dir.clone(), shallow: false };
        let is_commit = rev.len() == 40 && rev.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_commit && repository.commit(rev)?.is_some() {
            return Ok(repository);
        }
        narrate::step(&format!("fetching {}", repository.name));
        // Making it again does no harm to one that is there, and completes one that a killed run began.
        git().args(["init", "--quiet", "--bare"]).arg(&git_dir).run()?;
        repository.git().args(["symbolic-ref", "HEAD", REMOTE_HEAD]).run()?;
        let fetch = repository
            .git()
            .args(["fetch", "--quiet", "--prune", "--no-write-fetch-head", "--", url])
            .args(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"])
            .arg(format!("+HEAD:{REMOTE_HEAD}"));
        match fetch.secret(secret).run() {
            Err(CommandError::Failed { tail, .. }) => {
                if repository.commit("HEAD")?.is_none() {
                    fs::remove_dir_all(&git_dir).with_context(|| format!("removing {}", git_dir.display()))?;
                }
                // After its first line git only guesses.
                let why = tail.lines().next().unwrap_or("git says no more").to_owned();
                bail!("fetching {}: {why}; check --source, the network and your access there", repository.name)
            }
            fetched => Ok(fetched.map(|_| repository)?),
        }
    }

    /// The commit that `rev` names, if it names one.
    pub fn commit(&self, rev: &str) -> Result<Option<String>, CommandError> {
        let asked = self.git().args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        match asked.arg(format!("{rev}^{{commit}}")).run() {
            Ok(output) => Ok(Some(output.text())),
            Err(CommandError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether commits are missing from it, so that its history cannot be trusted.
    pub fn is_shallow(&self) -> bool {
        self.shallow
    }

    /// Whether `directory` differs from HEAD in the work tree.
    pub fn has_uncommitted_changes(&self, directory: &str) -> Result<bool, CommandError> {
        let Some(work_tree) = &self.work_tree else { return Ok(false) };
        let status = git().current_dir(work_tree).args(["--no-optional-locks", "status", "--porcelain", "--"]);
        Ok(!status.arg(or_root(directory)).run()?.stdout.is_empty())
    }

    /// Git on this repository, whatever the current directory is.
    pub fn git(&self) -> Command {
        git().arg("--git-dir").arg(&self.git_dir)
    }
}

/// A directory as a pathspec of git, for which the root has a name.
pub fn or_root(directory: &str) -> &str {
    if directory.is_empty() { "." } else { directory }
}

fn git() -> Command {
    Command::new("git")
        // Root builds other people's checkouts, and nothing that is run here comes from the repository.
        .args(["-c", "safe.directory=*"])
        // A name of a directory is a name, even if it looks like a pattern.
        .env("GIT_LITERAL_PATHSPECS", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        // A hook of another repository may have started us.
        .configure(|git| {
            for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_OBJECT_DIRECTORY"] {
                git.env_remove(variable);
            }
        })
}

/// The URL without user and password, and what was taken out. The user of an ssh URL is no secret and stays.
fn without_credentials(url: &str) -> (String, String) {
    if let Some((scheme, rest)) = url.split_once("://")
        && let Some((user, host)) = rest.split('/').next().and_then(|authority| authority.rsplit_once('@'))
    {
        let path = &rest[user.len() + 1 + host.len()..];
        let (kept, secret) = match user.split_once(':') {
            Some((user, password)) if scheme.contains("ssh") => (format!("{user}@"), password),
            None if scheme.contains("ssh") => (format!("{user}@"), ""),
            _ => (String::new(), user),
        };
        return (format!("{scheme}://{kept}{host}{path}"), secret.to_owned());
    }
    (url.to_owned(), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_of_a_url() {
        let cases = [
            ("https://host/a.git", "https://host/a.git", ""),
            ("https://me:s3cret@host:8443/a@b.git", "https://host:8443/a@b.git", "me:s3cret"),
            ("https://token@host/a.git", "https://host/a.git", "token"),
            ("ssh://git@host/a.git", "ssh://git@host/a.git", ""),
            ("ssh://git:pw@host/a.git", "ssh://git@host/a.git", "pw"),
            ("git@host:a.git", "git@host:a.git", ""),
            ("file:///srv/a@b.git", "file:///srv/a@b.git", ""),
        ];
        for (url, name, secret) in cases {
            assert_eq!(without_credentials(url), (name.to_owned(), secret.to_owned()), "{url}");
        }
    }
}
