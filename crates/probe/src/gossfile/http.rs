//! The request that an `http` resource makes.

use std::time::Duration;

use ureq::http::uri::Scheme;
use ureq::http::{HeaderName, HeaderValue, Method, Uri};

use super::attributes::Attributes;
use super::error::Fault;

/// goss' default, in `resource/http.go`.
const TIMEOUT: Duration = Duration::from_millis(5_000);

/// A request over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRequest {
    /// An absolute address, `http` or `https`.
    pub url: Uri,
    /// `GET` unless the gossfile says otherwise.
    pub method: Method,
    /// Sent with the request, in order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Sent with the request.
    pub body: Option<String>,
    /// User name and password of basic authentication.
    pub login: Option<(String, String)>,
    /// When to give up, the answer's body included.
    pub timeout: Duration,
    /// Accept any certificate.
    pub allow_insecure: bool,
    /// Report a redirect instead of following it.
    pub no_follow_redirects: bool,
    /// PEM file of the only authorities to trust.
    pub ca_file: Option<String>,
    /// PEM files of the client's certificate chain and of its key.
    pub client_cert: Option<(String, String)>,
    /// Address of a proxy.
    pub proxy: Option<String>,
}

impl HttpRequest {
    pub(super) fn parse(url: &str, attributes: &Attributes) -> Result<Self, Fault> {
        let method = attributes.text("method")?.unwrap_or_else(|| "GET".to_owned());
        let login = match (attributes.text("username")?, attributes.text("password")?) {
            (None, None) => None,
            (user, password) => Some((user.unwrap_or_default(), password.unwrap_or_default())),
        };
        let client_cert = match (attributes.text("cert-file")?, attributes.text("key-file")?) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                let why = "`cert-file` and `key-file` go together";
                return Err(attributes.fault("cert-file", why, "add the one that is missing"));
            }
        };
        Ok(Self {
            url: address(url, attributes)?,
            method: method.to_ascii_uppercase().parse().map_err(|_| {
                attributes.fault("method", &format!("`{method}` is not a method"), "write GET, POST, PUT or the like")
            })?,
            headers: headers(attributes)?,
            body: attributes.text("request-body")?,
            login,
            timeout: attributes.milliseconds("timeout", TIMEOUT)?,
            allow_insecure: attributes.truth("allow-insecure")?,
            no_follow_redirects: attributes.truth("no-follow-redirects")?,
            ca_file: attributes.text("ca-file")?,
            client_cert,
            proxy: attributes.text("proxy")?,
        })
    }
}

fn address(url: &str, attributes: &Attributes) -> Result<Uri, Fault> {
    let parsed: Option<Uri> = url.parse().ok();
    let is_web =
        |uri: &Uri| uri.host().is_some() && uri.scheme().is_some_and(|it| *it == Scheme::HTTP || *it == Scheme::HTTPS);
    parsed.filter(is_web).ok_or_else(|| {
        attributes.fault(
            "url",
            &format!("`{url}` is not a web address"),
            "write it in full, as in http://localhost:8080/health",
        )
    })
}

fn headers(attributes: &Attributes) -> Result<Vec<(HeaderName, HeaderValue)>, Fault> {
    attributes
        .texts("request-headers")?
        .iter()
        .map(|line| {
            header(line).ok_or_else(|| {
                attributes.fault("request-headers", &format!("`{line}` is not a header"), "write `Name: value`")
            })
        })
        .collect()
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}
