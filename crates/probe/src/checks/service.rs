//! Services, as systemd sees them.

use std::fs;
use std::time::Duration;

use super::{Found, unknown};
use crate::exec::{self, Completed};

/// systemctl answers at once, unless the bus is stuck.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Unit {
    name: String,
}

impl Unit {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned() }
    }

    pub(super) fn property(&self, property: &str) -> Result<Found, String> {
        match property {
            "enabled" => self.enabled(),
            "running" => self.running(),
            "runlevels" => Ok(self.runlevels().into()),
            _ => Err(unknown(property)),
        }
    }

    fn ask(&self, question: &str) -> Result<Completed, String> {
        exec::run("systemctl", &[question, "--", &self.name], TIMEOUT).map_err(|error| error.to_string())
    }

    /// By the exit status, as in goss: a static unit counts as enabled.
    fn enabled(&self) -> Result<Found, String> {
        let answer = self.ask("is-enabled")?;
        let words = first_line(&answer.stdout).or_else(|| first_line(&answer.stderr)).unwrap_or("no answer");
        Ok(Found::noted(answer.status == 0, format!("systemd says: {words}")))
    }

    fn running(&self) -> Result<Found, String> {
        running(&self.ask("is-active")?)
    }

    /// The levels whose directory of System V links starts the service; goss looks
    /// there as well, and Debian keeps the links of services that have a script.
    fn runlevels(&self) -> Vec<String> {
        let starts = |level: &u32| {
            let links = fs::read_dir(format!("/etc/rc{level}.d"));
            links
                .into_iter()
                .flatten()
                .flatten()
                .any(|link| is_start_link(&link.file_name().to_string_lossy(), &self.name))
        };
        (0..=6).filter(starts).map(|level| level.to_string()).collect()
    }
}

/// In a chroot systemctl prints nothing and exits 0 whatever it is asked, so the
/// word counts, not the status.
fn running(answer: &Completed) -> Result<Found, String> {
    match first_line(&answer.stdout) {
        // Those for which systemctl itself exits 0.
        Some(word @ ("active" | "reloading" | "refreshing")) => Ok(Found::noted(true, format!("systemd says: {word}"))),
        Some(word) => Ok(Found::noted(false, format!("systemd says: {word}"))),
        None => Err(format!("systemd does not answer: {}", first_line(&answer.stderr).unwrap_or("no reason given"))),
    }
}

fn first_line(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| !line.is_empty())
}

/// `S01ssh` starts `ssh`.
fn is_start_link(link: &str, service: &str) -> bool {
    let rest = link.strip_prefix('S').unwrap_or_default();
    rest.strip_suffix(service)
        .is_some_and(|order| order.len() == 2 && order.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: i32, stdout: &str, stderr: &str) -> Completed {
        Completed { status, stdout: stdout.to_owned(), stderr: stderr.to_owned() }
    }

    #[test]
    fn the_word_decides_whether_it_runs() {
        for (status, word, runs) in
            [(0, "active\n", true), (3, "inactive\n", false), (3, "activating\n", false), (4, "unknown\n", false)]
        {
            assert_eq!(running(&answer(status, word, "")).map(|found| found.value), Ok(runs.into()), "{word}");
        }
    }

    #[test]
    fn a_chroot_is_no_answer() {
        let error =
            running(&answer(0, "", "Running in chroot, ignoring command 'is-active'\n")).map(|found| found.value);
        assert_eq!(error, Err("systemd does not answer: Running in chroot, ignoring command 'is-active'".to_owned()));
    }

    #[test]
    fn start_links() {
        assert!(is_start_link("S01ssh", "ssh"));
        for link in ["K01ssh", "S01openssh", "S1ssh", "ssh"] {
            assert!(!is_start_link(link, "ssh"), "{link}");
        }
    }
}
