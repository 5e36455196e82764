//! When services are told, how often, and that it is never forgotten.

use rustix::process::Signal;

use super::rig::Rig;

const TEMPLATE: &str = "greeting={{ greeting }}\n";
const VALUES: &str = "greeting = \"/web/greeting\"";

#[test]
fn a_reload_that_fails_is_tried_again_and_ends_nothing() {
    let rig = Rig::new();
    // It works when the file is there.
    let reload = format!("{}; test -e {}", rig.note("tries"), rig.path("works").display());
    rig.keep("web", TEMPLATE, &format!("reload = \"{reload}\""), VALUES);
    rig.set("/web/greeting", "hello");
    let mut agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    agent.wait("a second try", || rig.lines("tries") >= 2);
    assert_eq!(agent.file("web")["reload_pending"], true);
    assert!(agent.runs());
    rig.write("works", "");
    agent.wait("the reload is done", || agent.file("web")["reload_pending"] == false);
    let tries = rig.lines("tries");
    rig.set("/web/greeting", "good day");
    agent.wait_for(&rig, "web", "greeting=good day\n");
    agent.wait("one more reload", || rig.lines("tries") == tries + 1);
}

#[test]
fn a_reload_survives_the_death_of_the_agent() {
    let rig = Rig::new();
    // The first reload goes on and on; after that it only notes that it was done.
    let reload = format!(
        "if test -e {0}; then {1}; else echo > {0}; exec sleep 60; fi",
        rig.path("begun").display(),
        rig.note("done")
    );
    rig.keep("web", TEMPLATE, &format!("reload = \"{reload}\""), VALUES);
    rig.set("/web/greeting", "hello");
    let mut agent = rig.start();
    agent.wait("the reload has begun", || rig.path("begun").exists());
    assert_eq!(rig.out("web"), "greeting=hello\n");
    agent.kill();
    assert_eq!(rig.lines("done"), 0);
    // The content is in place: nothing but the note says that something is to be done. The store is down as well.
    std::fs::rename(rig.path("store"), rig.path("elsewhere")).unwrap();
    let mut agent = rig.start();
    agent.wait("the reload is done", || rig.lines("done") == 1);
    agent.wait("it is not pending", || agent.file("web")["reload_pending"] == false);
    agent.kill();
    std::fs::rename(rig.path("elsewhere"), rig.path("store")).unwrap();
    let agent = rig.start();
    agent.wait("it is current", || agent.file("web")["state"] == "current");
    assert_eq!(rig.lines("done"), 1, "it is not done once more");
}

#[test]
fn a_killed_agent_never_leaves_a_service_behind() {
    let rig = Rig::new();
    // The service is the file `service`: what it last loaded.
    let reload = format!("cp {} {}", rig.path("out/web").display(), rig.path("service").display());
    rig.keep("web", TEMPLATE, &format!("reload = \"{reload}\"\nquiescence = {{ min = \"0s\" }}"), VALUES);
    for round in 0..30 {
        rig.set("/web/greeting", &round.to_string());
        let mut agent = rig.launch(&[]);
        // Somewhere between the start and the end of the reload.
        std::thread::sleep(std::time::Duration::from_millis(round));
        agent.kill();
    }
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=29\n");
    let service = || std::fs::read_to_string(rig.path("service")).unwrap_or_default();
    agent.wait("the service has it too", || service() == "greeting=29\n");
    agent.wait("nothing is pending", || agent.file("web")["reload_pending"] == false);
}

#[test]
fn many_keys_and_many_files_make_one_reload() {
    let rig = Rig::new();
    let more = format!("reload = \"{}\"\nquiescence = {{ min = \"400ms\", max = \"20s\" }}", rig.note("reloads"));
    let hosts = "hosts = { prefix = \"/hosts\" }";
    for file in ["one", "two", "three"] {
        rig.keep(file, "{{ hosts | length }}", &more, hosts);
    }
    rig.set("/hosts/0", "x");
    let agent = rig.start();
    agent.wait("the first reload", || rig.lines("reloads") == 1);
    for host in 1..50 {
        rig.set(&format!("/hosts/{host}"), "x");
    }
    for file in ["one", "two", "three"] {
        agent.wait_for(&rig, file, "50");
    }
    agent.wait("all is told", || agent.status()["counters"]["reloads"] == 2);
    assert_eq!(rig.lines("reloads"), 2);
    assert_eq!(agent.status()["counters"]["replacements"], 6);
}

#[test]
fn changes_without_end_are_applied_after_the_longest_wait() {
    let rig = Rig::new();
    let more = "quiescence = { min = \"10s\", max = \"300ms\" }".replace("10s", "250ms");
    rig.keep("web", TEMPLATE, &more, VALUES);
    rig.set("/web/greeting", "0");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=0\n");
    let mut number = 0;
    // A change every few milliseconds: it is never quiet for 250 ms.
    agent.wait("a change in between", || {
        number += 1;
        rig.set("/web/greeting", &number.to_string());
        rig.out("web") != "greeting=0\n"
    });
    agent.wait_for(&rig, "web", &format!("greeting={number}\n"));
}

#[test]
fn a_reload_that_hangs_is_killed_and_status_answers_meanwhile() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, "reload = \"sleep 60\"", VALUES);
    let settings = std::fs::read_to_string(rig.path("config-agent.toml")).unwrap();
    rig.write("config-agent.toml", &format!("command_timeout = \"500ms\"\n{settings}"));
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    assert_eq!(agent.file("web")["state"], "waiting");
    agent.wait_until_said("the reload is still to be done: `sleep 60` was killed: it ran for 500ms");
}

#[test]
fn what_has_begun_is_completed_when_the_agent_is_ended() {
    let rig = Rig::new();
    let reload = format!("echo > {}; sleep 0.3; {}", rig.path("begun").display(), rig.note("done"));
    rig.keep("web", TEMPLATE, &format!("reload = \"{reload}\""), VALUES);
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait("the reload has begun", || rig.path("begun").exists());
    agent.signal(Signal::TERM);
    assert_eq!(agent.terminate(), Some(0));
    assert_eq!(rig.lines("done"), 1);
    assert!(!rig.path("agent.sock").exists());
}
