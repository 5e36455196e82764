//! Services, their groups and their traffic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use provider::{Fleets, GroupSpec, MemberHealth, ServiceSpec};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, IMAGE, until_async};

fn service(listen: Option<u16>) -> ServiceSpec {
    ServiceSpec {
        name: "hello".to_owned(),
        port: 80,
        health: "/".to_owned(),
        dns: "hello.kiln.test".to_owned(),
        listen,
        aws: Default::default(),
    }
}

fn group(name: &str) -> GroupSpec {
    GroupSpec {
        service: "hello".to_owned(),
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        size: 2,
        initial: None,
        tags: [].into(),
        aws: Default::default(),
    }
}

async fn until_healthy(fixture: &Fixture, group: &str) {
    until_async("the group is healthy", async || {
        let members = fixture.local.members("hello", group).await.unwrap();
        members.len() == 2 && members.iter().all(|member| member.health == MemberHealth::Healthy)
    })
    .await;
}

async fn open_requests(fixture: &Fixture, group: &str) -> u64 {
    let members = fixture.local.members("hello", group).await.unwrap();
    members.iter().filter_map(|member| member.open_requests).sum()
}

/// Requests without a pause until it is told to stop: how many, and what went wrong.
async fn load(url: String, stop: Arc<AtomicBool>, asked: Arc<AtomicU64>) -> Vec<String> {
    let client = reqwest::Client::new();
    let mut failures = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        match client.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => failures.push(answer.status().to_string()),
            Err(error) => failures.push(format!("{error:?}")),
        }
        asked.fetch_add(1, Ordering::SeqCst);
    }
    failures
}

#[tokio::test]
async fn a_group_replaces_another_without_a_failed_request_although_locald_is_killed() {
    let fixture = Fixture::new();
    let local = &fixture.local;
    let made = local.create_service(&service(None)).await.unwrap();
    assert_eq!(local.create_service(&service(None)).await.unwrap().spec, made.spec);
    local.create_group(&group("hello-v000")).await.unwrap();
    until_healthy(&fixture, "hello-v000").await;
    local.set_weights("hello", &[("hello-v000".to_owned(), 100)].into()).await.unwrap();

    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let load = tokio::spawn(load(made.url.clone(), stop.clone(), asked.clone()));
    local.create_group(&group("hello-v001")).await.unwrap();
    until_healthy(&fixture, "hello-v001").await;

    let locald = fixture.process(&fixture.place.locald());
    kill_process(Pid::from_raw(locald.pid).unwrap(), Signal::KILL).unwrap();
    until_async("locald is gone", async || !locald.is_alive()).await;
    assert!(!local.service("hello").await.unwrap().unwrap().running);
    let before = asked.load(Ordering::SeqCst);
    until_async("traffic goes on without it", async || asked.load(Ordering::SeqCst) > before + 10).await;

    local.repair().await.unwrap();
    assert!(local.service("hello").await.unwrap().unwrap().running);
    let members = local.members("hello", "hello-v000").await.unwrap();
    assert!(members.iter().all(|member| member.starts == 1 && member.weight == 256), "{members:?}");
    let refused = local.destroy_group("hello", "hello-v000").await.unwrap_err().to_string();
    assert!(refused.contains("takes 100 percent of the traffic"), "{refused}");
    let weights = [("hello-v000".to_owned(), 0), ("hello-v001".to_owned(), 100)];
    local.set_weights("hello", &weights.into()).await.unwrap();
    until_async("the old group has answered", async || open_requests(&fixture, "hello-v000").await == 0).await;
    assert_eq!(local.destroy_group("hello", "hello-v000").await.unwrap(), Some(0));
    let before = asked.load(Ordering::SeqCst);
    until_async("the new group answers", async || asked.load(Ordering::SeqCst) > before + 10).await;

    stop.store(true, Ordering::SeqCst);
    assert_eq!(load.await.unwrap(), Vec::<String>::new());
    local.destroy_service("hello").await.unwrap();
    local.destroy_service("hello").await.unwrap();
    assert!(local.services().await.unwrap().is_empty());
    fixture.nothing_is_left();
}

#[tokio::test]
async fn a_request_without_an_end_does_not_keep_its_group() {
    let fixture = Fixture::new();
    let local = &fixture.local;
    let url = local.create_service(&service(None)).await.unwrap().url;
    local.create_group(&group("hello-v000")).await.unwrap();
    until_healthy(&fixture, "hello-v000").await;
    local.set_weights("hello", &[("hello-v000".to_owned(), 100)].into()).await.unwrap();
    for member in local.members("hello", "hello-v000").await.unwrap() {
        fixture.freeze(&member.instance);
    }
    // The balancer asks nobody else for an answer to a POST.
    let asked = tokio::spawn(reqwest::Client::new().post(url).body("a question").send());
    until_async("it is being answered", async || open_requests(&fixture, "hello-v000").await == 1).await;
    local.set_weights("hello", &[("hello-v000".to_owned(), 0)].into()).await.unwrap();
    assert_eq!(local.destroy_group("hello", "hello-v000").await.unwrap(), Some(1));
    let answer = asked.await.unwrap();
    assert!(answer.as_ref().map_or(true, |answer| answer.status().is_server_error()), "{answer:?}");
    assert!(local.service("hello").await.unwrap().unwrap().groups.is_empty());
    local.destroy_service("hello").await.unwrap();
    fixture.nothing_is_left();
}

#[tokio::test]
async fn a_port_in_use_is_said_and_nothing_is_made() {
    let fixture = Fixture::new();
    let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = other.local_addr().unwrap().port();
    let error = fixture.local.create_service(&service(Some(port))).await.unwrap_err().to_string();
    assert!(error.contains(&format!("port {port}")) && error.contains("`listen = `"), "{error}");
    assert!(fixture.local.services().await.unwrap().is_empty());
    fixture.nothing_is_left();
}
