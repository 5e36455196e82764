//! Why a gossfile cannot be loaded.

use thiserror::Error;

/// A gossfile that cannot be loaded: where, what is wrong and what to do.
///
/// Every such error is found before a machine is touched; goss and `probe` both
/// end with exit code 78 on it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{}: {why}: {remedy}", self.place())]
pub struct GossfileError {
    /// The name of the file, as the caller gave it.
    pub file: String,
    /// The line, counted from 1, where one line can be named.
    pub line: Option<usize>,
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub remedy: String,
}

impl GossfileError {
    fn place(&self) -> String {
        match self.line {
            Some(line) => format!("{}:{line}", self.file),
            None => self.file.clone(),
        }
    }
}

/// A fault on a line of the file that is being read; the file's name is added at
/// the door, in [`crate::gossfile::Gossfile::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) line: usize,
    pub(crate) why: String,
    pub(crate) remedy: String,
}

impl Fault {
    pub(crate) fn new(line: usize, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { line, why: why.into(), remedy: remedy.into() }
    }
}

/// What to do about an unknown `word`: the nearest of `known`, or all of them
/// when none is near.
pub(crate) fn nearest(word: &str, known: &[&str]) -> String {
    let best = known.iter().map(|name| (strsim::damerau_levenshtein(word, name), *name)).min();
    match best {
        // A third of the letters wrong is a slip of the fingers; more is another word.
        Some((distance, name)) if distance <= name.len().max(word.len()).div_ceil(3) => {
            format!("did you mean `{name}`?")
        }
        _ => format!("use one of {}", known.join(", ")),
    }
}
