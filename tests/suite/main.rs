//! End-to-end tests: the built programs, real disks, real instances.
//!
//! They need root and are started by `cargo xtask test`, which builds the
//! programs and makes the base image first.

mod accelerated;
mod ansible_image;
mod aws_account;
mod aws_deployer;
mod aws_image_trouble;
mod aws_images;
mod aws_instance;
mod aws_options;
mod aws_pipeline;
mod aws_publish;
mod aws_published;
mod aws_records;
mod aws_region;
mod aws_settings;
mod aws_store;
mod aws_tester;
mod bad_templates;
mod baked;
mod configured;
mod deployer;
mod diff;
mod emulator;
mod imager;
mod isolation;
mod load;
mod packer;
mod pipeline;
mod retention;
mod rig;
mod templates;
mod terminal;
mod tester;
mod tree;
mod volumes;
