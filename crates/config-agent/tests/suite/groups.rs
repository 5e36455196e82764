//! Files that change together or not at all.

use super::rig::Rig;

/// A group of two files. Its service is healthy unless the second file says "ill"; it is reloaded by a note.
fn rig() -> Rig {
    let rig = Rig::new();
    let health = format!("! grep -q ill {}", rig.path("service").display());
    let reload = format!(
        "cat {0}/a {0}/b > {1}; {2}",
        rig.path("out").display(),
        rig.path("service").display(),
        rig.note("reloads")
    );
    let more = format!(
        "group = \"web\"\nreload = \"{reload}\"\nhealth = {{ command = \"{health}\", within = \"300ms\", stay = \"50ms\" }}\n\
         check = \"! grep -q bad $CANDIDATE\""
    );
    rig.keep("a", "a={{ a }}\n", &more, "a = \"/a\"");
    rig.keep("b", "b={{ b }}\n", &more, "b = \"/b\"");
    rig.write("service", "");
    rig
}

fn outs(rig: &Rig) -> String {
    rig.out("a") + &rig.out("b")
}

#[test]
fn all_or_nothing() {
    let rig = rig();
    rig.set("/a", "1");
    rig.set("/b", "bad");
    let agent = rig.start();
    agent.wait_until_said("b: the check refuses");
    assert_eq!(outs(&rig), "");
    assert_eq!(agent.file("a")["problem"], "another file of the group cannot be replaced");
    rig.set("/b", "1");
    agent.wait("both", || outs(&rig) == "a=1\nb=1\n");
    agent.wait("one reload", || rig.lines("reloads") == 1);
    // One cannot be made at all: neither changes.
    rig.set("/a", "2");
    rig.unset("/b");
    agent.wait_until_said("b: the store has no /b");
    agent.wait("a waits for b", || agent.file("a")["problem"] == "it waits for 'b' of its group");
    assert_eq!(outs(&rig), "a=1\nb=1\n");
}

#[test]
fn an_unhealthy_service_gets_its_files_back() {
    let rig = rig();
    rig.set("/a", "1");
    rig.set("/b", "1");
    let mut agent = rig.start();
    agent.wait("both", || outs(&rig) == "a=1\nb=1\n");
    agent.wait("one reload", || rig.lines("reloads") == 1);
    rig.set("/a", "2");
    rig.set("/b", "ill");
    agent.wait_until_said("the files before are back in place: the service does not work");
    assert_eq!(outs(&rig), "a=1\nb=1\n");
    assert_eq!(std::fs::read_to_string(rig.path("service")).unwrap(), "a=1\nb=1\n");
    let reloads = rig.lines("reloads");
    // The same is not tried again, also if it is said again.
    rig.set("/b", "1");
    rig.set("/b", "ill");
    agent.wait("it is at rest", || agent.file("b")["state"] == "failed");
    assert_eq!((outs(&rig).as_str(), rig.lines("reloads")), ("a=1\nb=1\n", reloads));
    rig.set("/b", "2");
    agent.wait("both", || outs(&rig) == "a=2\nb=2\n");
    agent.wait("they are current", || agent.file("b")["state"] == "current");
    assert_eq!(agent.status()["counters"]["put_back"], 1);
    assert!(agent.runs());
}

#[test]
fn a_trial_that_was_killed_is_finished_by_the_next_agent() {
    let rig = rig();
    rig.set("/a", "1");
    rig.set("/b", "1");
    let mut agent = rig.start();
    agent.wait("both", || outs(&rig) == "a=1\nb=1\n");
    agent.wait("nothing is pending", || agent.file("a")["reload_pending"] == false && rig.lines("reloads") == 1);
    rig.set("/b", "ill");
    agent.wait("the new one is in place", || rig.out("b") == "b=ill\n");
    agent.kill();
    let agent = rig.start();
    agent.wait_until_said("the files before are back in place");
    assert_eq!(outs(&rig), "a=1\nb=1\n");
    assert_eq!(std::fs::read_to_string(rig.path("service")).unwrap(), "a=1\nb=1\n");
}

#[test]
fn a_service_that_was_not_healthy_before_is_not_judged() {
    let rig = rig();
    rig.write("service", "ill");
    rig.set("/a", "1");
    rig.set("/b", "ill");
    let agent = rig.start();
    agent.wait("both", || outs(&rig) == "a=1\nb=ill\n");
    rig.set("/b", "1");
    agent.wait("both", || outs(&rig) == "a=1\nb=1\n");
    agent.wait("current", || agent.file("b")["state"] == "current");
    assert_eq!(agent.status()["counters"]["put_back"], 0);
}

/// A `systemctl` that keeps a unit's state in a file, as systemd does for a service that dies of a bad configuration.
#[test]
fn a_unit_that_died_of_a_change_is_started_again() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    let path = |name: &str| rig.path(name).display().to_string();
    // try-… does nothing for a unit that does not run; both verbs start one anew with the file as it is.
    let systemctl = format!(
        "#!/bin/sh\nstate=$(cat {state})\ncase $1 in\nis-active) test \"$state\" = active;;\n\
         *-restart) test $1 = reload-or-restart || test \"$state\" = active || exit 0\n\
         if grep -q bad {out}; then echo failed; else echo active; fi > {state};;\nesac\n",
        out = path("out/web"),
        state = path("state-of-web")
    );
    rig.write("bin/systemctl", &systemctl);
    std::fs::set_permissions(rig.path("bin/systemctl"), PermissionsExt::from_mode(0o755)).unwrap();
    rig.write("state-of-web", "active\n");
    let more = "unit = \"web.service\"\nhealth = { within = \"200ms\", stay = \"50ms\" }";
    rig.keep("web", "greeting={{ greeting }}\n", more, "greeting = \"/web/greeting\"");
    rig.set("/web/greeting", "hello");
    let search = format!("{}:{}", path("bin"), std::env::var("PATH").unwrap());
    let agent = rig.start_with(&[("PATH", &search)]);
    agent.wait_for(&rig, "web", "greeting=hello\n");
    agent.wait("it is current", || agent.file("web")["state"] == "current");
    rig.set("/web/greeting", "bad");
    agent.wait_until_said("the files before are back in place");
    assert_eq!(rig.out("web"), "greeting=hello\n");
    assert_eq!(std::fs::read_to_string(rig.path("state-of-web")).unwrap(), "active\n");
}
