//! Packages that builds download once for all of them.
//!
//! During provisioning apt's archives are an overlay: below it, for all builds, what earlier ones have downloaded;
//! above it this build's own. So builds at the same time do not meet on apt's lock, and none of it is in the image.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use cli::narrate;
use tempfile::TempDir;

use crate::session::Session;

/// Where apt keeps what it downloads (apt.conf(5), Dir::Cache::archives).
const ARCHIVES: &str = "var/cache/apt/archives";
/// How long a package is kept: by then most have a successor.
const KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The cache, as it is mounted in a volume.
pub(crate) struct PackageCache {
    shared: PathBuf,
    /// What this build adds.
    own: TempDir,
    /// Where it is mounted, in the session.
    pub(crate) target: PathBuf,
}

impl PackageCache {
    /// Mounts it; `None` where the volume has no apt, or the host's file system cannot be a part of an overlay.
    pub(crate) fn mount(
        session: &Session,
        root: &Path,
        shared: &Path,
        scratch: &Path,
        label: &str,
    ) -> Result<Option<Self>> {
        if !is_directory(session, root, ARCHIVES) || !can_be_option(shared) || !can_be_option(scratch) {
            return Ok(None);
        }
        fs::create_dir_all(shared).with_context(|| format!("creating {}", shared.display()))?;
        let own = tempfile::Builder::new().prefix("packages-").tempdir_in(scratch).context("sharing packages")?;
        let cache = Self { shared: shared.to_owned(), own, target: root.join(ARCHIVES) };
        for part in [cache.added(), cache.own.path().join("work")] {
            fs::create_dir(&part).with_context(|| format!("creating {}", part.display()))?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            shared.display(),
            cache.added().display(),
            cache.own.path().join("work").display()
        );
        let mount = |more: &str| {
            let options = format!("{options}{more}");
            session.command("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&cache.target).run()
        };
        // Else the unmount writes out all that the file system of the state directory has not written yet
        // (overlayfs.rst, volatile). Kernels before 5.10 do not have it.
        match mount(",volatile").or_else(|_| mount("")) {
            Ok(_) => Ok(Some(cache)),
            Err(error) => {
                narrate::note(&format!("{label}: packages are not shared with other builds: {error}"));
                Ok(None)
            }
        }
    }

    /// Gives what this build has downloaded to all, once it is unmounted.
    pub(crate) fn share(self) -> Result<()> {
        let doing = || format!("keeping packages in {}", self.shared.display());
        for entry in fs::read_dir(self.added()).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let is_package = Path::new(&entry.file_name()).extension().is_some_and(|extension| extension == "deb");
            if is_package && entry.file_type().with_context(doing)?.is_file() {
                fs::rename(entry.path(), self.shared.join(entry.file_name())).with_context(doing)?;
            }
        }
        for entry in fs::read_dir(&self.shared).with_context(doing)? {
            let entry = entry.with_context(doing)?;
            let age = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
            if age.is_some_and(|age| age > KEPT) {
                // Another build may have been quicker.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    fn added(&self) -> PathBuf {
        self.own.path().join("added")
    }
}

/// Whether it is there without a symlink on the way, which would lead to the host.
fn is_directory(session: &Session, root: &Path, path: &str) -> bool {
    let mut at = session.path(root);
    path.split('/').all(|part| {
        at.push(part);
        at.symlink_metadata().is_ok_and(|metadata| metadata.is_dir())
    })
}

/// Whether a path can stand in an overlay's options, where these characters separate.
fn can_be_option(path: &Path) -> bool {
    !path.display().to_string().contains([',', ':', '\\'])
}
