//! An image with Ansible inside, made once and shared by all tests.

use std::fs::{self, File};

use crate::rig::{Rig, base, succeeded};

/// Its name.
pub const NAME: &str = "with-ansible";

const TEMPLATE: &str = r#"{ "builders": [{ "type": "chroot", "source_image": "bookworm", "image_name": "with-ansible",
                  "isolation": "chroot" }],
  "provisioners": [{ "type": "shell", "environment_vars": ["DEBIAN_FRONTEND=noninteractive"],
    "inline": ["apt-get update", "apt-get install --yes --no-install-recommends ansible-core", "apt-get clean"] }] }"#;

/// A rig that has the image beside the base image, and works without a manifest.
pub fn rig() -> Rig {
    let base = base();
    let all = base.with_file_name("test-ansible-image");
    fs::create_dir_all(&all).unwrap();
    let lock = File::create(all.join("lock")).unwrap();
    lock.lock().unwrap();
    // Of each base image its own.
    let source = fs::read_to_string(base.join("aliases/bookworm")).unwrap();
    let made = all.join(source.trim());
    if !made.exists() {
        let mut rig = Rig::new();
        rig.without_manifest();
        succeeded(rig.ask("imager", &["build", &rig.template(TEMPLATE)]));
        let partial = all.join("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).unwrap();
        for part in ["images", "aliases"] {
            cli::Command::new("cp").arg("-al").arg(rig.state().join(part)).arg(&partial).run().unwrap();
        }
        fs::rename(&partial, &made).unwrap();
    }
    let mut rig = Rig::with_images_of(&made);
    rig.without_manifest();
    rig
}
