//! The built program with real stores: etcd, moto for SSM, a tree of files; for Consul a server that follows its rules.
//!
//! Needs Debian's `etcd-server`, and `KILN_MOTO`, the path of a `moto_server` of version 5.

mod bad_input;
mod cache;
mod certificates;
mod consul;
mod directory;
mod etcd;
mod etcd_server;
mod files;
mod groups;
mod imds;
mod once;
mod reloads;
mod rig;
mod select;
mod ssm;
mod status;
