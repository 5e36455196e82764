//! Single instances.

use std::time::Duration;

use provider::{InstanceState, Instances, LaunchSpec};

use crate::fixture::{Fixture, IMAGE, until, until_async};

fn spec(image: &str) -> LaunchSpec {
    LaunchSpec {
        image: image.to_owned(),
        purpose: "test".to_owned(),
        tags: [("component".to_owned(), "hello".to_owned())].into(),
        ..LaunchSpec::default()
    }
}

#[tokio::test]
async fn an_instance_boots_and_leaves_nothing() {
    let fixture = Fixture::new();
    let local = &fixture.local;
    let launched = local.launch(&spec(IMAGE)).await.unwrap();
    let id = launched.id.as_str();
    until_async("the system is up", async || {
        local.console(id).await.is_ok_and(|console| console.contains("Reached target multi-user.target"))
    })
    .await;
    let seen = local.describe(id).await.unwrap().unwrap();
    assert_eq!((seen.state, seen.starts, seen.address), (InstanceState::Running, 1, launched.address));
    assert_eq!(local.instances().await.unwrap().len(), 1);

    local.terminate(id).await.unwrap();
    assert!(local.describe(id).await.unwrap().is_none());
    local.terminate(id).await.unwrap();
    fixture.nothing_is_left();
}

#[tokio::test]
async fn an_instance_learns_who_it_is_and_gets_what_is_offered() {
    let fixture = Fixture::new();
    let local = &fixture.local;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "foo").unwrap();
    let offer = local.offer(file.path(), None, Duration::ZERO).await.unwrap();
    assert_eq!(offer.url, format!("http://169.254.169.254/kiln/objects/{}", offer.digest));
    let id = local.launch(&spec(IMAGE)).await.unwrap().id;
    until_async("it has asked", async || local.console(&id).await.is_ok_and(|console| console.contains("told all")))
        .await;
    let console = local.console(&id).await.unwrap();
    for line in ["untold:  401", &format!("id: {id} 200"), "tag: hello 200", "object: foo 200"] {
        assert!(console.contains(line), "{line} is not in:\n{console}");
    }
    local.terminate(&id).await.unwrap();
    fixture.nothing_is_left();
}

#[tokio::test]
async fn an_instance_that_ends_is_started_again() {
    let fixture = Fixture::new();
    let local = &fixture.local;
    let id = local.launch(&spec(IMAGE)).await.unwrap().id;
    let files = fixture.place.instance(&id);
    until("it runs", || fixture.place.runs(&files));
    let first = fixture.process(&files);
    rustix::process::kill_process(rustix::process::Pid::from_raw(first.pid).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    until("it runs again", || fixture.place.runs(&files) && fixture.process(&files) != first);
    assert_eq!(local.describe(&id).await.unwrap().unwrap().starts, 2);
    local.terminate(&id).await.unwrap();
    fixture.nothing_is_left();
}

#[tokio::test]
async fn an_image_that_is_not_there_is_named_and_nothing_is_made() {
    let fixture = Fixture::new();
    let error = fixture.local.launch(&spec("img-none")).await.unwrap_err();
    assert_eq!(format!("{error:#}"), "there is no image img-none: `imager images` lists those that there are");
    assert!(fixture.local.instances().await.unwrap().is_empty());
    fixture.nothing_is_left();
}
