//! `imager`: source image and artifact to provisioned volume to image.

mod bake;
mod base;
mod chroot;
mod commands;
mod device;
mod diff;
mod explain;
mod isolation;
mod layers;
mod on_error;
mod package_cache;
mod plan;
mod post_processors;
mod provisioners;
mod recipe;
mod session;
mod suppress_sync;
mod template;

fn main() {
    cli::run(commands::run)
}
