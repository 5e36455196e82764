//! Turns a tested image into a group of instances behind a balancer and a DNS name.

mod commands;
mod health;
mod invariants;
mod journal;
mod names;
mod preflight;
mod rehearsal;
mod request;
mod section;
mod settle;
mod site;
mod stability;
mod target;
mod weights;

use clap::Parser;

fn main() {
    let arguments = commands::Arguments::parse();
    cli::run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let code = runtime.block_on(commands::run(arguments));
        cli::narrate::finish();
        code
    })
}
