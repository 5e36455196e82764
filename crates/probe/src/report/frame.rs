//! A report on a serial console.
//!
//! A console is one stream for the kernel, systemd and us: others write between
//! our lines and into them, prefixes and carriage returns are added, lines get
//! lost. So the report is sent as short lines that each prove themselves:
//!
//! ```text
//! @probe NONCE begin LENGTH LINES SHA256
//! @probe NONCE FRAME NUMBER CHECK BASE64
//! @probe NONCE end LENGTH LINES SHA256
//! ```
//!
//! The nonce is chosen by the reader, so an earlier report is never taken for
//! this one. LENGTH (of the JSON text, in bytes) and SHA256 are of the whole
//! report, FRAME is the start of that digest, and CHECK the start of the digest of
//! what the line carries. Base64 rather than hex: EC2 keeps the last 64 KB of a
//! console, and base64 fits half as much again into it. Copies of the same frame
//! repair each other line by line.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{Report, SCHEMA_VERSION};

const MARKER: &str = "@probe ";

/// Bytes of the report in one line: with base64 and the longest nonce the line
/// stays below 900 characters, short of what any console cuts.
const BYTES_PER_LINE: usize = 576;

const MAX_NONCE: usize = 64;

/// Hexadecimal digits of a digest that name a frame, or prove a line.
const SHORT_DIGEST: usize = 8;

/// A frame that was sent and cannot be read. Another copy may still follow.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FrameError {
    /// Lines were lost or garbled on the console.
    #[error("the report on the console is corrupted: {good} of {lines} lines arrived whole")]
    Corrupted {
        /// Lines that arrived whole, in any copy.
        good: usize,
        /// Lines that were sent.
        lines: usize,
    },
    /// Every line is whole, the report is not.
    #[error("the report on the console is corrupted: its SHA-256 does not match")]
    Digest,
    /// The frame is whole, and is no report of a version that this crate reads.
    #[error("the report on the console cannot be read ({0}): use the probe of the same version as the tester")]
    NotAReport(String),
}

/// Whether a text can be a nonce: 1 to 64 letters, digits and dashes.
pub fn is_nonce(text: &str) -> bool {
    (1..=MAX_NONCE).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// The report as lines for a console. `nonce` must be one, see [`is_nonce`].
///
/// # Panics
///
/// Never for a report that this crate made: its keys are strings, and its numbers finite.
pub fn frame(report: &Report, nonce: &str) -> String {
    let json = serde_json::to_vec(report).expect("a report is valid JSON");
    let digest = hex::encode(Sha256::digest(&json));
    let lines: Vec<&[u8]> = json.chunks(BYTES_PER_LINE).collect();
    let outer = format!("{} {} {digest}", json.len(), lines.len());
    // The empty line first: somebody else's line may be unfinished.
    let mut text = format!("\n{MARKER}{nonce} begin {outer}\n");
    for (number, line) in lines.iter().enumerate() {
        let (frame, check, data) = (&digest[..SHORT_DIGEST], short_digest(line), BASE64_STANDARD.encode(line));
        // Writing to a string does not fail.
        let _ = writeln!(text, "{MARKER}{nonce} {frame} {number} {check} {data}");
    }
    let _ = writeln!(text, "{MARKER}{nonce} end {outer}");
    text
}

/// Finds the report with this nonce in what a console has printed so far: the
/// first whose copies together are whole. `None` if it is not there yet.
///
/// # Errors
///
/// A frame has ended and cannot be read, and no other is whole. A reader that
/// expects further copies goes on reading.
pub fn unframe(console: &str, nonce: &str) -> Result<Option<Report>, FrameError> {
    let mut failure = None;
    for frame in collect(console, nonce) {
        match frame.report() {
            Ok(report) => return Ok(Some(report)),
            Err(error) if frame.ended => failure = failure.or(Some(error)),
            Err(_) => {}
        }
    }
    failure.map_or(Ok(None), Err)
}

/// A frame as far as it has arrived.
#[derive(Debug)]
struct Frame {
    outer: Outer,
    lines: BTreeMap<usize, Vec<u8>>,
    ended: bool,
}

/// What the first and the last line of a frame say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outer {
    length: usize,
    lines: usize,
    digest: String,
}

/// Every frame of which a first or a last line has arrived, in order of appearance.
fn collect(console: &str, nonce: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut loose: Vec<(&str, usize, Vec<u8>)> = Vec::new();
    for line in console.lines() {
        // The last marker: a line of ours may have been broken off by another of ours.
        let Some((_, rest)) = line.rsplit_once(MARKER) else { continue };
        let mut words = rest.split_ascii_whitespace();
        if words.next() != Some(nonce) {
            continue;
        }
        match words.next() {
            Some(edge @ ("begin" | "end")) => {
                let Some(outer) = Outer::read(words) else { continue };
                let known = frames.iter().position(|frame| frame.outer == outer);
                let index = known.unwrap_or_else(|| {
                    frames.push(Frame { outer, lines: BTreeMap::new(), ended: false });
                    frames.len() - 1
                });
                frames[index].ended |= edge == "end";
            }
            Some(name) => loose.extend(data_line(words).map(|(number, data)| (name, number, data))),
            None => {}
        }
    }
    for (name, number, data) in loose {
        for frame in frames.iter_mut().filter(|frame| frame.outer.digest.starts_with(name)) {
            frame.lines.entry(number).or_insert_with(|| data.clone());
        }
    }
    frames
}

/// A line that proves itself. What a kernel message left behind our data does no
/// harm, as it starts with a bracket.
fn data_line<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<(usize, Vec<u8>)> {
    let number = words.next()?.parse().ok()?;
    let check = words.next()?;
    let text = words.next()?;
    let is_base64 = |letter: char| letter.is_ascii_alphanumeric() || "+/=".contains(letter);
    let end = text.find(|letter| !is_base64(letter)).unwrap_or(text.len());
    let data = BASE64_STANDARD.decode(&text[..end]).ok()?;
    (short_digest(&data) == check).then_some((number, data))
}

fn short_digest(data: &[u8]) -> String {
    let mut digest = hex::encode(Sha256::digest(data));
    digest.truncate(SHORT_DIGEST);
    digest
}

impl Outer {
    fn read<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let length = words.next()?.parse().ok()?;
        let lines = words.next()?.parse().ok()?;
        let digest = words.next()?.get(..2 * Sha256::output_size())?;
        digest.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| Self { length, lines, digest: digest.to_owned() })
    }
}

impl Frame {
    fn report(&self) -> Result<Report, FrameError> {
        let Outer { length, lines, digest } = &self.outer;
        let good = self.lines.range(..*lines).count();
        if good < *lines {
            return Err(FrameError::Corrupted { good, lines: *lines });
        }
        let json: Vec<u8> = self.lines.range(..*lines).flat_map(|(_, line)| line.iter().copied()).collect();
        if json.len() != *length || hex::encode(Sha256::digest(&json)) != *digest {
            return Err(FrameError::Digest);
        }
        let report: Report =
            serde_json::from_slice(&json).map_err(|error| FrameError::NotAReport(error.to_string()))?;
        if report.schema_version != SCHEMA_VERSION {
            let version = report.schema_version;
            return Err(FrameError::NotAReport(format!("it is of schema version {version}, not {SCHEMA_VERSION}")));
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests;
