//! The instance metadata service, version 2.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html>

use std::cell::RefCell;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use reqwest::{Client, RequestBuilder, StatusCode};
use thiserror::Error;

use crate::http;

/// Where instances find it.
pub const ADDRESS: &str = "http://169.254.169.254";

/// Seconds that a token is good for: longer than anything here asks. The service takes 1 to 21600.
const TTL: &str = "300";

/// How long one answer may take; the service is on the same host.
const ANSWER: Duration = Duration::from_secs(2);

/// A metadata service that gave a token.
#[derive(Debug)]
pub struct Imds {
    base: String,
    client: Client,
    token: String,
    deadline: Duration,
}

/// It did not answer, or not in its own way.
#[derive(Debug, Error)]
#[error("the metadata service at {base} {why}")]
pub struct ImdsError {
    base: String,
    why: String,
}

/// Whether asking again may help.
enum Refusal {
    ForNow(String),
    ForGood(String),
}

impl Imds {
    /// Asks for a token, again and again until `deadline` has passed: at boot the network may come later than this.
    pub async fn connect(base: &str, deadline: Duration) -> Result<Self, ImdsError> {
        let base = base.trim_end_matches('/').to_owned();
        let failed = |why| ImdsError { base: base.clone(), why };
        let client = http::client(None).map_err(|error| failed(format!("cannot be asked: {error:#}")))?;
        let ask = || client.put(format!("{base}/latest/api/token")).header("X-aws-ec2-metadata-token-ttl-seconds", TTL);
        match insistently(deadline, ask).await.map_err(failed)? {
            Some(token) => Ok(Self { base, client, token, deadline }),
            None => Err(failed("has no /latest/api/token: it is no IMDSv2".to_owned())),
        }
    }

    /// What is at `path`, such as `meta-data/placement/region`; `None` if there is nothing.
    pub async fn get(&self, path: &str) -> Result<Option<String>, ImdsError> {
        let url = format!("{}/latest/{path}", self.base);
        let ask = || self.client.get(&url).header("X-aws-ec2-metadata-token", &self.token);
        insistently(self.deadline, ask).await.map_err(|why| ImdsError { base: self.base.clone(), why })
    }
}

async fn insistently(deadline: Duration, ask: impl Fn() -> RequestBuilder) -> Result<Option<String>, String> {
    let last = RefCell::new("gave no answer".to_owned());
    let backoff = ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(3))
        .without_max_times()
        .with_jitter();
    let asking = (|| answer(ask()))
        .retry(backoff)
        .when(|refusal| matches!(refusal, Refusal::ForNow(_)))
        .notify(|refusal, _| refusal.why().clone_into(&mut last.borrow_mut()));
    match tokio::time::timeout(deadline, asking).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(refusal)) => Err(refusal.why().to_owned()),
        Err(_) => Err(format!("{}, and was asked for {deadline:?}", last.borrow())),
    }
}

impl Refusal {
    fn why(&self) -> &str {
        let (Self::ForNow(why) | Self::ForGood(why)) = self;
        why
    }
}

async fn answer(request: RequestBuilder) -> Result<Option<String>, Refusal> {
    let unreachable = |error: reqwest::Error| Refusal::ForNow(format!("cannot be reached ({})", http::in_full(&error)));
    let response = request.timeout(ANSWER).send().await.map_err(unreachable)?;
    match response.status() {
        StatusCode::OK => response.text().await.map(Some).map_err(unreachable),
        StatusCode::NOT_FOUND => Ok(None),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(Refusal::ForNow(format!("answers {status}")))
        }
        status => Err(Refusal::ForGood(format!("answers {status}"))),
    }
}
