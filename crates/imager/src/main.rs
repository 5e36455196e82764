//! `imager`: source image and artifact to provisioned volume to image.

mod bake;
mod base;
mod chroot;
mod commands;
mod diff;
mod isolation;
mod layers;
mod plan;
mod provisioners;
mod recipe;
mod session;
mod suppress_sync;
mod template;

fn main() {
    cli::run(commands::run)
}
