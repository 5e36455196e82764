//! A metadata service, version 2, that a test scripts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, put};

use super::rig::serve;

/// What it has, by path below `/latest/`.
#[derive(Clone, Default)]
pub struct Imds {
    items: Arc<Mutex<BTreeMap<String, String>>>,
    /// How many requests for a token are still refused, as while the machine boots.
    refusals: Arc<Mutex<u32>>,
}

impl Imds {
    /// With these tags.
    pub fn with_tags(tags: &[(&str, &str)]) -> Self {
        let imds = Self::default();
        for (name, value) in tags {
            imds.put(&format!("meta-data/tags/instance/{name}"), value);
        }
        imds
    }

    pub fn put(&self, path: &str, value: &str) {
        self.items.lock().unwrap().insert(path.to_owned(), value.to_owned());
    }

    pub fn refuse(&self, times: u32) {
        *self.refusals.lock().unwrap() = times;
    }

    /// Serves it. Its URL.
    pub fn serve(&self) -> String {
        let router = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/{*path}", get(item))
            .with_state(self.clone());
        format!("http://{}", serve(router))
    }
}

async fn token(State(imds): State<Imds>, headers: HeaderMap) -> Result<&'static str, StatusCode> {
    let mut refusals = imds.refusals.lock().unwrap();
    if *refusals > 0 {
        *refusals -= 1;
        return Err(StatusCode::SERVICE_UNAVAILABLE);
    }
    let ttl = headers.get("X-aws-ec2-metadata-token-ttl-seconds").and_then(|ttl| ttl.to_str().ok()?.parse().ok());
    match ttl {
        Some(1..=21600) => Ok("the token"),
        _ => Err(StatusCode::BAD_REQUEST),
    }
}

async fn item(State(imds): State<Imds>, Path(path): Path<String>, headers: HeaderMap) -> Result<String, StatusCode> {
    if headers.get("X-aws-ec2-metadata-token").is_none_or(|token| token != "the token") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    imds.items.lock().unwrap().get(&path).cloned().ok_or(StatusCode::NOT_FOUND)
}
