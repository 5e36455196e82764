//! A server that follows the rules of Consul's index, and breaks them where Consul may.
//!
//! <https://developer.hashicorp.com/consul/api-docs/features/blocking>

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::json;
use tokio::sync::watch;

use super::certificates::Certificates;
use super::rig::{Agent, Rig, serve};

/// The store, and what it was asked.
#[derive(Clone)]
struct Consul {
    state: watch::Sender<Kv>,
    asked: Arc<Mutex<Vec<Option<u64>>>>,
    token: Option<&'static str>,
}

#[derive(Clone, Default)]
struct Kv {
    values: BTreeMap<String, String>,
    index: u64,
    /// What every request is answered, as without a leader.
    failure: Option<&'static str>,
    no_known_leader: bool,
    /// Grows when blocked queries are to return although nothing has changed.
    spurious: u64,
}

impl Consul {
    fn new() -> Self {
        Self { state: watch::Sender::new(Kv { index: 10, ..Kv::default() }), asked: Arc::default(), token: None }
    }

    fn put(&self, key: &str, value: &str) {
        self.change(|kv| _ = kv.values.insert(key.to_owned(), value.to_owned()));
    }

    fn change(&self, change: impl FnOnce(&mut Kv)) {
        self.state.send_modify(|kv| {
            kv.index += 1;
            change(kv);
        });
    }

    fn serve(&self) -> std::net::SocketAddr {
        serve(Router::new().route("/v1/kv/{*key}", get(query)).with_state(self.clone()))
    }

    fn settings(&self) -> String {
        format!("[store.consul]\naddress = \"http://{}\"\nwait = \"2s\"\n", self.serve())
    }

    fn requests(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

async fn query(
    State(consul): State<Consul>,
    Path(key): Path<String>,
    Query(parameters): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    let index: Option<u64> = parameters.get("index").map(|index| index.parse().unwrap());
    consul.asked.lock().unwrap().push(index);
    if consul.token.is_some_and(|token| headers.get("X-Consul-Token").is_none_or(|given| given != token)) {
        return (StatusCode::FORBIDDEN, "Permission denied").into_response();
    }
    let mut state = consul.state.subscribe();
    if let Some(index) = index {
        let wait = parameters["wait"].strip_suffix("ms").unwrap().parse().unwrap();
        let spurious = state.borrow().spurious;
        // An index that is not the store's own returns at once, as one that went backwards does.
        let returns = |kv: &Kv| kv.index != index || kv.spurious != spurious || kv.failure.is_some();
        let _ = tokio::time::timeout(Duration::from_millis(wait), state.wait_for(returns)).await;
    }
    let kv = state.borrow_and_update().clone();
    if let Some(failure) = kv.failure {
        return (StatusCode::INTERNAL_SERVER_ERROR, failure).into_response();
    }
    let recurse = parameters.contains_key("recurse");
    let found = kv.values.iter().filter(|(own, _)| if recurse { own.starts_with(&key) } else { **own == key });
    let pairs: Vec<_> = found.map(|(key, value)| json!({"Key": key, "Value": BASE64.encode(value)})).collect();
    let headers =
        [("X-Consul-Index", kv.index.to_string()), ("X-Consul-KnownLeader", (!kv.no_known_leader).to_string())];
    if pairs.is_empty() {
        return (StatusCode::NOT_FOUND, headers).into_response();
    }
    (headers, json!(pairs).to_string()).into_response()
}

fn begin() -> (Rig, Consul, Agent) {
    let consul = Consul::new();
    let rig = Rig::with_store(&consul.settings());
    let template = "one={{ one }};{% for name, address in hosts.items() %}{{ name }}={{ address }};{% endfor %}";
    rig.keep("web", template, "", "one = \"/one\"\nhosts = { prefix = \"/hosts\" }");
    consul.put("one", "1");
    consul.put("hosts/a", "x");
    consul.put("hostname", "not one of them");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "one=1;a=x;");
    (rig, consul, agent)
}

#[test]
fn keys_and_prefixes_are_followed() {
    let (rig, consul, agent) = begin();
    consul.put("one", "2");
    agent.wait_for(&rig, "web", "one=2;a=x;");
    consul.put("hosts/b", "y");
    agent.wait_for(&rig, "web", "one=2;a=x;b=y;");
    consul.change(|kv| _ = kv.values.remove("hosts/a"));
    agent.wait_for(&rig, "web", "one=2;b=y;");
    consul.change(|kv| _ = kv.values.remove("one"));
    agent.wait_until_said("the store has no /one, which is required");
    assert_eq!(rig.out("web"), "one=2;b=y;");
}

#[test]
fn a_key_may_have_any_character() {
    let consul = Consul::new();
    let rig = Rig::with_store(&consul.settings());
    consul.put("a b/c?d#e%f", "1");
    rig.keep("web", "one={{ one }}", "", "one = \"/a b/c?d#e%f\"");
    assert_eq!(rig.run(&["once"]).code, Some(0));
    assert_eq!(rig.out("web"), "one=1");
}

#[test]
fn an_index_that_goes_backwards_is_begun_anew() {
    let (rig, consul, agent) = begin();
    // A restored store: the same keys, another count.
    consul.state.send_modify(|kv| {
        kv.index = 3;
        kv.values.insert("one".into(), "restored".into());
    });
    agent.wait_for(&rig, "web", "one=restored;a=x;");
    consul.put("one", "after");
    agent.wait_for(&rig, "web", "one=after;a=x;");
    // An index of 0 must not be sent back: such a query would never wait.
    consul.state.send_modify(|kv| {
        kv.index = 0;
        kv.values.insert("one".into(), "zero".into());
    });
    agent.wait_for(&rig, "web", "one=zero;a=x;");
    consul.put("one", "one");
    agent.wait_for(&rig, "web", "one=one;a=x;");
    assert!(consul.asked.lock().unwrap().iter().all(|index| *index != Some(0)));
}

#[test]
fn a_query_that_returns_is_no_change() {
    let (rig, consul, agent) = begin();
    let before = agent.status()["counters"]["replacements"].clone();
    let (requests, written) = (consul.requests(), agent.file("web")["since"].clone());
    for _ in 0..20 {
        consul.state.send_modify(|kv| kv.spurious += 1);
        // Another key's change: the index grows, the values are the same.
        consul.put("elsewhere", "x");
    }
    agent.wait("queries have returned", || consul.requests() > requests + 4);
    consul.put("one", "2");
    agent.wait_for(&rig, "web", "one=2;a=x;");
    let after = agent.status()["counters"]["replacements"].clone();
    assert_eq!(after.as_u64().unwrap(), before.as_u64().unwrap() + 1);
    assert_ne!(agent.file("web")["since"], written);
}

#[test]
fn no_leader_and_other_failures_leave_the_file() {
    let (rig, consul, mut agent) = begin();
    consul.change(|kv| kv.failure = Some("No cluster leader"));
    agent.wait_until_said("the store is lost, and the files stay as they are");
    agent.wait("the reason", || agent.status()["store"]["problem"].to_string().contains("No cluster leader"));
    consul.change(|kv| {
        kv.failure = None;
        kv.no_known_leader = true;
        // What a server without a leader says is not to be believed.
        kv.values.clear();
    });
    agent.wait("the reason", || agent.status()["store"]["problem"] == "the cluster has no leader");
    assert_eq!(rig.out("web"), "one=1;a=x;");
    consul.change(|kv| {
        kv.no_known_leader = false;
        kv.values = [("one", "3"), ("hosts/a", "x")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    });
    agent.wait_for(&rig, "web", "one=3;a=x;");
    assert!(agent.runs());
}

#[test]
fn queries_wait_and_do_not_spin() {
    let (_rig, consul, agent) = begin();
    agent.wait("both wait", || consul.requests() >= 4);
    // Two queries that wait for two seconds each, and nothing in between.
    let requests = consul.requests();
    std::thread::sleep(Duration::from_millis(1000));
    assert!(consul.requests() <= requests + 2, "{requests} and {} requests", consul.requests());
}

#[test]
fn a_token_from_a_file_and_certificates() {
    let consul = Consul { token: Some("the-token"), ..Consul::new() };
    consul.put("one", "1");
    let rig = Rig::with_store("");
    let certificates = Certificates::new(&rig);
    let address = certificates.serve_before(consul.serve());
    let token = rig.write_secret("token", "another\n");
    rig.settings(&format!(
        "[store.consul]\naddress = \"https://{address}\"\ntoken_file = \"{}\"\ntls = {}\n",
        token.display(),
        certificates.settings()
    ));
    rig.keep("web", "one={{ one }}", "", "one = \"/one\"");
    let agent = rig.start();
    agent.wait("the refusal", || agent.status()["store"]["problem"].to_string().contains("Permission denied"));
    rig.write_secret("token", "the-token\n");
    agent.wait_for(&rig, "web", "one=1");
    assert!(!agent.log().contains("the-token"));
}
