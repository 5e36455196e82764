//! etcd: a read at one revision, then watches from the next one.
//! <https://etcd.io/docs/v3.5/learning/api/>

use std::convert::Infallible;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use etcd_client::{
    Certificate, Channel, Client, ConnectOptions, Event, EventType, GetOptions, Identity, KvClient, TlsOptions,
    WatchOptions,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::Sender;
use tonic::transport::Endpoint;

use super::in_time;
use crate::http::{CONNECT, QUESTION, QUESTIONS, SILENCE};
use crate::settings::{EtcdSettings, Tls, secret};
use crate::values::{Content, Map, Selector, Update, Values};

/// How many keys one answer has at most, so that an answer's size has a bound.
const PAGE: i64 = 1000;

/// How many ranges are read at once.
const AT_ONCE: usize = 16;

/// The client's own limit, 4 MiB, is less than a page of large values (etcd allows 1.5 MiB each by default).
const LARGEST_ANSWER: usize = 1 << 30;

/// All that is selected, as it is at one revision.
pub async fn read(settings: &EtcdSettings, selectors: &[Selector]) -> Result<Values> {
    let client = connect(settings).await?;
    let (values, revision) = list(&client, selectors).await?;
    Ok(Values::new(values, revision.to_string()))
}

/// Lists, and watches from the revision after the listing.
///
/// After a lost connection it is listed again, and not watched on from where it was: a store that was restored or begun
/// anew may have any revision, and a watch in its future would be silent.
pub async fn follow(settings: &EtcdSettings, selectors: &[Selector], updates: &Sender<Update>) -> Result<Infallible> {
    let client = connect(settings).await?;
    let (values, revision) = list(&client, selectors).await?;
    updates.send(Update::Listing { values, revision: revision.to_string() }).await?;

    let watches: Vec<_> = selectors.iter().map(|selector| watch_from(selector, revision + 1)).collect();
    let mut watches = watches.into_iter();
    let Some((key, options)) = watches.next() else { return std::future::pending().await };
    let mut client = client.watch_client().max_decoding_message_size(LARGEST_ANSWER);
    let (mut requests, mut responses) = in_time("watching", client.watch(key, Some(options))).await?.split();
    // Side by side with reading: the store stops taking requests while its answers are not read.
    let asking = async move {
        for (key, options) in watches {
            requests.watch(key, Some(options)).await.context("watching")?;
        }
        // The stream ends with its requests.
        std::future::pending::<Result<Infallible>>().await
    };
    let reading = async move {
        loop {
            let Some(response) = responses.message().await.context("watching")? else {
                bail!("the store ended the watch");
            };
            if response.compact_revision() > 0 {
                bail!("what follows revision {revision} was compacted, up to {}", response.compact_revision());
            }
            if response.canceled() {
                bail!("the store cancelled the watch: {}", response.cancel_reason());
            }
            let changes: Vec<_> = response.events().iter().filter_map(change).collect();
            if !changes.is_empty() {
                let revision = response.header().map_or(0, etcd_client::ResponseHeader::revision).to_string();
                updates.send(Update::Changes { changes, revision }).await?;
            }
        }
    };
    tokio::select! {
        ended = asking => ended,
        ended = reading => ended,
    }
}

async fn connect(settings: &EtcdSettings) -> Result<Client> {
    let mut endpoints = Vec::new();
    for address in &settings.addresses {
        endpoints.push(endpoint(address, settings.tls.as_ref())?);
    }
    let channel = Channel::Tonic(tonic::transport::Channel::balance_list(endpoints.into_iter()));
    let mut options = ConnectOptions::new().with_require_leader(true);
    if let (Some(user), Some(password)) = (&settings.user, &settings.password_file) {
        options = options.with_user(user, secret(password)?);
    }
    in_time("connecting", Client::from_channel(channel, Some(options))).await
}

/// A member. The crate's own way to connect cannot be told how soon a dead one is noticed.
fn endpoint(address: &str, tls: Option<&Tls>) -> Result<Endpoint> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .with_context(|| format!("reading the address {address}"))?
        .connect_timeout(CONNECT)
        .tcp_keepalive(Some(SILENCE))
        .tcp_keepalive_interval(Some(QUESTION))
        .tcp_keepalive_retries(Some(QUESTIONS));
    match tls {
        Some(tls) if address.starts_with("https://") => Ok(endpoint.tls_config(tls_options(tls)?)?),
        _ => Ok(endpoint),
    }
}

fn tls_options(tls: &Tls) -> Result<TlsOptions> {
    let read = |path: &std::path::Path| fs::read(path).with_context(|| format!("reading {}", path.display()));
    let mut options = TlsOptions::new();
    if let Some(ca) = &tls.ca {
        options = options.ca_certificate(Certificate::from_pem(read(ca)?));
    }
    if let Some((cert, key)) = tls.identity() {
        options = options.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(options)
}

/// Everything at one revision: that of the first answer, which is the latest.
async fn list(client: &Client, selectors: &[Selector]) -> Result<(Map, i64)> {
    let client = client.kv_client().max_decoding_message_size(LARGEST_ANSWER);
    let Some((first, others)) = selectors.split_first() else { return Ok((Map::new(), 0)) };
    let (mut values, revision) = range(client.clone(), first, None).await?;
    let reads = others.iter().map(|selector| range(client.clone(), selector, Some(revision)));
    let mut answers = stream::iter(reads).buffer_unordered(AT_ONCE);
    while let Some((more, _)) = answers.try_next().await? {
        values.extend(more);
    }
    Ok((values, revision))
}

async fn range(mut client: KvClient, selector: &Selector, at: Option<i64>) -> Result<(Map, i64)> {
    let mut values = Map::new();
    let (mut from, mut at) = (selector.text().as_bytes().to_vec(), at);
    loop {
        let mut options = GetOptions::new().with_limit(PAGE);
        if let Some(revision) = at {
            options = options.with_revision(revision);
        }
        if let Some(end) = end_of(selector) {
            options = options.with_range(end);
        }
        let mut page = in_time("listing", client.get(from, Some(options))).await?;
        let revision = at.unwrap_or_else(|| page.header().map_or(0, etcd_client::ResponseHeader::revision));
        at = Some(revision);
        let (more, pairs) = (page.more(), page.take_kvs());
        let last = pairs.last().map(|pair| pair.key().to_vec());
        for pair in pairs {
            let (key, value) = pair.into_key_value();
            if let Ok(key) = String::from_utf8(key) {
                values.insert(key.into(), value.into());
            }
        }
        match last {
            // The next key there can be.
            Some(last) if more => from = [last, vec![0]].concat(),
            _ => return Ok((values, revision)),
        }
    }
}

fn watch_from(selector: &Selector, revision: i64) -> (Vec<u8>, WatchOptions) {
    let mut options = WatchOptions::new().with_start_revision(revision);
    if let Some(end) = end_of(selector) {
        options = options.with_range(end);
    }
    (selector.text().as_bytes().to_vec(), options)
}

/// The end of a range of keys; `None` for one key alone.
fn end_of(selector: &Selector) -> Option<Vec<u8>> {
    match selector {
        Selector::Key(_) => None,
        // The prefix ends with a slash, and what follows a slash in ASCII is 0.
        Selector::Below(prefix) => Some([prefix.trim_end_matches('/').as_bytes(), b"0"].concat()),
    }
}

fn change(event: &Event) -> Option<(Arc<str>, Option<Content>)> {
    let pair = event.kv()?;
    let key = std::str::from_utf8(pair.key()).ok()?;
    Some((key.into(), (event.event_type() == EventType::Put).then(|| pair.value().to_vec().into())))
}
