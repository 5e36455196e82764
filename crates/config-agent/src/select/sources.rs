//! Who says where this machine runs: the first source that knows a name is believed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::settings::Settings;
use super::words;
use crate::bad_input::BadInput;
use crate::exit::say;
use crate::imds::Imds;

/// A source of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The instance metadata service, version 2: tags, then the region, then user data.
    Imds,
    /// The kernel's command line: `config-agent.NAME=VALUE`.
    Cmdline,
    /// A file of JSON or of lines `NAME=VALUE`.
    File,
    /// The environment: `CONFIG_AGENT_NAME`.
    Environment,
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The name in the pattern.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Who said so.
    pub origin: String,
}

/// The sources that are asked, with what they have said so far.
#[derive(Debug)]
pub struct Sources<'a> {
    settings: &'a Settings,
    imds: Metadata,
    asked: Vec<(String, Source, String)>,
}

#[derive(Debug)]
enum Metadata {
    NotAsked,
    Silent(String),
    Answers { imds: Imds, user_data: Option<BTreeMap<String, String>> },
}

impl<'a> Sources<'a> {
    /// None is asked before a name is looked up.
    pub fn new(settings: &'a Settings) -> Self {
        Self { settings, imds: Metadata::NotAsked, asked: Vec::new() }
    }

    /// Asks each source in turn for `name`.
    pub async fn look_up(&mut self, name: &str) -> Result<Option<Answer>> {
        for source in self.settings.sources() {
            let found = match source {
                Source::Imds => self.of_imds(name).await?,
                Source::Cmdline => self.of_command_line(name)?,
                Source::File => self.of_file(name)?,
                Source::Environment => of_environment(name),
            };
            match found {
                Ok((value, origin)) => return checked(name, &value, origin).map(Some),
                Err(why) => self.asked.push((name.to_owned(), source, why)),
            }
        }
        Ok(None)
    }

    /// Which sources did not know `name`, and why.
    pub fn asked(&self, name: &str) -> impl Iterator<Item = (Source, &str)> {
        self.asked.iter().filter(move |(of, ..)| of == name).map(|(_, source, why)| (*source, why.as_str()))
    }

    async fn of_imds(&mut self, name: &str) -> Result<Found> {
        if matches!(self.imds, Metadata::NotAsked) {
            self.imds = match Imds::connect(&self.settings.imds, self.settings.imds_deadline).await {
                Ok(imds) => Metadata::Answers { imds, user_data: None },
                // Whoever names the source relies on it: another's word could be a wrong one.
                Err(error) if self.settings.named(Source::Imds) => return Err(error.into()),
                Err(error) => {
                    say(&format!("{error}; going on with the other sources"));
                    Metadata::Silent(error.to_string())
                }
            };
        }
        let (imds, user_data) = match &mut self.imds {
            Metadata::Answers { imds, user_data } => (imds, user_data),
            Metadata::Silent(why) => return Ok(Err(why.clone())),
            Metadata::NotAsked => return Ok(Err("was not asked".to_owned())),
        };
        if let Some(value) = imds.get(&format!("meta-data/tags/instance/{name}")).await? {
            return Ok(Ok((value, format!("the instance's tag '{name}'"))));
        }
        if name == "region"
            && let Some(region) = imds.get("meta-data/placement/region").await?
        {
            return Ok(Ok((region, "the instance's region".to_owned())));
        }
        if user_data.is_none() {
            *user_data = Some(words::parse(&imds.get("user-data").await?.unwrap_or_default()));
        }
        match user_data.as_ref().and_then(|pairs| pairs.get(name)) {
            Some(value) => Ok(Ok((value.clone(), "the instance's user data".to_owned()))),
            None => Ok(Err(format!("{} has no tag '{name}' and no '{name}' in user data", self.settings.imds))),
        }
    }

    fn of_command_line(&self, name: &str) -> Result<Found> {
        let path = &self.settings.cmdline;
        let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Ok(match words::of_command_line(&text, name) {
            Some(value) => Ok((value.to_owned(), "the kernel's command line".to_owned())),
            None => Err(format!("{} has no config-agent.{name}", path.display())),
        })
    }

    fn of_file(&self, name: &str) -> Result<Found> {
        let path = &self.settings.file;
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !self.settings.named(Source::File) => {
                return Ok(Err(format!("{} does not exist", path.display())));
            }
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        Ok(match words::parse(&text).remove(name) {
            Some(value) => Ok((value, path.display().to_string())),
            None => Err(format!("{} has no '{name}'", path.display())),
        })
    }
}

/// A value and who said it, or why there is none.
type Found = Result<(String, String), String>;

fn of_environment(name: &str) -> Found {
    let variable = format!("CONFIG_AGENT_{}", name.to_uppercase());
    match std::env::var(&variable) {
        Ok(value) => Ok((value, format!("the variable {variable}"))),
        Err(_) => Err(format!("{variable} is not set")),
    }
}

/// Values come from outside and become a part of a path: they must not lead elsewhere.
fn checked(name: &str, value: &str, origin: String) -> Result<Answer> {
    let value = value.trim().to_owned();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if value.is_empty() || value.starts_with('.') || !value.bytes().all(allowed) {
        let why = format!("'{name}' is {value:?} according to {origin}, which cannot be a part of a file's name");
        return Err(BadInput::new("choosing a configuration", why, "use letters, digits, '-', '_' and '.'").into());
    }
    Ok(Answer { name: name.to_owned(), value, origin })
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is '{}', from {}", self.name, self.value, self.origin)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imds => "imds",
            Self::Cmdline => "cmdline",
            Self::File => "file",
            Self::Environment => "environment",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_in_its_place() {
        let value = |text: &str| checked("country", text, "a tag".to_owned());
        assert_eq!(value("uk\n").unwrap().value, "uk");
        for text in ["", " ", "../uk", ".uk", "u/k", "u k", "u\0"] {
            assert!(value(text).is_err(), "{text:?}");
        }
    }
}
