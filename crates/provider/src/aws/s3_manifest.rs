//! A manifest in S3. There is no lock on it: a write has the condition that nobody else wrote since it was read.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use aws_sdk_s3::Client;
use cli::BadInput;
use manifest::{Component, Manifest};

use super::account;
use super::failure::{Explain, code, is_not_found};
use super::s3::Url;
use super::wait::{unless_interrupted, until};
use crate::Access;

/// How long others may keep changing it in between. A write takes a moment.
const PATIENCE: Duration = Duration::from_secs(30);

/// A manifest at a URL of S3.
#[derive(Debug)]
pub struct ManifestObject {
    s3: Client,
    url: Url,
}

/// What stood there at one moment.
struct Version {
    text: String,
    etag: String,
}

/// A write that S3 refused because somebody else had written.
struct Refused {
    /// What it rested on; `None` if there was nothing.
    before: Option<Manifest>,
    /// What it would have left.
    after: Manifest,
    text: String,
}

impl ManifestObject {
    /// The manifest at `url`. An error says what was being done.
    pub async fn open(doing: &str, url: &str) -> Result<Self> {
        let url = Url::parse(doing, url)?;
        if url.key.is_empty() {
            let why = format!("'{url}' is a bucket and no object");
            return Err(BadInput::new(doing, why, "write s3://BUCKET/KEY").into());
        }
        let (config, _) = account::load(&Access::default()).await?;
        Ok(Self { s3: Client::new(&config), url })
    }

    /// Reads it.
    pub async fn read(&self) -> Result<Manifest> {
        match unless_interrupted(self.get()).await? {
            Some(version) => Ok(manifest::parse(&self.path(), &version.text)?),
            None => Err(manifest::ReadError::Missing { path: self.path() }.into()),
        }
    }

    /// Changes it; see [`crate::ManifestPlace::update`].
    pub async fn update(&self, initial: Option<&Component>, mut change: impl FnMut(&mut Manifest)) -> Result<Manifest> {
        let mut refused: Option<Refused> = None;
        until(&format!("a moment in which nobody else changes {}", self.url), PATIENCE, async || {
            let now = self.get().await?;
            let before = now.as_ref().map(|now| manifest::parse(&self.path(), &now.text)).transpose()?;
            if let Some(refused) = refused.take() {
                // The first answer was lost, and the call that the SDK then made was refused because of ours.
                if now.as_ref().is_some_and(|now| now.text == refused.text) {
                    return Ok(Some(refused.after));
                }
                self.check_conflict(&refused, before.as_ref())?;
            }
            let stands = now.as_ref().map(|now| now.text.as_str());
            let (after, text) = manifest::edit(&self.path(), stands, initial, &mut change)?;
            if stands == Some(&text) || self.put(&text, now.as_ref()).await? {
                return Ok(Some(after));
            }
            refused = Some(Refused { before, after, text });
            Ok(None)
        })
        .await
    }

    /// An error if this run and another have changed the same keys: neither may undo unseen what the other did.
    fn check_conflict(&self, refused: &Refused, now: Option<&Manifest>) -> Result<()> {
        let Refused { before, after, .. } = refused;
        let Some(now) = now else {
            bail!(
                "somebody else removed the manifest {} while this run changed it: run `artifact build` again",
                self.url
            )
        };
        let Some(before) = before else {
            bail!(
                "somebody else made the manifest {} at the same time: look at it, and run again to replace what it says",
                self.url
            )
        };
        let theirs = before.difference(now);
        let both: Vec<_> = before.difference(after).intersection(&theirs).cloned().collect();
        ensure!(
            both.is_empty(),
            "somebody else changed {} in the manifest {} at the same time, and that stands: look at it, and run again to \
             replace it",
            both.join(", "),
            self.url
        );
        Ok(())
    }

    async fn get(&self) -> Result<Option<Version>> {
        let doing = || format!("reading the manifest {}", self.url);
        let sent = self.s3.get_object().bucket(&self.url.bucket).key(&self.url.key).send().await;
        if sent.as_ref().is_err_and(is_not_found) {
            return Ok(None);
        }
        let found = sent.doing("s3:GetObject", doing)?;
        let etag = found.e_tag.with_context(doing)?;
        let bytes = found.body.collect().await.with_context(doing)?.into_bytes();
        let text = String::from_utf8(bytes.into()).with_context(doing)?;
        Ok(Some(Version { text, etag }))
    }

    /// Writes it, if it is still as it was read. Says whether that is so.
    async fn put(&self, text: &str, before: Option<&Version>) -> Result<bool> {
        let put = self.s3.put_object().bucket(&self.url.bucket).key(&self.url.key).content_type("application/json");
        let put = match before {
            Some(version) => put.if_match(&version.etag),
            None => put.if_none_match("*"),
        };
        let sent = put.body(text.to_owned().into_bytes().into()).send().await;
        match sent.as_ref().err().and_then(code) {
            // The last one if it was removed.
            Some("PreconditionFailed" | "ConditionalRequestConflict" | "NoSuchKey") => Ok(false),
            _ => sent.map(|_| true).doing("s3:PutObject", || format!("writing the manifest {}", self.url)),
        }
    }

    /// Where it stands, for messages.
    fn path(&self) -> PathBuf {
        self.url.to_string().into()
    }
}
