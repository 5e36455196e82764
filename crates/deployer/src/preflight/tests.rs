use jiff::Timestamp;
use manifest::{AwsFleet, IdentityKind, Stamp};

use super::*;

fn stamp(consumed: &str) -> Stamp {
    Stamp::now("0", Timestamp::UNIX_EPOCH, Identity::sha256(consumed))
}

fn image() -> Image {
    Image {
        stamp: stamp("volume"),
        identity: Identity::new(IdentityKind::LocalImage, "img-1"),
        digest: Identity::sha256("content"),
        name: "hello".to_owned(),
        size: 1,
        published: std::collections::BTreeMap::new(),
    }
}

fn verdict(passed: bool, digest: &str) -> Verdict {
    Verdict {
        stamp: Stamp { consumed: image().identity, ..stamp("image") },
        digest: Identity::sha256(digest),
        gossfile: Identity::sha256("gossfile"),
        passed,
        boot_millis: 1,
        checks: Vec::new(),
    }
}

fn carried(passed: bool, digest: &str) -> StoredVerdict {
    StoredVerdict { passed, digest: Identity::sha256(digest), ended: Timestamp::UNIX_EPOCH }
}

fn message(verdict: Option<&Verdict>, stored: Option<&StoredVerdict>) -> String {
    tested(&image(), verdict, stored).unwrap_err().to_string()
}

#[test]
fn an_image_that_passed_here_and_there_is_deployed() {
    assert_eq!(tested(&image(), Some(&verdict(true, "content")), Some(&carried(true, "content"))), Ok(()));
}

#[test]
fn every_reason_for_a_refusal_has_its_own_message() {
    let (good, stored) = (verdict(true, "content"), carried(true, "content"));
    assert!(message(None, Some(&stored)).contains("the manifest has no verdict"));
    assert!(message(Some(&good), None).contains("carries no verdict at its provider"));
    assert!(message(Some(&verdict(false, "content")), Some(&stored)).contains("failed its test, the manifest says"));
    let failed_there = message(Some(&good), Some(&carried(false, "content")));
    assert!(failed_there.contains("failed its test, the image's own record says"));
    assert!(message(Some(&verdict(true, "other")), Some(&stored)).contains("in the manifest, is for the content"));
    let other_there = message(Some(&good), Some(&carried(true, "other")));
    assert!(other_there.contains("in the image's own record, is for the content"));
    let mut elsewhere = good.clone();
    elsewhere.stamp.consumed = Identity::new(IdentityKind::AwsImage, "ami-1");
    assert!(
        message(Some(&elsewhere), Some(&stored)).contains("not been tested here: the manifest's verdict is on ami-1")
    );
    let mut stale = good;
    stale.stamp.stale = Some("the image a was replaced by b".to_owned());
    assert!(message(Some(&stale), Some(&stored)).contains("is stale: the image a was replaced by b"));
}

#[test]
fn an_image_that_is_gone_or_changed_is_bad_input() {
    assert!(same_image(&image(), None).unwrap_err().to_string().contains("no longer at the provider"));
    let changed = RegisteredImage {
        id: "img-1".to_owned(),
        name: "hello".to_owned(),
        digest: Identity::sha256("changed"),
        size: 1,
        virtualization_type: "hvm".to_owned(),
        created: Timestamp::UNIX_EPOCH,
        root_partition: None,
        source_image: None,
        tags: std::collections::BTreeMap::new(),
        verdict: None,
        copies: std::collections::BTreeMap::new(),
    };
    let message = same_image(&image(), Some(&changed)).unwrap_err().to_string();
    assert!(message.contains("sha256:changed at the provider, and the manifest says sha256:content"), "{message}");
}

fn asked() -> ServiceSpec {
    ServiceSpec {
        name: "hello-local".to_owned(),
        port: 8000,
        health: "/healthz".to_owned(),
        dns: "hello.kiln.internal".to_owned(),
        listen: None,
        aws: AwsFleet::default(),
    }
}

/// The service that was made of it.
fn service(spec: ServiceSpec) -> Service {
    Service {
        spec: ServiceSpec { listen: Some(4711), ..spec },
        url: String::new(),
        resolver: None,
        groups: std::collections::BTreeMap::new(),
        running: true,
        check_interval: std::time::Duration::from_secs(1),
    }
}

#[test]
fn another_services_name_and_port_are_not_taken() {
    let named = |name: &str, dns: &str| ServiceSpec { name: name.to_owned(), dns: dns.to_owned(), ..asked() };
    let present = [service(asked()), service(named("other-local", "other.kiln.internal"))];
    assert!(nobody_elses(&asked(), &present).is_ok(), "its own are its own");
    let live = named("hello-live", "hello.kiln.internal");
    let message = nobody_elses(&live, &present).unwrap_err().to_string();
    assert!(message.contains("`dns` hello.kiln.internal belongs to the service hello-local"), "{message}");
    let live = ServiceSpec { listen: Some(4711), ..named("hello-live", "live.kiln.internal") };
    let message = nobody_elses(&live, &present).unwrap_err().to_string();
    assert!(message.contains("`listen` 4711 belongs to the service hello-local"), "{message}");
}

#[test]
fn a_service_keeps_its_settings_while_it_serves() {
    let asked = asked();
    let present = service(asked.clone());
    assert!(same_service(&asked, None).is_ok());
    assert!(same_service(&asked, Some(&present)).is_ok(), "a port that was chosen is kept");
    let other = ServiceSpec { listen: Some(80), health: "/up".to_owned(), ..asked };
    let message = same_service(&other, Some(&present)).unwrap_err().to_string();
    assert!(
        message.contains("`health` is /healthz and would become /up, `listen` is 4711 and would become 80"),
        "{message}"
    );
}
