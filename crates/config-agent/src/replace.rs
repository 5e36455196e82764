//! Files that are replaced as a whole: whoever reads one finds the old content or the new one, never less.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown, symlink};
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempPath};

use crate::owner::Ids;

/// Mode and owner that a file is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// Permission bits, such as 0o640.
    pub mode: u32,
    /// Whose it is; whoever runs this if `None`.
    pub owner: Option<Ids>,
}

/// A file beside its destination that could take its place.
#[derive(Debug)]
pub struct Candidate {
    file: NamedTempFile,
    destination: PathBuf,
}

impl Candidate {
    /// Writes a candidate into the destination's own directory, since a rename does not leave a file system. It is on
    /// the disk, with its mode and owner, when this returns; dropping it removes it.
    pub fn write(destination: &Path, content: &[u8], access: Access) -> io::Result<Self> {
        let mut file = beside(destination)?.tempfile_in(parent(destination))?;
        file.write_all(content)?;
        set_access(file.as_file(), access)?;
        file.as_file().sync_all()?;
        Ok(Self { file, destination: destination.to_owned() })
    }

    /// Where the candidate is.
    pub fn path(&self) -> &Path {
        self.file.path()
    }

    /// Puts the candidate in the destination's place, durably.
    pub fn commit(self) -> io::Result<()> {
        self.file.persist(&self.destination).map_err(|error| error.error)?;
        sync_directory(&self.destination)
    }
}

/// Writes a file as a whole, durably.
pub fn write(destination: &Path, content: &[u8], access: Access) -> io::Result<()> {
    Candidate::write(destination, content, access)?.commit()
}

/// Makes `destination` a symbolic link to `target`, whatever file or link was there, durably.
pub fn link(target: &Path, destination: &Path) -> io::Result<()> {
    let (_, link) = beside(destination)?.make_in(parent(destination), |path| symlink(target, path))?.into_parts();
    TempPath::persist(link, destination).map_err(|error| error.error)?;
    sync_directory(destination)
}

/// Removes a file, durably. One that is not there is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    }
    sync_directory(path)
}

/// Gives an existing file the mode and owner that it is to have. Whether they were others.
pub fn repair_access(path: &Path, access: Access) -> io::Result<bool> {
    let file = File::open(path)?;
    if access_of(&file.metadata()?, access) == access {
        return Ok(false);
    }
    set_access(&file, access)?;
    Ok(true)
}

/// Mode and owner of a file as it is.
pub fn current_access(path: &Path) -> io::Result<Access> {
    let metadata = fs::metadata(path)?;
    let owner = Some(Ids { user: metadata.uid(), group: metadata.gid() });
    Ok(Access { mode: metadata.mode() & 0o7777, owner })
}

fn access_of(metadata: &fs::Metadata, wanted: Access) -> Access {
    let owner = wanted.owner.map(|_| Ids { user: metadata.uid(), group: metadata.gid() });
    Access { mode: metadata.mode() & 0o7777, owner }
}

fn set_access(file: &File, access: Access) -> io::Result<()> {
    if let Some(owner) = access.owner {
        fchown(file, Some(owner.user), Some(owner.group))?;
    }
    // After the owner: a change of owner clears the set-user-id bits.
    file.set_permissions(Permissions::from_mode(access.mode))
}

/// Temporary files that show whose they are, and that programs which read `*.conf` do not take for configuration.
fn beside(destination: &Path) -> io::Result<tempfile::Builder<'static, 'static>> {
    if destination.is_dir() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory"));
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix(".config-agent-").suffix(".new");
    Ok(builder)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn sync_directory(of: &Path) -> io::Result<()> {
    File::open(parent(of))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Access = Access { mode: 0o640, owner: None };

    #[test]
    fn mode_and_content_are_there_before_the_name_is() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("web.conf");
        let candidate = Candidate::write(&destination, b"new", ACCESS).unwrap();
        assert!(!destination.exists());
        assert_eq!(current_access(candidate.path()).unwrap().mode, 0o640);
        candidate.commit().unwrap();
        assert_eq!(fs::read(&destination).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_dropped_candidate_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        drop(Candidate::write(&directory.path().join("web.conf"), b"new", ACCESS).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_link_replaces_files_and_links_but_no_directory() {
        let directory = tempfile::tempdir().unwrap();
        let destination = directory.path().join("conf");
        write(&destination, b"old", ACCESS).unwrap();
        for target in ["/a", "/b"] {
            link(Path::new(target), &destination).unwrap();
            assert_eq!(fs::read_link(&destination).unwrap(), Path::new(target));
        }
        remove(&destination).unwrap();
        remove(&destination).unwrap();
        fs::create_dir(&destination).unwrap();
        assert_eq!(link(Path::new("/a"), &destination).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn access_is_repaired_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("web.conf");
        write(&path, b"x", Access { mode: 0o600, owner: None }).unwrap();
        assert!(repair_access(&path, ACCESS).unwrap());
        assert!(!repair_access(&path, ACCESS).unwrap());
    }
}
