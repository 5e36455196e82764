//! The metadata service of the instances: version 2 of EC2's, and the objects that a command offers.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html>

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use provider::local::api::InstanceRecord;
use tokio::task::JoinHandle;
use tower_http::services::ServeFile;

use crate::become_instance::hostname;
use crate::locald::{Locald, lock};

const TOKEN: &str = "x-aws-ec2-metadata-token";
const TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";
/// The one place that there is.
const REGION: &str = "local-1";

/// Serves it on a socket in the fleet's network.
pub fn serve(locald: Arc<Locald>, listener: TcpListener) -> JoinHandle<()> {
    // The first part of a path is a version, such as `latest` or `2021-07-15`: all are the same here.
    let router = Router::new()
        .route("/{version}/api/token", put(token))
        .route("/{version}/user-data", get(user_data))
        .route("/{version}/meta-data", get(top))
        .route("/{version}/meta-data/", get(top))
        .route("/{version}/meta-data/{*path}", get(item))
        .route("/kiln/objects/{digest}", get(object))
        .with_state(locald);
    tokio::spawn(async move {
        let serving = async {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).await
        };
        if let Err(error) = serving.await {
            tracing::error!("metadata service: {error}");
        }
    })
}

type Peer = ConnectInfo<SocketAddr>;

async fn token(State(locald): State<Arc<Locald>>, peer: Peer, headers: HeaderMap) -> Response {
    // As on EC2: what a proxy forwards is not the instance's own request.
    if headers.contains_key("x-forwarded-for") {
        return StatusCode::FORBIDDEN.into_response();
    }
    let ttl = headers.get(TTL).and_then(|value| value.to_str().ok());
    match lock(&locald.tokens).give(address(peer), ttl, Instant::now()) {
        Some((token, seconds)) => ([(TTL, seconds.to_string())], token).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn user_data(State(locald): State<Arc<Locald>>, peer: Peer, headers: HeaderMap) -> Response {
    match asking(&locald, peer, &headers) {
        Ok(record) => record.user_data.map_or(StatusCode::NOT_FOUND.into_response(), IntoResponse::into_response),
        Err(refusal) => refusal.into_response(),
    }
}

async fn top(State(locald): State<Arc<Locald>>, peer: Peer, headers: HeaderMap) -> Response {
    found(&locald, peer, &headers, "")
}

async fn item(
    State(locald): State<Arc<Locald>>,
    Path((_, path)): Path<(String, String)>,
    peer: Peer,
    headers: HeaderMap,
) -> Response {
    found(&locald, peer, &headers, &path)
}

async fn object(State(locald): State<Arc<Locald>>, Path(digest): Path<String>, request: Request) -> Response {
    let Ok(digest) = provider::ObjectDigest::parse(&digest) else { return StatusCode::NOT_FOUND.into_response() };
    let objects = provider::local::Directory::new(locald.place.state().join("objects"));
    match ServeFile::new(objects.path(&digest)).try_call(request).await {
        Ok(answer) => answer.map(axum::body::Body::new).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn found(locald: &Locald, peer: Peer, headers: &HeaderMap, path: &str) -> Response {
    match asking(locald, peer, headers) {
        Ok(record) => match look_up(&items(&record), path) {
            Some(text) => text.into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        Err(refusal) => refusal.into_response(),
    }
}

fn asking(locald: &Locald, peer: Peer, headers: &HeaderMap) -> Result<InstanceRecord, StatusCode> {
    let address = address(peer);
    let token = headers.get(TOKEN).and_then(|value| value.to_str().ok());
    if !lock(&locald.tokens).allows(address, token, Instant::now()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    locald.instance_at(address).map(|instance| instance.record()).ok_or(StatusCode::NOT_FOUND)
}

fn address(ConnectInfo(peer): Peer) -> Ipv4Addr {
    match peer.ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}

fn items(record: &InstanceRecord) -> BTreeMap<String, String> {
    let instance = &record.instance;
    let address = record.address.to_string();
    let fixed = [
        ("ami-id", instance.image.clone()),
        ("hostname", hostname(record)),
        ("instance-id", instance.id.clone()),
        ("local-hostname", hostname(record)),
        ("local-ipv4", address),
        ("placement/availability-zone", format!("{REGION}a")),
        ("placement/region", REGION.to_owned()),
    ];
    let tags = instance.tags.iter().map(|(key, value)| (format!("tags/instance/{key}"), value.clone()));
    fixed.into_iter().map(|(path, value)| (path.to_owned(), value)).chain(tags).collect()
}

/// The value at `path`, or else what is below it, one a line, with a slash behind what has more below.
fn look_up(items: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let path = path.trim_end_matches('/');
    if let Some(value) = items.get(path) {
        return Some(value.clone());
    }
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let below = items.keys().filter_map(|key| key.strip_prefix(&prefix));
    let names: BTreeSet<_> = below.map(|rest| rest.split_inclusive('/').next().unwrap_or(rest)).collect();
    (!names.is_empty()).then(|| names.into_iter().collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_a_value_or_a_listing() {
        let items = ["instance-id", "placement/region", "tags/instance/a", "tags/instance/b"];
        let items = items.map(|key| (key.to_owned(), format!("<{key}>"))).into();
        assert_eq!(look_up(&items, "instance-id").unwrap(), "<instance-id>");
        assert_eq!(look_up(&items, "").unwrap(), "instance-id\nplacement/\ntags/");
        assert_eq!(look_up(&items, "tags/instance/").unwrap(), "a\nb");
        assert_eq!(look_up(&items, "tags").unwrap(), "instance/");
        assert_eq!(look_up(&items, "nothing"), None);
    }
}
