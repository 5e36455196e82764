//! HAProxy: its configuration, its runtime API and what it says of its servers.

mod config;
mod process;
mod runtime;
mod stat;
mod weights;

use std::net::Ipv4Addr;

use config::render;
pub use process::{command, listen, servers};
use provider::local::api::CHECK_PAUSE;
pub use runtime::Runtime;
pub use stat::Row;
use weights::server_weights;

/// Name of the backend that has the instances.
const BACKEND: &str = "instances";

/// An instance as HAProxy is to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Id of the instance.
    pub id: String,
    /// Where it serves.
    pub address: Ipv4Addr,
    /// On which port.
    pub port: u16,
    /// Its weight in HAProxy's units, 0 to 256; 0: no new requests.
    pub weight: u32,
}

impl Server {
    /// The words after its name, the same in a configuration and in `add server`.
    ///
    /// A check that failed is repeated soon, so that a booting instance is seen when it answers.
    /// With `rise 1` the first check decides, and until then it has no weight.
    fn keywords(&self) -> String {
        let Self { address, port, weight, .. } = self;
        let pause = CHECK_PAUSE.as_millis();
        format!(
            "{address}:{port} weight {weight} check inter {pause}ms fastinter 200ms downinter 100ms fall 2 rise 1 \
             pool-purge-delay 1s"
        )
    }
}
