//! Random changes while the store is killed: at the end the file is what the store is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cli::interrupt;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;

use super::agent::{Agent, key};
use super::etcd::Etcd;
use super::{KEYS, clean};

/// How many changes are in a transaction.
const AT_ONCE: u32 = 50;

/// Among how many keys.
const AMONG: u64 = 1000;

/// What was done, and whether anything was lost.
#[derive(Debug, Default, Serialize)]
pub struct Lost {
    /// Changes that the store took.
    pub changes: u32,
    /// Times that the store was killed.
    pub kills: u32,
    /// Keys at the end.
    pub keys: usize,
    /// Whether the file has just the keys and values that the store has.
    pub equal: bool,
}

/// Makes the changes, a tenth of them deletions.
pub fn measure(place: &Path, program: &Path, changes: u32, kills: u32) -> Result<Lost> {
    clean(place)?;
    let etcd = Etcd::start(&place.join("etcd"))?;
    etcd.put(&key(KEYS - 1, 1), "stays")?;
    let agent = Agent::start(place, program, &etcd.address(), 1)?;
    let mut random = Random(0x5eed);
    let (mut made, mut killed) = (0, 0);
    while made < changes {
        interrupt::check()?;
        let some: BTreeMap<String, Option<String>> = (0..AT_ONCE.min(changes - made))
            .map(|number| {
                let name = key(random.below(AMONG) as usize, 1);
                let deleted = random.below(10) == 0;
                (name, (!deleted).then(|| format!("{made}-{number}")))
            })
            .collect();
        let some: Vec<_> = some.into_iter().collect();
        made += u32::try_from(some.len())?;
        // The kills are spread evenly, and each comes while a transaction is on its way.
        if killed < kills && made >= changes / kills * killed {
            killed += 1;
            kill_soon(&etcd, Duration::from_micros(random.below(3000)))?;
        }
        // To set a key to the same value twice is to set it once: what may or may not have been done is done again.
        while etcd.change(&some).is_err() {
            interrupt::check()?;
            etcd.restart()?;
        }
    }
    let wanted = etcd.all("/bench/")?;
    let rendered: String =
        wanted.iter().map(|(key, value)| format!("{}={value}\n", &key["/bench/0000/".len()..])).collect();
    let file = agent.out().join("0000");
    let read = || fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()));
    let equal = agent.wait("the file is what the store is", || Ok(read()? == rendered)).is_ok();
    Ok(Lost { changes: made, kills: killed, keys: wanted.len(), equal })
}

fn kill_soon(etcd: &Etcd, delay: Duration) -> Result<()> {
    let pid = etcd.pid().and_then(|pid| Pid::from_raw(pid.cast_signed())).context("finding etcd's process")?;
    std::thread::spawn(move || {
        std::thread::sleep(delay);
        // Its exit status is still to be fetched, so the number cannot be another's.
        let _ = kill_process(pid, Signal::KILL);
    });
    Ok(())
}

/// Numbers that are the same in every run: xorshift, by Marsaglia.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}
