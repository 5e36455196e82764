//! The local provider with real instances: systemd in nspawn, HAProxy, dnsmasq.
//!
//! Needs root, and the packages of `cli::host`.

mod fixture;
mod instances;
mod services;
