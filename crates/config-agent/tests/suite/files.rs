//! What becomes of one file: candidates, checks, modes, keys that go, stores that go.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::rig::Rig;

const TEMPLATE: &str = "greeting={{ greeting }}\n";
const VALUES: &str = "greeting = \"/web/greeting\"";

#[test]
fn a_change_makes_the_file_anew() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, "mode = \"0640\"\nowner = \"root\"", VALUES);
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    rig.set("/web/greeting", "good day");
    agent.wait_for(&rig, "web", "greeting=good day\n");
    assert_eq!(rig.mode("web"), 0o640);
    assert_eq!(agent.terminate(), Some(0));
}

#[test]
fn whoever_reads_finds_a_whole_file_with_its_mode() {
    let rig = Arc::new(Rig::new());
    let long = |value: &str| value.repeat(20_000);
    rig.keep("web", "{{ greeting }}\n", "mode = \"0600\"", VALUES);
    rig.set("/web/greeting", &long("a"));
    let agent = rig.start();
    agent.wait_for(&rig, "web", &format!("{}\n", long("a")));
    let done = Arc::new(AtomicBool::new(false));
    let reader = std::thread::spawn({
        let (rig, done) = (Arc::clone(&rig), Arc::clone(&done));
        move || {
            while !done.load(Ordering::Relaxed) {
                let text = fs::read_to_string(rig.path("out/web")).unwrap();
                assert_eq!(text.len(), 20_001);
                assert!(text.trim().bytes().all(|byte| byte == text.as_bytes()[0]));
                for entry in fs::read_dir(rig.path("out")).unwrap().flatten() {
                    // A candidate may be gone by now; while it is there, no other can read it.
                    if let Ok(metadata) = entry.metadata() {
                        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{entry:?}");
                    }
                }
            }
        }
    });
    for letter in ["b", "c", "d", "e", "f"] {
        rig.set("/web/greeting", &long(letter));
        agent.wait_for(&rig, "web", &format!("{}\n", long(letter)));
    }
    done.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    assert_eq!(fs::read_dir(rig.path("out")).unwrap().count(), 1);
}

#[test]
fn what_the_check_refuses_does_not_replace() {
    let rig = Rig::new();
    let check = "check = \"! grep bad $CANDIDATE && test $DESTINATION != $CANDIDATE\"";
    rig.keep("web", TEMPLATE, check, VALUES);
    rig.set("/web/greeting", "good");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=good\n");
    rig.set("/web/greeting", "bad");
    agent.wait_until_said("the check refuses the new content, and the old stays");
    let file = agent.file("web");
    assert_eq!(file["state"], "failed");
    assert!(file["problem"].as_str().unwrap().ends_with("failed with status 1: greeting=bad"), "{file}");
    assert_eq!(rig.out("web"), "greeting=good\n");
    rig.set("/web/greeting", "better");
    agent.wait_for(&rig, "web", "greeting=better\n");
    agent.wait("the problem is over", || agent.file("web")["state"] == "current");
}

#[test]
fn a_file_that_is_right_gets_its_mode_back_and_nobody_is_reloaded() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, &format!("mode = \"0600\"\nreload = \"{}\"", rig.note("reloads")), VALUES);
    rig.set("/web/greeting", "hello");
    rig.write("out/web", "greeting=hello\n");
    let agent = rig.start();
    agent.wait_until_said("has its mode and owner again");
    assert_eq!((rig.mode("web"), rig.lines("reloads")), (0o600, 0));
    assert_eq!(agent.file("web")["state"], "current");
}

#[test]
fn a_required_key_that_is_deleted_keeps_the_file() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, "", VALUES);
    rig.keep(
        "many",
        "{% for n, a in hosts.items() %}{{ n }}={{ a }} {% endfor %}",
        "",
        "hosts = { prefix = \"/hosts\" }",
    );
    rig.set("/web/greeting", "hello");
    rig.set("/hosts/a", "1");
    rig.set("/hostname", "not one of them");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    agent.wait_for(&rig, "many", "a=1 ");
    rig.unset("/web/greeting");
    agent.wait_until_said("web: the store has no /web/greeting, which is required");
    rig.unset("/hosts/a");
    agent.wait_until_said("many: the store has nothing below /hosts/, which is required");
    assert_eq!((rig.out("web").as_str(), rig.out("many").as_str()), ("greeting=hello\n", "a=1 "));
    rig.set("/web/greeting", "hello again");
    agent.wait_for(&rig, "web", "greeting=hello again\n");
}

#[test]
fn an_optional_key_that_is_deleted_becomes_its_default() {
    let rig = Rig::new();
    let values =
        "greeting = { key = \"/web/greeting\", default = \"hi\" }\nhosts = { prefix = \"/hosts\", default = {} }";
    rig.keep("web", "{{ greeting }} {{ hosts | length }}", "", values);
    rig.set("/web/greeting", "hello");
    rig.set("/hosts/a", "1");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "hello 1");
    rig.unset("/web/greeting");
    agent.wait_for(&rig, "web", "hi 1");
    rig.unset("/hosts/a");
    agent.wait_for(&rig, "web", "hi 0");
}

#[test]
fn a_blank_file_is_never_written() {
    let rig = Rig::new();
    rig.keep("web", "{{ greeting }}\n", "", "greeting = { key = \"/web/greeting\", default = \"\" }");
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "hello\n");
    rig.unset("/web/greeting");
    agent.wait_until_said("a blank file is never written");
    assert_eq!(rig.out("web"), "hello\n");
}

#[test]
fn a_store_that_is_emptied_or_goes_away_changes_nothing() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, "", VALUES);
    rig.set("/web/greeting", "hello");
    let mut agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    fs::remove_dir_all(rig.path("store")).unwrap();
    agent.wait_until_said("the store is lost, and the files stay as they are");
    fs::create_dir(rig.path("store")).unwrap();
    agent.wait_until_said("the store has no /web/greeting");
    assert_eq!(rig.out("web"), "greeting=hello\n");
    assert!(agent.runs());
    rig.set("/web/greeting", "back");
    agent.wait_for(&rig, "web", "greeting=back\n");
}

#[test]
fn a_value_that_is_no_text_or_not_what_the_template_wants_keeps_the_file() {
    let rig = Rig::new();
    rig.keep("web", "port={{ (settings | from_json).port }}\n", "", "settings = \"/web/settings\"");
    rig.set("/web/settings", "{\"port\": 80}");
    let mut agent = rig.start();
    agent.wait_for(&rig, "web", "port=80\n");
    rig.set("/web/settings", "{\"prot\": 80}");
    agent.wait_until_said("undefined value");
    rig.set("/web/settings", "{");
    agent.wait_until_said("from_json: the value is not JSON");
    fs::write(rig.path("store/web/settings"), [0xff]).unwrap();
    agent.wait_until_said("the value of /web/settings is not UTF-8");
    assert_eq!(rig.out("web"), "port=80\n");
    assert!(agent.runs());
}

#[test]
fn a_template_never_changes_while_the_agent_runs() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, "", VALUES);
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    rig.write("templates/web.j2", "other={{ greeting }}\n");
    rig.set("/web/greeting", "good day");
    agent.wait_for(&rig, "web", "greeting=good day\n");
    fs::remove_dir_all(rig.path("templates")).unwrap();
    rig.set("/web/greeting", "good evening");
    agent.wait_for(&rig, "web", "greeting=good evening\n");
    assert!(agent.log().contains("templates are read now and not again"));
}

#[test]
fn a_destination_that_cannot_be_written_is_tried_again() {
    let rig = Rig::new();
    rig.keep("web", TEMPLATE, "", VALUES);
    rig.set("/web/greeting", "hello");
    fs::remove_dir(rig.path("out")).unwrap();
    let agent = rig.start();
    agent.wait_until_said("web: writing beside");
    fs::create_dir(rig.path("out")).unwrap();
    agent.wait_for(&rig, "web", "greeting=hello\n");
}
