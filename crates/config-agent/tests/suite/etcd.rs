//! A real etcd as the store.

use rustix::process::Signal;

use super::certificates::Certificates;
use super::etcd_server::Etcd;
use super::rig::{Agent, Rig, free_port};

fn begin() -> (Rig, Etcd) {
    let rig = Rig::with_store("");
    let etcd = Etcd::start(&rig);
    rig.settings(&etcd.settings());
    (rig, etcd)
}

/// A file with one line for each key below `/keys`.
fn keep_keys(rig: &Rig) {
    let template = "{% for name, value in keys.items() %}\n{{ name }}={{ value }}\n{% endfor %}\n";
    rig.keep("keys", template, "", "keys = { prefix = \"/keys\" }");
}

fn pairs(numbers: impl Iterator<Item = u32>, of: u32) -> Vec<(String, String)> {
    numbers.map(|number| (format!("/keys/{:03}", number % of), number.to_string())).collect()
}

/// What `keep_keys` makes of the pairs.
fn rendered(pairs: &[(String, String)]) -> String {
    let last: std::collections::BTreeMap<_, _> =
        pairs.iter().map(|(key, value)| (&key["/keys/".len()..], value)).collect();
    last.iter().map(|(key, value)| format!("{key}={value}\n")).collect()
}

fn revision(agent: &Agent) -> i64 {
    agent.status()["store"]["revision"].as_str().unwrap().parse().unwrap()
}

#[test]
fn changes_are_followed_from_the_revision_after_the_read() {
    let (rig, etcd) = begin();
    keep_keys(&rig);
    rig.keep("one", "{{ one }}", "", "one = \"/one\"\nother = { key = \"/keys/000\", default = \"\" }");
    etcd.put("/keysx", "not one of them");
    etcd.put_all(&pairs(0..3, 3));
    etcd.put("/one", "1");
    let agent = rig.start();
    agent.wait_for(&rig, "keys", "000=0\n001=1\n002=2\n");
    agent.wait_for(&rig, "one", "1");
    etcd.put("/keys/001", "x");
    agent.wait_for(&rig, "keys", "000=0\n001=x\n002=2\n");
    etcd.delete("/keys/002");
    agent.wait_for(&rig, "keys", "000=0\n001=x\n");
    etcd.put("/one", "2");
    agent.wait_for(&rig, "one", "2");
    agent.wait("the revision is that of the last change", || revision(&agent) == etcd.revision());
}

#[test]
fn nothing_is_lost_while_the_store_is_killed_amid_changes() {
    let (rig, mut etcd) = begin();
    keep_keys(&rig);
    etcd.put("/keys/000", "0");
    let mut agent = rig.start();
    agent.wait_for(&rig, "keys", "000=0\n");
    let mut all = Vec::new();
    for round in 0..5 {
        let some = pairs(round * 1000..(round + 1) * 1000, 97);
        let (before, after) = some.split_at(500);
        etcd.put_all(before);
        etcd.restart();
        etcd.put_all(after);
        etcd.compact();
        all.extend(some);
    }
    agent.wait_for(&rig, "keys", &rendered(&all));
    assert!(agent.runs());
}

#[test]
fn what_is_compacted_while_the_agent_stands_still_is_listed_again() {
    let (rig, etcd) = begin();
    keep_keys(&rig);
    etcd.put("/keys/000", "0");
    let agent = rig.start();
    agent.wait_for(&rig, "keys", "000=0\n");
    agent.signal(Signal::STOP);
    // More than the connection and the server keep for an agent that does not read.
    let long = "x".repeat(8000);
    let some: Vec<_> = (0..4000).map(|number| ("/keys/000".to_owned(), format!("{number}{long}"))).collect();
    for change in some {
        etcd.put_all(&[change]);
    }
    etcd.put("/keys/000", "last");
    etcd.compact();
    agent.signal(Signal::CONT);
    agent.wait_for(&rig, "keys", "000=last\n");
    agent.wait_until_said("compacted");
}

#[test]
fn a_store_that_lost_everything_leaves_no_blank_file() {
    let (rig, mut etcd) = begin();
    keep_keys(&rig);
    rig.keep("one", "one={{ one }}", "", "one = \"/one\"");
    etcd.put("/keys/000", "0");
    etcd.put("/one", "1");
    let agent = rig.start();
    agent.wait_for(&rig, "keys", "000=0\n");
    agent.wait_for(&rig, "one", "one=1");
    etcd.lose_everything();
    agent.wait_until_said("one: the store has no /one, which is required");
    agent.wait_until_said("keys: the store has nothing below /keys/, which is required");
    assert_eq!((rig.out("keys").as_str(), rig.out("one").as_str()), ("000=0\n", "one=1"));
    // Its revisions begin anew: a watch from where the old ones ended would be silent.
    etcd.put("/one", "2");
    agent.wait_for(&rig, "one", "one=2");
}

#[test]
fn a_store_that_is_down_at_the_start_is_waited_for() {
    let (rig, mut etcd) = begin();
    keep_keys(&rig);
    etcd.put("/keys/000", "0");
    etcd.kill();
    let mut agent = rig.start();
    agent.wait_until_said("the store is lost");
    etcd.restart();
    agent.wait_for(&rig, "keys", "000=0\n");
    assert!(agent.runs());
}

#[test]
fn a_store_that_does_not_answer_is_lost_and_found() {
    let (rig, etcd) = begin();
    keep_keys(&rig);
    etcd.put("/keys/000", "0");
    // Someone listens, and says nothing.
    let silent = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("[store.etcd]\naddresses = [\"http://{}\"]\n", silent.local_addr().unwrap());
    rig.settings(&address);
    let agent = rig.start();
    agent.wait_until_said("no answer within 10s");
    assert_eq!(agent.status()["store"]["connected"], false);
}

#[test]
fn more_keys_and_files_than_one_answer_has() {
    let (rig, etcd) = begin();
    let all: Vec<_> = (0..2500).map(|number| (format!("/keys/{number:04}"), "0".to_owned())).collect();
    etcd.put_all(&all);
    rig.keep("all", "{{ keys | length }} {{ keys['2499'] }}", "", "keys = { prefix = \"/keys\" }");
    let agent = rig.start();
    agent.wait_for(&rig, "all", "2500 0");
    etcd.put("/keys/2499", "1");
    agent.wait_for(&rig, "all", "2500 1");
    agent.terminate();
    std::fs::remove_file(rig.path("conf.d/all.toml")).unwrap();
    for file in 0..300 {
        rig.keep(&format!("f{file}"), "{{ value }}", "", &format!("value = \"/keys/{:04}\"", file * 8));
    }
    let agent = rig.start();
    agent.wait_for(&rig, "f299", "0");
    etcd.put("/keys/2392", "1");
    agent.wait_for(&rig, "f299", "1");
    etcd.put("/keys/0000", "1");
    agent.wait_for(&rig, "f0", "1");
}

#[test]
fn certificates_on_both_sides() {
    let rig = Rig::with_store("");
    let certificates = Certificates::new(&rig);
    let (cert, key) = &certificates.server;
    let path = |path: &std::path::Path| path.display().to_string();
    let arguments =
        [("--cert-file", path(cert)), ("--key-file", path(key)), ("--trusted-ca-file", path(&certificates.ca))];
    let mut arguments: Vec<_> = arguments.into_iter().flat_map(|(option, path)| [option.to_owned(), path]).collect();
    arguments.push("--client-cert-auth".to_owned());
    let etcd = Etcd::start_with(&rig, "https", arguments);
    rig.keep("one", "one={{ one }}", "", "one = { key = \"/one\", default = \"none\" }");
    rig.settings(&format!("{}tls = {}\n", etcd.settings(), certificates.settings()));
    let agent = rig.start();
    agent.wait_for(&rig, "one", "one=none");
    agent.terminate();
    // Without a certificate of its own the agent is refused.
    rig.settings(&format!("{}tls = {{ ca = \"{}\" }}\n", etcd.settings(), certificates.ca.display()));
    let ended = rig.run(&["once", "--timeout", "15s"]);
    assert_eq!(ended.code, Some(3), "{ended:?}");
}

#[test]
fn a_user_with_a_password_from_a_file() {
    let (rig, etcd) = begin();
    etcd.put("/one", "1");
    etcd.with(async |mut client| {
        client.user_add("root", "root", None).await.unwrap();
        client.user_grant_role("root", "root").await.unwrap();
        client.user_add("agent", "secret", None).await.unwrap();
        client.role_add("reader").await.unwrap();
        let permission = etcd_client::Permission::read("/one");
        client.role_grant_permission("reader", permission).await.unwrap();
        client.user_grant_role("agent", "reader").await.unwrap();
        client.auth_enable().await.unwrap();
    });
    rig.keep("one", "one={{ one }}", "", "one = \"/one\"");
    let password = rig.write_secret("password", "wrong\n");
    rig.settings(&format!("{}user = \"agent\"\npassword_file = \"{}\"\n", etcd.settings(), password.display()));
    let agent = rig.start();
    agent.wait_until_said("the store is lost");
    // It is read anew for each try.
    rig.write_secret("password", "secret\n");
    agent.wait_for(&rig, "one", "one=1");
    assert!(!agent.log().contains("secret\n") && !agent.log().contains("wrong"), "{}", agent.log());
}

#[test]
fn a_member_that_is_dead_does_not_hide_the_others() {
    let (rig, etcd) = begin();
    keep_keys(&rig);
    etcd.put("/keys/000", "0");
    let dead = format!("http://127.0.0.1:{}", free_port());
    rig.settings(&format!("[store.etcd]\naddresses = [\"{dead}\", \"{}\"]\n", etcd.address()));
    let agent = rig.start();
    agent.wait_for(&rig, "keys", "000=0\n");
    etcd.put("/keys/000", "1");
    agent.wait_for(&rig, "keys", "000=1\n");
}
