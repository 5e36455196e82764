//! Files that are applied together: a group, or those that share a reload, or one alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::apply::Outcome;
use crate::managed_file::{Health, ManagedFile, Quiescence, Reload};

/// Files that are applied together, and when.
#[derive(Debug)]
pub struct Batch {
    /// Its name, also on the disk: the same for the same files.
    pub id: String,
    /// Its files, by their places in the agent's list.
    pub files: Vec<usize>,
    /// All or none: a group.
    pub together: bool,
    /// What is reloaded when any of them has changed, each once.
    pub reloads: Vec<Reload>,
    /// How it is known that their services work.
    pub health: Vec<Health>,
    /// A file was replaced and a service does not know yet.
    pub reload_pending: bool,
    /// What was put back: the digest of all that was rendered. It is not tried again.
    pub refused: Option<String>,
    quiescence: Quiescence,
    splay: Duration,
    touched: BTreeSet<usize>,
    first_touch: Option<Instant>,
    delay: Duration,
    due: Option<Instant>,
    applying: bool,
    retries: Option<ExponentialBackoff>,
}

impl Batch {
    /// The batches of `files`.
    pub fn all(files: &[ManagedFile]) -> Vec<Self> {
        let mut members: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (place, file) in files.iter().enumerate() {
            let id = match (&file.group, &file.reload) {
                (Some(group), _) => format!("group {}", short(group)),
                (None, Some(Reload::Unit(unit))) => format!("unit {}", short(unit)),
                (None, Some(Reload::Command(command))) => format!("command {}", short(command)),
                (None, None) => format!("file {}", short(&file.name)),
            };
            members.entry(id).or_default().push(place);
        }
        members.into_iter().map(|(id, places)| Self::new(id, places, files)).collect()
    }

    fn new(id: String, places: Vec<usize>, files: &[ManagedFile]) -> Self {
        let its = || places.iter().map(|&place| &files[place]);
        let mut reloads = Vec::new();
        let mut health = Vec::new();
        for file in its() {
            reloads.extend(file.reload.clone().filter(|reload| !reloads.contains(reload)));
            health.extend(file.health.clone().filter(|one| !health.contains(one)));
        }
        let longest = |of: fn(&ManagedFile) -> Duration| its().map(of).max().unwrap_or_default();
        let quiescence =
            Quiescence { min: longest(|file| file.quiescence.min), max: longest(|file| file.quiescence.max) };
        Self {
            together: its().any(|file| file.group.is_some()),
            splay: longest(|file| file.splay),
            id,
            files: places,
            reloads,
            health,
            reload_pending: false,
            refused: None,
            quiescence,
            touched: BTreeSet::new(),
            first_touch: None,
            delay: Duration::ZERO,
            due: None,
            applying: false,
            retries: None,
        }
    }

    /// A key of `file` has changed: the batch is due when nothing more has for a while.
    pub fn touch(&mut self, file: usize, now: Instant) {
        self.touched.insert(file);
        let first = *self.first_touch.get_or_insert_with(|| {
            self.delay = self.splay.mul_f64(fastrand::f64());
            now
        });
        self.due = Some((now + self.quiescence.min).min(first + self.quiescence.max) + self.delay);
        self.retries = None;
    }

    /// All files are to be looked at, without waiting.
    pub fn touch_all_now(&mut self) {
        self.touch_now(&self.files.clone());
    }

    /// Some files are to be looked at, and what is pending is to be done, without waiting.
    pub fn touch_now(&mut self, files: &[usize]) {
        self.touched.extend(files);
        self.due = Some(Instant::now());
    }

    /// Whether a change of `file` has yet to be applied.
    pub fn is_waiting_for(&self, file: usize) -> bool {
        self.applying || self.touched.contains(&file)
    }

    /// Whether there is nothing to do, now or later.
    pub fn is_at_rest(&self) -> bool {
        !self.applying && self.due.is_none()
    }

    /// When there is something to do, unless it is being done.
    pub fn due(&self) -> Option<Instant> {
        self.due.filter(|_| !self.applying)
    }

    /// The files to look at now. What is judged as a whole is rendered as a whole.
    pub fn begin(&mut self) -> BTreeSet<usize> {
        self.applying = true;
        self.due = None;
        self.first_touch = None;
        let touched = std::mem::take(&mut self.touched);
        let as_a_whole = self.together || !self.health.is_empty();
        if as_a_whole && !touched.is_empty() { self.files.iter().copied().collect() } else { touched }
    }

    /// There was nothing to do.
    pub fn rest(&mut self) {
        self.applying = false;
    }

    /// What was begun has ended. What failed is tried again, less and less often.
    pub fn finish(&mut self, outcome: &Outcome, now: Instant) {
        self.applying = false;
        self.reload_pending = outcome.reload_failed.is_some();
        if outcome.put_back {
            self.refused.clone_from(&outcome.digest);
        }
        if !outcome.is_to_be_tried_again() {
            self.retries = None;
            return;
        }
        self.touched.extend(outcome.failed_files());
        let next = self.retries.get_or_insert_with(backoff).next().unwrap_or(LONGEST);
        let again = now + next;
        self.due = Some(self.due.map_or(again, |due| due.min(again)));
    }
}

/// How far apart tries are at most.
const LONGEST: Duration = Duration::from_secs(300);

fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_secs(1))
        .with_max_delay(LONGEST)
        .without_max_times()
        .with_jitter()
        .build()
}

/// A text as a part of a file's name: itself, or else its beginning and its digest.
fn short(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if text.len() <= 64 && text.chars().all(plain) {
        return text.to_owned();
    }
    let beginning: String = text.chars().filter(|&c| plain(c)).take(24).collect();
    format!("{beginning}-{}", &hex::encode(Sha256::digest(text))[..16])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replace::Access;

    fn file(name: &str, group: Option<&str>, reload: Option<&str>) -> ManagedFile {
        ManagedFile {
            name: name.to_owned(),
            template: "/t".into(),
            destination: format!("/out/{name}").into(),
            access: Access { mode: 0o644, owner: None },
            values: BTreeMap::new(),
            check: None,
            reload: reload.map(|command| Reload::Command(command.to_owned())),
            group: group.map(str::to_owned),
            health: None,
            quiescence: Quiescence { min: Duration::from_secs(1), max: Duration::from_secs(4) },
            splay: Duration::ZERO,
        }
    }

    #[test]
    fn groups_and_reloads_are_shared() {
        let files = [
            file("a", Some("g"), Some("x")),
            file("b", None, Some("x")),
            file("c", Some("g"), Some("y")),
            file("d", None, Some("x")),
            file("e", None, None),
        ];
        let batches = Batch::all(&files);
        let seen: Vec<_> = batches.iter().map(|it| (it.id.as_str(), &it.files[..], it.reloads.len())).collect();
        let expected = [("command x", &[1, 3][..], 1), ("file e", &[4], 0), ("group g", &[0, 2], 2)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_change_waits_for_quiet_but_not_for_ever() {
        let mut batch = Batch::all(&[file("a", None, None)]).remove(0);
        let start = Instant::now();
        let second = Duration::from_secs(1);
        batch.touch(0, start);
        assert_eq!(batch.due(), Some(start + second));
        batch.touch(0, start + second / 2);
        assert_eq!(batch.due(), Some(start + second / 2 + second));
        batch.touch(0, start + 4 * second - second / 4);
        assert_eq!(batch.due(), Some(start + 4 * second));
        assert_eq!(batch.begin(), [0].into());
        assert_eq!(batch.due(), None);
    }

    #[test]
    fn splay_is_random_and_bounded() {
        let splay = Duration::from_secs(100);
        let delays: BTreeSet<_> = (0..50)
            .map(|_| {
                let mut batch = Batch::all(&[ManagedFile { splay, ..file("a", None, None) }]).remove(0);
                let now = Instant::now();
                batch.touch(0, now);
                let first = batch.due().unwrap() - now;
                // A second change does not draw anew.
                batch.touch(0, now);
                assert_eq!(batch.due().unwrap() - now, first);
                first
            })
            .collect();
        assert!(delays.len() > 40);
        let bounds = Duration::from_secs(1)..=Duration::from_secs(101);
        assert!(delays.iter().all(|delay| bounds.contains(delay)));
        let mut batch = Batch::all(&[ManagedFile { splay, ..file("a", None, None) }]).remove(0);
        batch.touch_all_now();
        assert!(batch.due().unwrap() <= Instant::now(), "a start does not wait");
    }

    #[test]
    fn names_on_the_disk_are_short_and_their_own() {
        assert_eq!(short("web.service"), "web.service");
        let (a, b) = (short("systemctl reload a"), short("systemctl reload b"));
        assert!(a.starts_with("systemctlreloada-") && a != b && !a.contains(' '));
        assert!(short(&"../x/".repeat(50)).len() <= 41 && !short("../x").contains('/'));
    }
}
