//! The HTTP client of the metadata service, Consul and SSM.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{Certificate, Client, ClientBuilder, Identity};

use crate::settings::Tls;

/// How long a connection may take to come about.
pub const CONNECT: Duration = Duration::from_secs(5);

/// A peer that vanished without a goodbye is noticed by the kernel, without waking this process: after a connection was
/// silent for so long,
pub const SILENCE: Duration = Duration::from_secs(30);

/// when it is asked so far apart
pub const QUESTION: Duration = Duration::from_secs(10);

/// so often, and does not answer.
pub const QUESTIONS: u32 = 3;

/// A client for services that are next to the machine: no proxy is asked.
pub fn client(tls: Option<&Tls>) -> Result<Client> {
    let mut builder = Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT)
        .tcp_keepalive(SILENCE)
        .tcp_keepalive_interval(QUESTION)
        .tcp_keepalive_retries(QUESTIONS);
    if let Some(tls) = tls {
        builder = with_tls(builder, tls)?;
    }
    builder.build().context("preparing the HTTP client")
}

/// What `error` and all its causes say, for reqwest's own text stops at "error sending request".
pub fn in_full(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

fn with_tls(mut builder: ClientBuilder, tls: &Tls) -> Result<ClientBuilder> {
    if let Some(ca) = &tls.ca {
        let bundle = Certificate::from_pem_bundle(&read(ca)?).with_context(|| format!("reading {}", ca.display()))?;
        builder = bundle.into_iter().fold(builder.tls_built_in_root_certs(false), ClientBuilder::add_root_certificate);
    }
    if let Some((cert, key)) = tls.identity() {
        let pem = [read(key)?, read(cert)?].concat();
        let identity = Identity::from_pem(&pem)
            .with_context(|| format!("reading the certificate {} and the key {}", cert.display(), key.display()))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}
