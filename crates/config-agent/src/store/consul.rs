//! Consul's key-value store, by blocking queries.
//! <https://developer.hashicorp.com/consul/api-docs/features/blocking>

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use reqwest::header::HeaderMap;
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::mpsc::Sender;

use super::ANSWER;
use crate::http;
use crate::settings::{ConsulSettings, secret};
use crate::values::{Map, Selector, Update, Values};

/// How far apart two queries of one selector begin at least: a query may return without a change, again and again.
const APART: Duration = Duration::from_millis(50);

/// How many selectors are listed at once.
const AT_ONCE: usize = 16;

/// What one query says.
#[derive(Debug)]
struct Answer {
    values: Map,
    /// `None` if there is no index that may be sent back.
    index: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Pair {
    key: String,
    /// In base64; null for an empty value.
    value: Option<String>,
}

struct Consul<'a> {
    settings: &'a ConsulSettings,
    client: Client,
    token: Option<String>,
}

/// All that is selected.
pub async fn read(settings: &ConsulSettings, selectors: &[Selector]) -> Result<Values> {
    let answers = Consul::connect(settings)?.list(selectors).await?;
    let (values, revision) = together(answers.iter().map(|(_, answer)| answer));
    Ok(Values::new(values, revision))
}

/// Lists, and then has one query waiting for each selector.
pub async fn follow(settings: &ConsulSettings, selectors: &[Selector], updates: &Sender<Update>) -> Result<Infallible> {
    let consul = Consul::connect(settings)?;
    let answers = consul.list(selectors).await?;
    let (values, revision) = together(answers.iter().map(|(_, answer)| answer));
    updates.send(Update::Listing { values, revision }).await?;
    let mut following: FuturesUnordered<_> =
        answers.into_iter().map(|(selector, answer)| consul.follow(selector, answer.index, updates)).collect();
    match following.next().await {
        Some(ended) => ended,
        None => std::future::pending().await,
    }
}

impl<'a> Consul<'a> {
    fn connect(settings: &'a ConsulSettings) -> Result<Self> {
        let token = settings.token_file.as_deref().map(secret).transpose()?;
        Ok(Self { settings, client: http::client(settings.tls.as_ref())?, token })
    }

    async fn list<'s>(&self, selectors: &'s [Selector]) -> Result<Vec<(&'s Selector, Answer)>> {
        let asked = selectors.iter().map(async |selector| anyhow::Ok((selector, self.ask(selector, None).await?)));
        stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await
    }

    async fn follow(&self, selector: &Selector, index: Option<u64>, updates: &Sender<Update>) -> Result<Infallible> {
        let mut index = index;
        let mut known: Option<Map> = None;
        loop {
            let next = tokio::time::Instant::now() + APART;
            let answer = self.ask(selector, index).await?;
            index = next_index(index, answer.index);
            // A query that returns promises no change.
            if known.as_ref() != Some(&answer.values) {
                known = Some(answer.values.clone());
                let revision = answer.index.map_or_else(|| "unknown".to_owned(), |index| index.to_string());
                let part = Update::Part { selector: selector.clone(), values: answer.values, revision };
                updates.send(part).await?;
            }
            tokio::time::sleep_until(next).await;
        }
    }

    /// Consul's keys have no slash in front; ours have, in every store.
    fn url(&self, selector: &Selector) -> Result<Url> {
        let address = &self.settings.address;
        let mut url = Url::parse(address).with_context(|| format!("reading the address {address}"))?;
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(["v1", "kv"]).extend(selector.text().trim_start_matches('/').split('/'));
        }
        Ok(url)
    }

    /// One query, which waits for a change after `index` if there is one.
    async fn ask(&self, selector: &Selector, index: Option<u64>) -> Result<Answer> {
        let url = self.url(selector)?;
        let mut request = self.client.get(url.clone());
        if matches!(selector, Selector::Below(_)) {
            request = request.query(&[("recurse", "true")]);
        }
        let mut patience = ANSWER;
        if let Some(index) = index {
            let wait = Duration::from(self.settings.wait);
            request = request.query(&[("index", index.to_string()), ("wait", format!("{}ms", wait.as_millis()))]);
            // Consul adds up to a sixteenth, so that not all clients return at once.
            patience += wait + wait / 16;
        }
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        let response =
            request.timeout(patience).send().await.map_err(|error| anyhow::anyhow!(http::in_full(&error)))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.text().await.with_context(|| format!("reading the answer of {url}"))?;
        match status {
            StatusCode::OK | StatusCode::NOT_FOUND => (),
            status => bail!("{url} answers {status}: {}", body.trim()),
        }
        if headers.get("X-Consul-KnownLeader").is_some_and(|known| known == "false") {
            bail!("the cluster has no leader");
        }
        let values = if status == StatusCode::OK { pairs(selector, &body)? } else { Map::new() };
        Ok(Answer { values, index: index_in(&headers) })
    }
}

/// The index to wait for after an answer with the index `got`: an index that went backwards belongs to another state of
/// the store, and is begun anew.
fn next_index(sent: Option<u64>, got: Option<u64>) -> Option<u64> {
    got.filter(|got| sent.is_none_or(|sent| *got >= sent))
}

/// An index of 0 is never sent back: the query would not wait.
fn index_in(headers: &HeaderMap) -> Option<u64> {
    headers.get("X-Consul-Index")?.to_str().ok()?.parse().ok().filter(|index| *index > 0)
}

fn pairs(selector: &Selector, body: &str) -> Result<Map> {
    let pairs: Vec<Pair> = serde_json::from_str(body).context("reading the store's answer")?;
    let mut values = Map::new();
    for pair in pairs {
        let key = format!("/{}", pair.key);
        let value =
            BASE64.decode(pair.value.unwrap_or_default()).with_context(|| format!("reading the value of {key}"))?;
        // A "folder" is a key that ends with a slash, and is nobody's value.
        if selector.has(&key) && !key.ends_with('/') {
            values.insert(key.into(), value.into());
        }
    }
    Ok(values)
}

fn together<'a>(answers: impl Iterator<Item = &'a Answer>) -> (Map, String) {
    let (mut values, mut index) = (Map::new(), 0);
    for answer in answers {
        values.extend(answer.values.clone());
        index = index.max(answer.index.unwrap_or_default());
    }
    (values, index.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_rules() {
        assert_eq!(next_index(Some(5), Some(6)), Some(6));
        assert_eq!(next_index(Some(5), Some(5)), Some(5));
        assert_eq!(next_index(Some(5), Some(4)), None);
        assert_eq!(next_index(Some(5), None), None);
        assert_eq!(next_index(None, Some(1)), Some(1));
        let index =
            |text: &str| index_in(&HeaderMap::from_iter([("x-consul-index".parse().unwrap(), text.parse().unwrap())]));
        assert_eq!((index("7"), index("0"), index("-1"), index("x")), (Some(7), None, None, None));
    }

    #[test]
    fn values_are_base64_and_keys_have_a_slash() {
        let body = r#"[{"Key":"web/a","Value":"MQ=="},{"Key":"web/b","Value":null},{"Key":"web/","Value":null}]"#;
        let values = pairs(&Selector::below("/web"), body).unwrap();
        assert_eq!(values, Map::from([("/web/a".into(), "1".into()), ("/web/b".into(), "".into())]));
    }
}
