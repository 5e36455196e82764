//! A mounted root file system as a sorted list of what is in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, fgetxattr, fstatvfs, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

/// How much of two files is compared at a time.
const CHUNK: usize = 128 * 1024;

/// Everything in a root file system. Its absolute symbolic links lead to places in it, never to the host's.
pub(crate) struct Tree {
    root: OwnedFd,
    /// Sorted by path; a directory comes right before what is in it.
    pub(crate) entries: Vec<Entry>,
    /// The file system's own id, which a copy of it has as well.
    lineage: u64,
    /// Bytes in use.
    pub(crate) used: u64,
}

/// A file, directory, link or other thing.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its absolute path.
    pub(crate) path: PathBuf,
    pub(crate) file_type: FileType,
    /// The twelve bits of chmod(2).
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// In bytes.
    pub(crate) size: u64,
    device: u64,
    inode: u64,
    /// When anything of it last changed, to the nanosecond. No program can set it.
    touched: (i64, u64),
}

impl Tree {
    /// Reads the whole tree that is mounted at `path`.
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let doing = || format!("reading the files below {}", path.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty()).with_context(doing)?;
        let numbers = fstatvfs(&root).with_context(doing)?;
        let mut entries = Vec::new();
        walk(&root, Path::new("/"), &mut entries).with_context(doing)?;
        let used = (numbers.f_blocks - numbers.f_bfree) * numbers.f_frsize;
        Ok(Self { root, entries, lineage: numbers.f_fsid, used })
    }

    /// What is in a directory, and in directories below it.
    pub(crate) fn below<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Entry> {
        let start = self.entries.partition_point(|entry| entry.path.as_path() <= directory);
        self.entries[start..].iter().take_while(move |entry| entry.path.starts_with(directory))
    }

    /// Whether `old` of the tree `from` and `new` of this one are the same inode of a file system that was
    /// copied, untouched since the copy.
    ///
    /// An image's file system is a copy of its source image's. Whatever is done to a file afterwards sets its
    /// change time, which cannot be set back, so what is the same here need not be read.
    pub(crate) fn is_untouched(&self, from: &Tree, old: &Entry, new: &Entry) -> bool {
        self.lineage == from.lineage && (old.inode, old.touched) == (new.inode, new.touched)
    }

    /// The content of a file of the image, if it is there. Symbolic links are followed within the image.
    pub(crate) fn read(&self, path: &Path) -> Result<Option<Vec<u8>>> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // A pipe in the image must not make us wait.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let doing = || format!("reading {} of the image", path.display());
        let file = match openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Ok(file) => file,
            // LOOP: a link that leads to itself has no content either.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error).with_context(doing),
        };
        let mut content = Vec::new();
        File::from(file).read_to_end(&mut content).with_context(doing)?;
        Ok(Some(content))
    }

    /// The content as text; nothing where there is no such file.
    pub(crate) fn text(&self, path: impl AsRef<Path>) -> Result<String> {
        let content = self.read(path.as_ref())?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&content).into_owned())
    }

    /// Where a symbolic link leads; `None` if it is none.
    pub(crate) fn target(&self, entry: &Entry) -> Result<Option<PathBuf>> {
        if entry.file_type != FileType::Symlink {
            return Ok(None);
        }
        let target = readlinkat(&self.root, relative(&entry.path), Vec::new())
            .with_context(|| format!("reading the link {} of the image", entry.path.display()))?;
        Ok(Some(PathBuf::from(std::ffi::OsString::from_vec(target.into_bytes()))))
    }

    /// The file's capabilities (capabilities(7)) as the kernel stores them, in hexadecimal.
    pub(crate) fn capabilities(&self, entry: &Entry) -> Result<Option<String>> {
        if entry.file_type != FileType::RegularFile {
            return Ok(None);
        }
        // vfs_ns_cap_data, the longest form, has 24 bytes.
        let mut value = [0; 64];
        let file = self.open(entry)?;
        match fgetxattr(&file, c"security.capability", &mut value) {
            Ok(length) => Ok(Some(hex::encode(&value[..length]))),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("reading the capabilities of {}", entry.path.display())),
        }
    }

    /// Whether two regular files of the same size have the same content.
    pub(crate) fn same_content(&self, from: &Tree, old: &Entry, new: &Entry) -> Result<bool> {
        let doing = || format!("comparing {}", new.path.display());
        let (mut old, mut new) = (from.open(old)?, self.open(new)?);
        let (mut one, mut other) = (vec![0; CHUNK], vec![0; CHUNK]);
        loop {
            let (read, also) =
                fill(&mut old, &mut one).and_then(|n| Ok((n, fill(&mut new, &mut other)?))).with_context(doing)?;
            if one[..read] != other[..also] {
                return Ok(false);
            }
            if read < CHUNK {
                return Ok(true);
            }
        }
    }

    fn open(&self, entry: &Entry) -> Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(&self.root, relative(&entry.path), flags, Mode::empty());
        Ok(file.with_context(|| format!("opening {} of the image", entry.path.display()))?.into())
    }
}

impl Entry {
    /// The number of a device node; 0 for anything else.
    pub(crate) fn device(&self) -> u64 {
        self.device
    }
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Names are sorted within each directory, which makes the list sorted as [`Path`]s are: part by part.
fn walk(directory: &OwnedFd, path: &Path, entries: &mut Vec<Entry>) -> rustix::io::Result<()> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    for name in names {
        let stat = statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        let file_type = FileType::from_raw_mode(stat.st_mode);
        let path = path.join(OsStr::from_bytes(name.to_bytes()));
        entries.push(Entry {
            path: path.clone(),
            file_type,
            mode: stat.st_mode & 0o7777,
            owner: (stat.st_uid, stat.st_gid),
            size: stat.st_size.cast_unsigned(),
            device: stat.st_rdev,
            inode: stat.st_ino,
            touched: (stat.st_ctime, stat.st_ctime_nsec),
        });
        if file_type == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            walk(&openat(directory, &name, flags, Mode::empty())?, &path, entries)?;
        }
    }
    Ok(())
}
