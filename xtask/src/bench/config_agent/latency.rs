//! From a change in the store to the new file on the disk.

use std::fs;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cli::interrupt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, Reader, WatchFlags};
use serde::Serialize;

use super::KEYS;
use super::agent::{Agent, QUIESCENCE, key};
use super::etcd::Etcd;

/// How long one change may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Milliseconds above the quiescence.
#[derive(Debug, Default, Serialize)]
pub struct Latency {
    /// From the answer of the store, which had committed before. What is true lies between this and `from_request`.
    pub from_answer: Spread,
    /// From the request to the store, so the store's own work is in it.
    pub from_request: Spread,
}

/// The middle one, and the one that 99 of 100 are not above.
#[derive(Debug, Default, Serialize)]
pub struct Spread {
    /// Milliseconds.
    pub median_ms: f64,
    /// Milliseconds.
    pub p99_ms: f64,
}

/// Makes `changes` changes, each after the file of the one before is there.
pub fn measure(etcd: &Etcd, agent: &Agent, changes: u32, templates: usize) -> Result<Latency> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).context("watching the files")?;
    inotify::add_watch(&events, agent.out(), WatchFlags::MOVED_TO).context("watching the files")?;
    let (mut from_answer, mut from_request) = (Vec::new(), Vec::new());
    for change in 1..=changes {
        interrupt::check()?;
        // A step that has no factor in common with the number of keys: every template has its turn.
        let number = (change as usize * 7919) % KEYS;
        let (key, value) = (key(number, templates), format!("value-{change}"));
        let requested = Instant::now();
        etcd.put(&key, &value)?;
        let answered = Instant::now();
        let seen = wait_for_file(&events)?;
        let above = |since: Instant| (seen.duration_since(since)).as_secs_f64() * 1000.0 - millis(QUIESCENCE);
        from_answer.push(above(answered));
        from_request.push(above(requested));
        let (name, key) = key["/bench/".len()..].split_once('/').context("reading a key")?;
        let file = agent.out().join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let line = format!("{key}={value}");
        if !text.lines().any(|other| other == line) {
            bail!("{} is new, but has no line {line}", file.display());
        }
    }
    Ok(Latency { from_answer: Spread::of(from_answer), from_request: Spread::of(from_request) })
}

/// When the next file is renamed into its place.
fn wait_for_file(events: &OwnedFd) -> Result<Instant> {
    let timeout = Timespec::try_from(PATIENCE)?;
    let mut wait = [PollFd::new(events, PollFlags::IN)];
    if poll(&mut wait, Some(&timeout)).context("waiting for a file")? == 0 {
        bail!("no new file within {PATIENCE:?}");
    }
    let seen = Instant::now();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = Reader::new(events, &mut buffer);
    while reader.next().is_ok() {}
    Ok(seen)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

impl Spread {
    fn of(mut millis: Vec<f64>) -> Self {
        millis.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = ((millis.len() as f64 * share).ceil() as usize).clamp(1, millis.len());
            (millis[place - 1] * 1000.0).round() / 1000.0
        };
        Self { median_ms: at(0.5), p99_ms: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_99th_of_100_is_the_last_but_one() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((spread.median_ms, spread.p99_ms), (50.0, 99.0));
    }
}
