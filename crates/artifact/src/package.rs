//! What the build made, as one file.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use manifest::component::{Package, Tree};

use crate::build_dir::BuildDir;
use crate::component_file::ComponentFile;
use crate::pack::pack;
use crate::revision::Revision;

/// How every Debian package begins: an ar archive whose first member is `debian-binary` (deb(5)).
const DEB_MAGIC: &[u8] = b"!<arch>\ndebian-binary";

/// The file that is the artifact: the package that the build made, or the packed tree.
pub fn package(file: &ComponentFile, revision: &Revision, directory: &BuildDir) -> Result<PathBuf> {
    match &file.component.package {
        Package::Deb(path) => deb(file, &directory.source(), path),
        Package::Tree(tree) => {
            let name = format!("{}_{}.tar.zst", file.component.name, revision.version);
            let archive = directory.file(&name);
            pack(&tree_path(file, &directory.source(), tree)?, &archive, revision.epoch)?;
            Ok(archive)
        }
    }
}

fn deb(file: &ComponentFile, source: &Path, path: &str) -> Result<PathBuf> {
    let refuse = |why: &str, remedy: &str| file.complaint(&["package", "deb"], &format!("is '{path}': {why}"), remedy);
    let (directory, pattern) = path.rsplit_once('/').unwrap_or(("", path));
    let mut found: Vec<String> =
        names(&source.join(directory)).into_iter().filter(|name| fits(pattern, name)).collect();
    found.sort();
    let [name] = &found[..] else {
        let why = if found.is_empty() {
            "the build commands made no such file".to_owned()
        } else {
            format!("{} files fit: {}", found.len(), found.join(", "))
        };
        return Err(refuse(&why, "name the one package that the build commands make").into());
    };
    let deb = source.join(directory).join(name);
    let inside = is_inside(&deb, source) && fs::symlink_metadata(&deb).is_ok_and(|metadata| metadata.is_file());
    let mut magic = Vec::new();
    if inside {
        let start = File::open(&deb).with_context(|| format!("opening {}", deb.display()))?;
        start.take(DEB_MAGIC.len() as u64).read_to_end(&mut magic)?;
    }
    if magic != DEB_MAGIC {
        return Err(refuse(&format!("{name} is not a Debian package"), "build it with dpkg-deb").into());
    }
    Ok(deb)
}

fn tree_path(file: &ComponentFile, source: &Path, tree: &Tree) -> Result<PathBuf> {
    let path = source.join(&tree.path);
    if is_inside(&path, source) && path.is_dir() {
        return Ok(path);
    }
    let why = format!("is '{}': the build commands made no such directory", tree.path);
    Err(file.complaint(&["package", "tree", "path"], &why, "name the directory that they fill").into())
}

/// Whether `path` exists and, with every link followed, is below `source`.
fn is_inside(path: &Path, source: &Path) -> bool {
    match (path.canonicalize(), source.canonicalize()) {
        (Ok(path), Ok(source)) => path.starts_with(source),
        _ => false,
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether `name` fits `pattern`, in which one `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn one_star_stands_for_anything() {
        assert!(fits("hello.deb", "hello.deb"));
        assert!(fits("*.deb", ".deb"));
        assert!(fits("hello_*_all.deb", "hello_1_all.deb"));
        assert!(!fits("hello_*_all.deb", "hello_all.deb"));
        assert!(!fits("*.deb", "hello.dsc"));
    }
}
