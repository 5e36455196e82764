//! Tested images of the example, baked once and shared by all tests of fleets.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::rig::{Rig, base};

/// Versions of the example that tests deploy.
#[derive(Debug, Clone, Copy)]
pub enum Version {
    /// As it is.
    One,
    /// With another greeting.
    Two,
    /// It passes its checks, which look at files only, and never answers its health check.
    Bad,
}

impl Version {
    fn name(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
            Self::Bad => "bad",
        }
    }
}

impl Rig {
    /// A rig that has the example's images, tested, and a manifest for each version.
    pub fn with_images() -> Self {
        let baked = prepare();
        let rig = Self::with_images_of(&baked.join("state"));
        for version in [Version::One, Version::Two, Version::Bad] {
            let name = format!("{}.json", version.name());
            fs::copy(baked.join(&name), rig.path().join(&name)).unwrap();
        }
        rig
    }

    /// The manifest of a version.
    pub fn manifest_of(&self, version: Version) -> String {
        self.path().join(format!("{}.json", version.name())).display().to_string()
    }
}

/// Bakes and tests the versions beside the base image, unless that has been done for the same inputs.
fn prepare() -> PathBuf {
    let base = base();
    let all = base.with_file_name("test-images");
    fs::create_dir_all(&all).unwrap();
    let lock = File::create(all.join("lock")).unwrap();
    lock.lock().unwrap();
    let baked = all.join(inputs(&base));
    if !baked.exists() {
        let rig = Rig::new();
        bake(&rig);
        let partial = all.join("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(partial.join("state")).unwrap();
        for part in ["state/images", "state/aliases", "one.json", "two.json", "bad.json"] {
            let to = partial.join(part);
            cli::Command::new("cp").arg("-al").arg(rig.path().join(part)).arg(to).run().unwrap();
        }
        // What the versions were before takes gigabytes.
        for older in fs::read_dir(&all).unwrap().map(|entry| entry.unwrap().path()).filter(|it| it.is_dir()) {
            if older != partial {
                fs::remove_dir_all(older).unwrap();
            }
        }
        fs::rename(&partial, &baked).unwrap();
    }
    baked
}

fn bake(rig: &Rig) {
    let hello = rig.hello();
    for version in [Version::One, Version::Two, Version::Bad] {
        let app = fs::read_to_string(hello.path().join("hello/app.py")).unwrap();
        match version {
            Version::One => {}
            Version::Two => hello.write("hello/app.py", &format!("{app}\n# another version\n")),
            Version::Bad => {
                hello.write("goss.yaml", "file:\n  /lib/systemd/system/hello.service:\n    exists: true\n");
                let unit = fs::read_to_string(hello.path().join("debian/hello.service")).unwrap();
                let unit: Vec<_> = unit.lines().map(fail_to_start).collect();
                hello.write("debian/hello.service", &unit.join("\n"));
            }
        }
        hello.commit_change(version.name());
        let manifest = rig.manifest_of(version);
        let source = hello.repository.display().to_string();
        let subdirectory = &hello.subdirectory;
        rig.run("artifact", &["build", "--source", &source, "--subdir", subdirectory, "--manifest", &manifest]);
        rig.run("imager", &["build", "--manifest", &manifest, "--only", "hvm"]);
        rig.run("tester", &["run", "--manifest", &manifest]);
    }
}

/// A service that says why it does not come up, as a broken one does, and that systemd does not call failed.
fn fail_to_start(line: &str) -> String {
    match line.split_once('=') {
        Some(("ExecStart", _)) => "ExecStart=/bin/sh -c 'echo the database is not there; exec sleep 1000'".to_owned(),
        Some(("ExecStartPre" | "Type", _)) => String::new(),
        _ => line.to_owned(),
    }
}

/// A name for what the versions are made from: the example, and the base image.
fn inputs(base: &Path) -> String {
    use sha2::{Digest, Sha256};
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello");
    let archive = cli::Command::new("tar")
        .args(["--create", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--exclude=__pycache__"])
        .arg("--directory")
        .arg(example)
        .arg(".")
        .run();
    let mut sha = Sha256::new();
    sha.update(archive.unwrap().stdout);
    let base = fs::read_to_string(base.join("aliases/bookworm")).expect("the alias of the base image");
    sha.update(base);
    sha.update(include_bytes!("baked.rs"));
    hex::encode(sha.finalize())[..16].to_owned()
}
