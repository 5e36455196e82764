//! Choosing one of the image's configurations by where the machine runs.

mod pattern;
mod settings;
mod sources;
mod words;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::replace::{self, current_access};
pub use pattern::Pattern;
pub use settings::{How, Overrides, Settings};
pub use sources::Source;
use sources::{Answer, Sources};

/// A choice that was made.
#[derive(Debug)]
pub struct Selection {
    /// The configuration that fits.
    pub chosen: PathBuf,
    /// What each name in the pattern stands for, and who said so.
    pub answers: Vec<Answer>,
    /// Whether the destination was that already.
    pub unchanged: bool,
}

/// Nothing fits: the destination is as it was, and must not be used.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct NoMatch(String);

/// Chooses, checks what was chosen, and puts it in its place.
pub async fn select(settings: &Settings) -> Result<Selection> {
    let mut sources = Sources::new(settings);
    let mut answers = Vec::new();
    for name in settings.pattern.names() {
        match sources.look_up(name).await? {
            Some(answer) => answers.push(answer),
            None => return Err(unknown(settings, name, &answers, &sources).into()),
        }
    }
    let chosen = settings.pattern.fill(&answers);
    if let Err(why) = check(&chosen) {
        let why = format!("{} {why}", chosen.display());
        return Err(NoMatch(explanation(settings, &why, &answers)).into());
    }
    let unchanged = place(settings, &chosen)
        .with_context(|| format!("putting {} in place as {}", chosen.display(), settings.destination.display()))?;
    Ok(Selection { chosen, answers, unchanged })
}

/// Why the file cannot be used, if so.
fn check(path: &Path) -> Result<(), String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err("does not exist".to_owned()),
        Err(error) => return Err(format!("cannot be read: {error}")),
    };
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    let parsed = match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => serde_json::from_str::<IgnoredAny>(&text).map(drop).map_err(|error| error.to_string()),
        Some("toml") => toml::from_str::<toml::Table>(&text).map(drop).map_err(|error| error.to_string()),
        Some("yaml" | "yml") => {
            serde_saphyr::from_str::<serde_json::Value>(&text).map(drop).map_err(|error| error.to_string())
        }
        _ => Ok(()),
    };
    parsed.map_err(|error| format!("is broken: {}", error.trim_end()))
}

/// Whether it was in place already.
fn place(settings: &Settings, chosen: &Path) -> std::io::Result<bool> {
    let destination = &settings.destination;
    match settings.how {
        How::Link => {
            if fs::read_link(destination).is_ok_and(|target| target == chosen) {
                return Ok(true);
            }
            replace::link(chosen, destination)?;
        }
        How::Copy => {
            let (content, access) = (fs::read(chosen)?, current_access(chosen)?);
            let is_file = fs::symlink_metadata(destination).is_ok_and(|metadata| metadata.is_file());
            if is_file && fs::read(destination)? == content && current_access(destination)? == access {
                return Ok(true);
            }
            replace::write(destination, &content, access)?;
        }
    }
    Ok(false)
}

fn unknown(settings: &Settings, name: &str, answers: &[Answer], sources: &Sources<'_>) -> NoMatch {
    let mut text = explanation(settings, &format!("nothing says what '{name}' is here"), answers);
    for (source, why) in sources.asked(name) {
        let _ = write!(text, "\n  asked: {source}: {why}");
    }
    NoMatch(text)
}

/// All that is needed to see at the console of a machine that will not boot what is wrong.
fn explanation(settings: &Settings, why: &str, answers: &[Answer]) -> String {
    let mut text = format!("choosing {}: {why}", settings.destination.display());
    let _ = write!(text, "\n  looked for: {}", settings.pattern);
    for answer in answers {
        let _ = write!(text, "\n  {answer}");
    }
    let candidates = settings.pattern.candidates(&settings.destination);
    let candidates: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
    let _ = match candidates.as_slice() {
        [] => write!(text, "\n  no file fits the pattern: correct it, or build an image that has such files"),
        there => write!(text, "\n  there are: {}", there.join(", ")),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_parse_as_what_its_name_says() {
        let directory = tempfile::tempdir().unwrap();
        let checked = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            check(&path)
        };
        for (name, good, bad) in
            [("a.json", "{\"a\": 1}", "{\"a\": }"), ("a.toml", "a = 1", "a = "), ("a.yaml", "a: [1]", "a: [1")]
        {
            assert_eq!(checked(name, good), Ok(()), "{name}");
            assert!(checked(name, bad).unwrap_err().starts_with("is broken: "), "{name}");
        }
        assert_eq!(checked("a.conf", "{ anything"), Ok(()));
        assert_eq!(checked("a.conf", " \n"), Err("is empty".to_owned()));
        assert_eq!(check(&directory.path().join("b.json")), Err("does not exist".to_owned()));
    }
}
