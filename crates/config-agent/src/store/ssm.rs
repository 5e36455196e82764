//! AWS Systems Manager's Parameter Store, which has no way to tell of a change: it is asked at intervals.
//! <https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParametersByPath.html>

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use reqwest::Client;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc::Sender;

use super::aws::{Credentials, region, sign};
use super::{ANSWER, in_time};
use crate::http;
use crate::settings::SsmSettings;
use crate::values::{Map, Selector, Update, Values};

/// How many parameters one question may name, and one answer has.
const PAGE: usize = 10;

/// All that is selected.
pub async fn read(settings: &SsmSettings, selectors: &[Selector]) -> Result<Values> {
    let mut ssm = Ssm::connect(settings).await?;
    let (values, revision) = ssm.list(selectors).await?;
    Ok(Values::new(values, revision))
}

/// Lists at intervals. A refusal, such as for asking too often, is an error: whoever calls waits before it asks again.
pub async fn follow(settings: &SsmSettings, selectors: &[Selector], updates: &Sender<Update>) -> Result<Infallible> {
    let mut ssm = Ssm::connect(settings).await?;
    loop {
        let (values, revision) = ssm.list(selectors).await?;
        updates.send(Update::Listing { values, revision }).await?;
        // At random, so that a fleet does not ask at once.
        tokio::time::sleep(Duration::from(settings.interval).mul_f64(0.9 + fastrand::f64() * 0.2)).await;
    }
}

struct Ssm<'a> {
    settings: &'a SsmSettings,
    client: Client,
    region: String,
    credentials: Credentials,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    parameters: Vec<Parameter>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    name: String,
    value: String,
    /// Seconds since 1970.
    last_modified_date: f64,
}

impl<'a> Ssm<'a> {
    async fn connect(settings: &'a SsmSettings) -> Result<Self> {
        let region = match &settings.region {
            Some(region) => region.clone(),
            None => in_time("finding the region", region(&settings.imds)).await?,
        };
        let client = http::client(settings.tls.as_ref())?;
        Ok(Self { settings, client, region, credentials: Credentials::find(settings).await? })
    }

    async fn list(&mut self, selectors: &[Selector]) -> Result<(Map, String)> {
        if self.credentials.expire_soon() {
            self.credentials = Credentials::find(self.settings).await?;
        }
        let mut parameters = Vec::new();
        let (keys, prefixes): (Vec<_>, Vec<_>) = selectors.iter().partition(|it| matches!(it, Selector::Key(_)));
        for some in keys.chunks(PAGE) {
            let names: Vec<_> = some.iter().map(|selector| selector.text()).collect();
            let page = self.ask("GetParameters", &json!({ "Names": names, "WithDecryption": true })).await?;
            parameters.extend(page.parameters);
        }
        for prefix in prefixes {
            let path = prefix.text().trim_end_matches('/');
            let path = if path.is_empty() { "/" } else { path };
            let mut next: Option<String> = None;
            loop {
                let mut question =
                    json!({ "Path": path, "Recursive": true, "WithDecryption": true, "MaxResults": PAGE });
                if let Some(token) = next {
                    question["NextToken"] = token.into();
                }
                let page = self.ask("GetParametersByPath", &question).await?;
                parameters.extend(page.parameters);
                next = page.next_token.filter(|token| !token.is_empty());
                if next.is_none() {
                    break;
                }
            }
        }
        let latest = parameters.iter().map(|parameter| parameter.last_modified_date).fold(0.0, f64::max);
        let latest = Duration::try_from_secs_f64(latest).context("reading when a parameter was changed")?;
        let revision = Timestamp::try_from(SystemTime::UNIX_EPOCH + latest)?.to_string();
        Ok((parameters.into_iter().map(|it| (it.name.into(), it.value.as_str().into())).collect(), revision))
    }

    async fn ask(&self, action: &str, question: &Value) -> Result<Page> {
        let endpoint = match &self.settings.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => format!("https://ssm.{}.amazonaws.com", self.region),
        };
        let target = format!("AmazonSSM.{action}");
        let body = question.to_string();
        let host = endpoint.split_once("://").map_or(endpoint.as_str(), |(_, host)| host);
        let headers = [("content-type", "application/x-amz-json-1.1"), ("host", host), ("x-amz-target", &target)];
        let signed = sign(&self.credentials, &self.region, "ssm", &headers, &body, Timestamp::now());
        let mut request = self.client.post(format!("{endpoint}/")).timeout(ANSWER).body(body);
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        for (name, value) in signed {
            request = request.header(name, value);
        }
        let response = request.send().await.map_err(|error| anyhow::anyhow!(http::in_full(&error)))?;
        let status = response.status();
        let text = response.text().await.with_context(|| format!("reading the answer to {action}"))?;
        if !status.is_success() {
            bail!("{action}: {status}: {}", text.trim());
        }
        serde_json::from_str(&text).with_context(|| format!("reading the answer to {action}"))
    }
}
