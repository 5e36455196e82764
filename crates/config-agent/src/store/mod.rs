//! Stores of keys and values, each followed in its own way.

mod aws;
mod consul;
mod directory;
mod etcd;
mod ssm;

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::SendError;
use tokio::time::Instant;

use crate::settings::StoreSettings;
use crate::values::{Selector, Update, Values};

/// How long a store may take to answer a question that it need not think about.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection that held for so long has earned a quick second try.
const HELD: Duration = Duration::from_secs(10);

/// A store, and what of it is followed.
#[derive(Debug, Clone)]
pub struct Store {
    settings: StoreSettings,
    selectors: Vec<Selector>,
}

impl Store {
    /// Nothing is asked yet. No key should be in two of the selectors: see [`crate::values::fewest`].
    pub fn new(settings: StoreSettings, selectors: Vec<Selector>) -> Self {
        Self { settings, selectors }
    }

    /// Where it is, for people.
    pub fn address(&self) -> String {
        match &self.settings {
            StoreSettings::Etcd(etcd) => etcd.addresses.join(", "),
            StoreSettings::Consul(consul) => consul.address.clone(),
            StoreSettings::Ssm(ssm) => ssm.endpoint.clone().unwrap_or_else(|| "AWS".to_owned()),
            StoreSettings::Directory(directory) => directory.path.display().to_string(),
        }
    }

    /// All that is selected, once.
    pub async fn read(&self) -> Result<Values> {
        let selectors = &self.selectors;
        let reading = async {
            match &self.settings {
                StoreSettings::Etcd(settings) => etcd::read(settings, selectors).await,
                StoreSettings::Consul(settings) => consul::read(settings, selectors).await,
                StoreSettings::Ssm(settings) => ssm::read(settings, selectors).await,
                StoreSettings::Directory(settings) => directory::read(settings, selectors),
            }
        };
        reading.await.with_context(|| format!("reading {} at {}", self.settings.kind(), self.address()))
    }

    /// Tells `updates` all that is selected and then every change, for as long as anyone listens. When the store is
    /// lost it says so and tries again, at first soon, then less often, and at random so that not all machines ask at
    /// once. What follows is always a whole listing: whatever happened to the store, nothing is missed.
    pub async fn follow(&self, updates: &Sender<Update>) {
        let mut delays = backoff();
        loop {
            let begun = Instant::now();
            let Err(error) = self.follow_once(updates).await;
            if error.is::<SendError<Update>>() {
                return;
            }
            if begun.elapsed() > HELD {
                delays = backoff();
            }
            if updates.send(Update::Lost(format!("{error:#}"))).await.is_err() {
                return;
            }
            tokio::time::sleep(delays.next().unwrap_or(HELD)).await;
        }
    }

    async fn follow_once(&self, updates: &Sender<Update>) -> Result<Infallible> {
        let selectors = &self.selectors;
        match &self.settings {
            StoreSettings::Etcd(settings) => etcd::follow(settings, selectors, updates).await,
            StoreSettings::Consul(settings) => consul::follow(settings, selectors, updates).await,
            StoreSettings::Ssm(settings) => ssm::follow(settings, selectors, updates).await,
            StoreSettings::Directory(settings) => directory::follow(settings, selectors, updates).await,
        }
    }
}

fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(20))
        .without_max_times()
        .with_jitter()
        .build()
}

/// `what`, if it comes in time.
async fn in_time<T, E>(doing: &str, what: impl Future<Output = Result<T, E>>) -> Result<T>
where
    anyhow::Error: From<E>,
{
    match tokio::time::timeout(ANSWER, what).await {
        Ok(outcome) => outcome.map_err(anyhow::Error::from).with_context(|| doing.to_owned()),
        Err(_) => anyhow::bail!("{doing}: no answer within {ANSWER:?}"),
    }
}
