//! Image tests from inside the instance: the gossfile model, its matchers, the
//! checks that they make of a machine, and the report that leaves it.
//!
//! The format is that of goss (`resource/*.go`, `matchers/*.go` in its source).
//! The library runs in two places: on the build host a gossfile is parsed, and
//! so refused, before anything boots; in the instance the program `probe`,
//! linked statically, runs the checks and prints the report on the console.
//!
//! Static glibc has no name service: users, groups, host names and services are
//! read from files and asked of tools here, never through `getpwnam` or
//! `getaddrinfo`.

pub mod checks;
pub mod gossfile;
pub mod matcher;
pub mod report;
pub mod system;

mod exec;
