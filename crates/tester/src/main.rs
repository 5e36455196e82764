//! `tester`: image to verdict.

mod audit;
mod booted;
mod checklist;
mod commands;
mod examine;
mod junit;
mod probe_file;
mod root;
mod user_data;

fn main() {
    cli::run(commands::run)
}
