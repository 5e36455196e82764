//! Files: looked at without following a symbolic link; contents and digests are
//! those of what it leads to.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use md5::Md5;
use sha2::digest::Digest;
use sha2::{Sha256, Sha512};

use super::{Found, account, unknown};

/// The most that a contents check reads; goss reads line by line without a limit.
const CONTENTS_LIMIT: u64 = 64 << 20;

pub(super) struct FileFacts {
    path: PathBuf,
    /// `None` if there is nothing at the path.
    metadata: Option<Metadata>,
}

impl FileFacts {
    pub(super) fn gather(path: &str) -> Result<Self, String> {
        let path = expand_home(path)?;
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Self { path, metadata: Some(metadata) }),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(Self { path, metadata: None })
            }
            Err(error) => Err(cannot("look at", &path, &error)),
        }
    }

    pub(super) fn property(&self, property: &str) -> Result<Found, String> {
        let Some(metadata) = &self.metadata else {
            return if property == "exists" { Ok(false.into()) } else { Err("there is no such file".to_owned()) };
        };
        Ok(match property {
            "exists" => true.into(),
            // Four digits, as goss prints it: sticky, setuid and setgid bits first.
            "mode" => format!("{:04o}", metadata.mode() & 0o7777).into(),
            "owner" => account::user_name(metadata.uid())?.into(),
            "uid" => metadata.uid().into(),
            "group" => account::group_name(metadata.gid())?.into(),
            "gid" => metadata.gid().into(),
            "size" => metadata.len().into(),
            "filetype" => file_type(metadata).into(),
            "linked-to" => {
                let target = fs::read_link(&self.path).map_err(|error| match error.kind() {
                    io::ErrorKind::InvalidInput => format!("it is a {}, not a symlink", file_type(metadata)),
                    _ => cannot("read the link", &self.path, &error),
                })?;
                target.to_string_lossy().into_owned().into()
            }
            "contents" => contents(&self.path).map_err(|error| cannot("read", &self.path, &error))?.into(),
            "md5" => self.digest::<Md5>()?.into(),
            "sha256" => self.digest::<Sha256>()?.into(),
            "sha512" => self.digest::<Sha512>()?.into(),
            _ => return Err(unknown(property)),
        })
    }

    fn digest<D: Digest>(&self) -> Result<String, String> {
        let mut digest = D::new();
        let mut buffer = vec![0; 1 << 16];
        let mut feed = || -> io::Result<()> {
            let mut file = File::open(&self.path)?;
            loop {
                match file.read(&mut buffer)? {
                    0 => return Ok(()),
                    length => digest.update(&buffer[..length]),
                }
            }
        };
        feed().map_err(|error| cannot("read", &self.path, &error))?;
        Ok(hex::encode(digest.finalize()))
    }
}

fn file_type(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        "symlink"
    } else if kind.is_dir() {
        "directory"
    } else if kind.is_socket() {
        "socket"
    } else if kind.is_fifo() {
        "pipe"
    } else if kind.is_char_device() {
        "character-device"
    } else if kind.is_block_device() {
        "block-device"
    } else {
        "file"
    }
}

fn contents(path: &Path) -> io::Result<String> {
    // A pipe would wait for its other end.
    if fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::other("it is a pipe"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(CONTENTS_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `~` and `~user`, as goss has it.
fn expand_home(path: &str) -> Result<PathBuf, String> {
    let Some(rest) = path.strip_prefix('~') else { return Ok(PathBuf::from(path)) };
    let (name, below) = rest.split_once('/').unwrap_or((rest, ""));
    let name = if name.is_empty() { account::user_name(own_uid())? } else { name.to_owned() };
    let user = account::user(&name)?.ok_or_else(|| format!("no user `{name}`, whose home `{path}` is below"))?;
    Ok(Path::new(&user.home).join(below))
}

fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

fn cannot(verb: &str, path: &Path, error: &io::Error) -> String {
    format!("cannot {verb} {}: {error}", path.display())
}
