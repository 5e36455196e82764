//! Directories as archives that depend on nothing but their content.

use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use tar::{Builder, EntryType, Header};
use walkdir::WalkDir;

/// Fixed, since the level decides the bytes. Above it packing gets slower faster than archives get smaller.
const ZSTD_LEVEL: i32 = 9;

/// Packs what is in `directory` as the `.tar.zst` file `archive`.
///
/// Entries are in the order of their names, belong to root, were last changed at `epoch`
/// (seconds since 1970), and keep their permissions. Links are kept as links; sockets, pipes and devices are refused.
/// Owners, hard links and extended attributes are not kept.
pub fn pack(directory: &Path, archive: &Path, epoch: i64) -> Result<()> {
    let doing = || format!("packing {}", directory.display());
    let file = BufWriter::new(File::create(archive).with_context(doing)?);
    // One thread, as is the default: how blocks are split among several would show in the bytes.
    let mut builder = Builder::new(zstd::Encoder::new(file, ZSTD_LEVEL).with_context(doing)?);
    for entry in WalkDir::new(directory).min_depth(1).sort_by_file_name() {
        let entry = entry.with_context(doing)?;
        let name = entry.path().strip_prefix(directory)?;
        add(&mut builder, entry.path(), name, epoch).with_context(|| format!("packing {}", entry.path().display()))?;
    }
    let file = builder.into_inner().and_then(zstd::Encoder::finish).with_context(doing)?;
    file.into_inner().map_err(std::io::IntoInnerError::into_error).with_context(doing)?;
    Ok(())
}

fn add(builder: &mut Builder<impl std::io::Write>, path: &Path, name: &Path, epoch: i64) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    let mut header = Header::new_gnu();
    header.set_mtime(u64::try_from(epoch).unwrap_or(0));
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_size(0);
    if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        builder.append_data(&mut header, name, std::io::empty())?;
    } else if metadata.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        builder.append_link(&mut header, name, fs::read_link(path)?)?;
    } else if metadata.is_file() {
        header.set_size(metadata.len());
        builder.append_data(&mut header, name, File::open(path)?)?;
    } else {
        bail!("only files, directories and symbolic links can be packed");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_owner_and_time_of_files_do_not_show() {
        let home = tempfile::tempdir().unwrap();
        let bytes = |order: &[&str]| {
            let directory = home.path().join(order.concat());
            fs::create_dir_all(directory.join("empty")).unwrap();
            for name in order {
                fs::write(directory.join(name), name).unwrap();
            }
            std::os::unix::fs::symlink("b", directory.join("link")).unwrap();
            let archive = home.path().join(format!("{}.tar.zst", order.concat()));
            pack(&directory, &archive, 1_000_000_000).unwrap();
            fs::read(archive).unwrap()
        };
        let (one, other) = (bytes(&["a", "b", "c"]), bytes(&["c", "b", "a"]));
        assert_eq!(one, other);

        let mut archive = tar::Archive::new(zstd::Decoder::new(&one[..]).unwrap());
        let entries: Vec<_> = archive.entries().unwrap().map(Result::unwrap).collect();
        let names: Vec<_> = entries.iter().map(|entry| entry.path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["a", "b", "c", "empty", "link"]);
        assert!(entries.iter().all(|entry| entry.header().mtime().unwrap() == 1_000_000_000));
        assert!(entries.iter().all(|entry| entry.header().uid().unwrap() == 0));
        assert_eq!(entries[4].link_name().unwrap().unwrap(), Path::new("b"));
    }

    #[test]
    fn a_long_name_is_kept_and_a_socket_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let source = home.path().join("source");
        let long = format!("{0}/{0}/{0}", "n".repeat(100));
        fs::create_dir_all(source.join(&long)).unwrap();
        pack(&source, &home.path().join("archive"), 0).unwrap();
        let decoder = zstd::Decoder::new(File::open(home.path().join("archive")).unwrap()).unwrap();
        let mut archive = tar::Archive::new(decoder);
        let last = archive.entries().unwrap().last().unwrap().unwrap();
        assert_eq!(last.path().unwrap(), Path::new(&long));

        let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
        let error = pack(&source, &home.path().join("archive"), 0).unwrap_err();
        assert!(
            format!("{error:#}").ends_with("source/socket: only files, directories and symbolic links can be packed")
        );
    }
}
