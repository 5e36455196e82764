//! What locald answers to its clients; see `provider::local::api`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Error;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use cli::process::ProcessId;
use provider::local::api::{API_VERSION, Failure, Hello, Launch, Owner};
use provider::{GroupSpec, ServiceSpec};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::instance::new_id;
use crate::locald::Locald;

/// What the clients do, as far as it decides when locald ends.
pub struct Clients {
    answering: AtomicUsize,
    last: watch::Sender<Instant>,
    /// Whether one asked to hand over.
    pub hand_over: watch::Sender<bool>,
}

impl Clients {
    /// None yet.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            answering: AtomicUsize::new(0),
            last: watch::Sender::new(Instant::now()),
            hand_over: watch::Sender::new(false),
        })
    }

    /// Whether none has asked for anything for as long as `duration`.
    pub fn quiet_for(&self, duration: Duration) -> bool {
        self.answering.load(Ordering::SeqCst) == 0 && self.last.borrow().elapsed() >= duration
    }
}

/// The routes of `provider::local::api`.
pub fn router(locald: Arc<Locald>, clients: Arc<Clients>) -> Router {
    let hand_over = clients.clone();
    let hand_over = move || async move {
        hand_over.hand_over.send_replace(true);
        Json(())
    };
    Router::new()
        .route("/hello", get(hello))
        .route("/handover", post(hand_over))
        .route("/repair", post(repair))
        .route("/instances", post(launch))
        .route("/instances/{id}", delete(terminate))
        .route("/instances/{id}/diagnosis", get(diagnose))
        .route("/services/{service}", put(create_service).delete(destroy_service))
        .route("/services/{service}/weights", put(set_weights))
        .route("/services/{service}/groups/{group}", put(create_group).get(members).delete(destroy_group))
        .with_state(locald)
        .layer(middleware::from_fn_with_state(clients, counted))
}

async fn counted(State(clients): State<Arc<Clients>>, request: Request, next: Next) -> Response {
    /// Also a request whose client goes away is over.
    struct Answering(Arc<Clients>);
    impl Drop for Answering {
        fn drop(&mut self) {
            self.0.answering.fetch_sub(1, Ordering::SeqCst);
            self.0.last.send_replace(Instant::now());
        }
    }
    clients.answering.fetch_add(1, Ordering::SeqCst);
    let _answering = Answering(clients);
    next.run(request).await
}

/// Runs to its end although the client may go away: half a change is worse than one too many.
async fn answer<T: serde::Serialize + Send + 'static>(
    work: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> Response {
    let done = tokio::spawn(work).await.unwrap_or_else(|error| Err(Error::new(error).context("locald")));
    match done {
        Ok(value) => Json(value).into_response(),
        Err(error) => {
            let failure = Failure { error: format!("{error:#}") };
            (StatusCode::INTERNAL_SERVER_ERROR, Json(failure)).into_response()
        }
    }
}

type Shared = State<Arc<Locald>>;

async fn hello() -> Json<Hello> {
    Json(Hello { api: API_VERSION, process: ProcessId::current() })
}

async fn repair(State(locald): Shared) -> Response {
    answer(async move { locald.repair().await }).await
}

async fn launch(State(locald): Shared, Json(launch): Json<Launch>) -> Response {
    answer(async move {
        let instance = locald.launch(&new_id(), &launch.spec, Owner::Process(launch.owner)).await?;
        Ok(instance.record().instance)
    })
    .await
}

async fn terminate(State(locald): Shared, Path(id): Path<String>) -> Response {
    answer(async move { locald.terminate(&id).await }).await
}

async fn diagnose(State(locald): Shared, Path(id): Path<String>) -> Response {
    answer(async move { tokio::task::spawn_blocking(move || locald.diagnose(&id)).await? }).await
}

async fn create_service(State(locald): Shared, Json(spec): Json<ServiceSpec>) -> Response {
    answer(async move { locald.create_service(&spec).await }).await
}

async fn destroy_service(State(locald): Shared, Path(service): Path<String>) -> Response {
    answer(async move { locald.destroy_service(&service).await }).await
}

async fn set_weights(
    State(locald): Shared,
    Path(service): Path<String>,
    Json(weights): Json<BTreeMap<String, u8>>,
) -> Response {
    answer(async move { locald.set_weights(&service, &weights).await }).await
}

async fn create_group(State(locald): Shared, Json(spec): Json<GroupSpec>) -> Response {
    answer(async move { locald.create_group(&spec).await }).await
}

async fn members(State(locald): Shared, Path((service, group)): Path<(String, String)>) -> Response {
    answer(async move { locald.members(&service, &group).await }).await
}

async fn destroy_group(State(locald): Shared, Path((service, group)): Path<(String, String)>) -> Response {
    answer(async move { locald.destroy_group(&service, &group).await }).await
}
