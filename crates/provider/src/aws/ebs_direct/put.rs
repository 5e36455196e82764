//! Blocks into a pending snapshot, as many at a time as AWS takes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_ebs::Client;
use aws_sdk_ebs::config::retry::RetryConfig;
use aws_sdk_ebs::config::timeout::TimeoutConfig;
use aws_sdk_ebs::error::SdkError;
use aws_sdk_ebs::operation::put_snapshot_block::PutSnapshotBlockError;
use aws_sdk_ebs::types::ChecksumAlgorithm;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cli::{interrupt, narrate};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sha2::{Digest, Sha256};

use super::journal::{KNOWN_AFTER, Progress};
use super::window::Window;
use super::{Source, blocks};
use crate::aws::failure::{Explain, is_not_found, is_throttle};

/// After this long without a single block taken, throttling is a failure.
const STALLED: Duration = Duration::from_secs(600);
/// After this long without a single block taken, so is a network or an AWS that fails.
const BROKEN: Duration = Duration::from_secs(120);
/// How long one put may take: 512 KiB at a slow uplink that others share.
const ONE_PUT: Duration = Duration::from_secs(120);
/// How soon an interrupt, or the end of a pause, is noticed.
const SLICE: Duration = Duration::from_millis(50);
/// How often it is told how far it is.
const REPORT: Duration = Duration::from_secs(10);

/// What is put where.
pub(super) struct Puts<'a> {
    pub ebs: &'a Client,
    pub snapshot: &'a str,
    pub source: &'a Source<'a>,
    /// When the snapshot was begun.
    pub since: Instant,
}

/// A block that is to be put.
struct Block {
    index: usize,
    /// Of the window that it was sent in.
    generation: u32,
}

/// How it went.
enum Outcome {
    Accepted,
    /// AWS did not take it.
    Refused(Box<SdkError<PutSnapshotBlockError>>),
}

impl Puts<'_> {
    /// Puts all of these blocks that the snapshot does not have.
    ///
    /// The SDK does not retry here: it would do so for each block by itself, where a throttle concerns all of them.
    pub async fn all(&self, wanted: &[usize], progress: &mut Progress) -> Result<()> {
        let block = |index: &usize| Block { index: *index, generation: 0 };
        let mut waiting: VecDeque<_> = wanted.iter().filter(|index| !progress.has(**index)).map(block).collect();
        let mut window = Window::new();
        let mut under_way = FuturesUnordered::new();
        let mut last_accepted = Instant::now();
        let mut told = Told::new(wanted.len() - waiting.len(), wanted.len());
        while !(waiting.is_empty() && under_way.is_empty()) {
            interrupt::check()?;
            while under_way.len() < window.size()
                && let Some(block) = waiting.pop_front()
            {
                under_way.push(self.put(Block { generation: window.generation(), ..block }, told.percent()));
            }
            let (block, outcome) = match tokio::time::timeout(SLICE, under_way.next()).await {
                Ok(Some(put)) => put?,
                Ok(None) => {
                    tokio::time::sleep(SLICE).await;
                    continue;
                }
                Err(_) => continue,
            };
            match outcome {
                Outcome::Accepted => {
                    window.accepted(block.generation);
                    last_accepted = Instant::now();
                    progress.add(block.index)?;
                    told.one_more(under_way.len() + 1);
                }
                Outcome::Refused(error) => {
                    window.refused(block.generation);
                    if !self.is_passing(&error, last_accepted) {
                        let what = || format!("putting block {} into {}", block.index, self.snapshot);
                        return Err(*error).doing("ebs:PutSnapshotBlock", what);
                    }
                    waiting.push_front(block);
                }
            }
        }
        Ok(())
    }

    /// Whether a block that was refused is to be put again.
    fn is_passing(&self, error: &SdkError<PutSnapshotBlockError>, last_accepted: Instant) -> bool {
        if is_throttle(error) {
            return last_accepted.elapsed() < STALLED;
        }
        if is_not_found(error) {
            return self.since.elapsed() < KNOWN_AFTER;
        }
        let fault = match error {
            SdkError::ConstructionFailure(_) => false,
            SdkError::ServiceError(refusal) => {
                // An earlier put whose answer was lost may still be at it.
                let conflict = error.as_service_error().is_some_and(is_conflict);
                refusal.raw().status().is_server_error() || conflict
            }
            _ => true,
        };
        fault && last_accepted.elapsed() < BROKEN
    }

    async fn put(&self, block: Block, percent: i32) -> Result<(Block, Outcome)> {
        let index = block.index;
        let digest = self.source.content.at(index);
        let disk = self.source.disk.try_clone().context("opening a disk again")?;
        let read = tokio::task::spawn_blocking(move || {
            let data = blocks::read(&disk, index)?;
            let found: blocks::Digest = Sha256::digest(&data).into();
            Ok::<_, std::io::Error>((data, found))
        });
        let (data, found) = read.await.context("reading a disk")?.with_context(|| format!("reading block {index}"))?;
        ensure!(
            found == digest,
            "block {index} of the disk of {} is damaged: it is not what was registered; build the image again",
            self.source.image.id
        );
        let once = aws_sdk_ebs::Config::builder()
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(ONE_PUT).build());
        let put = self
            .ebs
            .put_snapshot_block()
            .snapshot_id(self.snapshot)
            .block_index(i32::try_from(index)?)
            .data_length(i32::try_from(data.len())?)
            .progress(percent)
            .checksum(BASE64_STANDARD.encode(digest))
            .checksum_algorithm(ChecksumAlgorithm::ChecksumAlgorithmSha256)
            .block_data(data.into())
            .customize()
            .config_override(once)
            .send()
            .await;
        Ok((block, put.map_or_else(|error| Outcome::Refused(Box::new(error)), |_| Outcome::Accepted)))
    }
}

fn is_conflict(error: &PutSnapshotBlockError) -> bool {
    use aws_sdk_ebs::types::ValidationExceptionReason::ConflictingBlockUpdate;
    matches!(error, PutSnapshotBlockError::ValidationException(refused) if refused.reason() == Some(&ConflictingBlockUpdate))
}

/// How far it is, for people.
struct Told {
    done: usize,
    all: usize,
    begun: (Instant, usize),
    last: Instant,
}

impl Told {
    fn new(done: usize, all: usize) -> Self {
        Self { done, all, begun: (Instant::now(), done), last: Instant::now() }
    }

    fn percent(&self) -> i32 {
        i32::try_from(self.done * 100 / self.all.max(1)).unwrap_or(100)
    }

    fn one_more(&mut self, at_a_time: usize) {
        self.done += 1;
        if self.last.elapsed() >= REPORT {
            self.last = Instant::now();
            let (began, before) = self.begun;
            let rate = (self.done - before) as f64 / began.elapsed().as_secs_f64();
            let (done, all, percent) = (self.done, self.all, self.percent());
            narrate::detail(&format!("{done} of {all} blocks ({percent} %), {rate:.0}/s, {at_a_time} at a time"));
        }
    }
}
