//! Requests over HTTP.

use std::fs;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use ureq::http::header::AUTHORIZATION;
use ureq::http::{HeaderMap, Request};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::transport::DefaultConnector;
use ureq::{Agent, Proxy};

use super::resolve::FilesThenDns;
use super::{Found, unknown};
use crate::gossfile::HttpRequest;

/// The most that is read of a body.
const BODY_LIMIT: u64 = 8 << 20;

/// Where Debian and Red Hat keep the authorities that the machine trusts.
const SYSTEM_BUNDLES: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

pub(super) struct Response {
    status: u16,
    headers: String,
    /// A body that breaks off does not undo the status.
    body: Result<String, String>,
}

impl Response {
    pub(super) fn property(&self, property: &str) -> Result<Found, String> {
        Ok(match property {
            "status" => self.status.into(),
            "headers" => self.headers.as_str().into(),
            "body" => self.body.as_ref()?.as_str().into(),
            _ => return Err(unknown(property)),
        })
    }
}

/// The body is read only if it is `wanted`: some never end.
pub(super) fn fetch(request: &HttpRequest, wanted: bool) -> Result<Response, String> {
    let agent = agent(request)?;
    let mut outgoing = Request::builder().method(request.method.clone()).uri(request.url.clone());
    for (name, value) in &request.headers {
        outgoing = outgoing.header(name, value);
    }
    if let Some((user, password)) = &request.login {
        outgoing =
            outgoing.header(AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}"))));
    }
    let answer = match &request.body {
        Some(body) => outgoing.body(body.as_str()).map_err(ureq::Error::from).and_then(|it| agent.run(it)),
        None => outgoing.body(()).map_err(ureq::Error::from).and_then(|it| agent.run(it)),
    };
    let mut answer = answer.map_err(|error| explain(&error, request))?;
    let body = if wanted { answer.body_mut().with_config().limit(BODY_LIMIT).read_to_vec() } else { Ok(Vec::new()) };
    Ok(Response {
        status: answer.status().as_u16(),
        headers: header_lines(answer.headers()),
        body: body
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| format!("cannot read the body: {error}")),
    })
}

fn explain(error: &ureq::Error, request: &HttpRequest) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} ms", request.timeout.as_millis()),
        ureq::Error::Io(cause) => format!("no answer from {}: {cause}", request.url),
        ureq::Error::Other(cause) => cause.to_string(),
        other => other.to_string(),
    }
}

fn agent(request: &HttpRequest) -> Result<Agent, String> {
    let mut tls = TlsConfig::builder().disable_verification(request.allow_insecure);
    if let Some(roots) = roots(request.ca_file.as_deref())? {
        tls = tls.root_certs(roots);
    }
    if let Some((cert, key)) = &request.client_cert {
        let key_pem = read(key)?;
        let key = PrivateKey::from_pem(&key_pem).map_err(|error| format!("{key}: {error}"))?;
        tls = tls.client_cert(Some(ClientCert::new_with_certs(&certificates(cert)?, key)));
    }
    let mut config = Agent::config_builder()
        .http_status_as_error(false)
        .allow_non_standard_methods(true)
        .timeout_global(Some(request.timeout))
        .tls_config(tls.build())
        .user_agent(concat!("probe/", env!("CARGO_PKG_VERSION")));
    if request.no_follow_redirects {
        config = config.max_redirects(0).max_redirects_will_error(false);
    }
    if let Some(address) = &request.proxy {
        config = config.proxy(Some(Proxy::new(address).map_err(|error| format!("proxy {address}: {error}"))?));
    }
    Ok(Agent::with_parts(config.build(), DefaultConnector::default(), FilesThenDns))
}

/// The authorities to trust: those of the gossfile, else those that the machine's
/// own programs trust, else (`None`) Mozilla's, which are built in.
fn roots(ca_file: Option<&str>) -> Result<Option<RootCerts>, String> {
    let certificates = match ca_file {
        Some(path) => certificates(path)?,
        None => match SYSTEM_BUNDLES.iter().find_map(|path| certificates(path).ok()) {
            Some(bundle) => bundle,
            None => return Ok(None),
        },
    };
    Ok(Some(RootCerts::Specific(Arc::new(certificates))))
}

fn certificates(path: &str) -> Result<Vec<Certificate<'static>>, String> {
    let pem = read(path)?;
    let items: Result<Vec<PemItem>, _> = parse_pem(&pem).collect();
    let certificates: Vec<_> = items
        .map_err(|error| format!("{path}: {error}"))?
        .into_iter()
        .filter_map(|item| if let PemItem::Certificate(certificate) = item { Some(certificate) } else { None })
        .collect();
    if certificates.is_empty() { Err(format!("{path} has no certificate in PEM format")) } else { Ok(certificates) }
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))
}

/// `Content-Type: text/html`, a line each: gossfiles are written for Go's client,
/// which spells names so.
fn header_lines(headers: &HeaderMap) -> String {
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{}: {}", canonical(name.as_str()), String::from_utf8_lossy(value.as_bytes())))
        .collect();
    lines.sort();
    lines.join("\n")
}

fn canonical(name: &str) -> String {
    let mut at_start = true;
    name.chars()
        .map(|letter| {
            let cased = if at_start { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
            at_start = letter == '-';
            cased
        })
        .collect()
}

#[cfg(test)]
mod tests;
