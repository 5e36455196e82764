//! `config-agent once`, `--noop` and `check`.

use super::rig::Rig;

fn rig() -> Rig {
    let rig = Rig::new();
    rig.keep(
        "web",
        "one\ngreeting={{ greeting }}\n",
        &format!("reload = \"{}\"", rig.note("reloads")),
        "greeting = \"/web/greeting\"",
    );
    rig
}

#[test]
fn once_makes_the_files_and_exits() {
    let rig = rig();
    rig.set("/web/greeting", "hello");
    for _ in 0..2 {
        let ended = rig.run(&["once"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    assert_eq!((rig.out("web").as_str(), rig.lines("reloads")), ("one\ngreeting=hello\n", 1));
    rig.unset("/web/greeting");
    let ended = rig.run(&["once"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("web: the store has no /web/greeting, which is required"), "{}", ended.stderr);
    std::fs::remove_dir_all(rig.path("store")).unwrap();
    let ended = rig.run(&["once"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("reading directory at"), "{}", ended.stderr);
}

#[test]
fn noop_shows_a_diff_and_changes_nothing() {
    let rig = rig();
    rig.set("/web/greeting", "hello");
    rig.write("out/web", "one\ngreeting=before\n");
    std::fs::set_permissions(rig.path("out/web"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let ended = rig.run(&["once", "--noop"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let web = rig.path("out/web").display().to_string();
    let expected = format!(
        "{web}: mode 0600 -> 0644\n--- {web}\n+++ {web} (new)\n@@ -1,2 +1,2 @@\n one\n-greeting=before\n+greeting=hello\n"
    );
    assert_eq!(ended.stdout, expected);
    assert_eq!((rig.out("web").as_str(), rig.lines("reloads")), ("one\ngreeting=before\n", 0));
    assert!(!rig.path("state").exists());
    rig.run(&["once"]);
    let ended = rig.run(&["once", "--noop"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""));
}

#[test]
fn check_needs_no_store() {
    let rig = rig();
    std::fs::remove_dir_all(rig.path("store")).unwrap();
    let ended = rig.run(&["check"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("directory: 1 files, good\n"), "{}", ended.stdout);
}

#[test]
fn two_agents_do_not_work_on_one_machine() {
    let rig = rig();
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "one\ngreeting=hello\n");
    let ended = rig.run(&["once"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("another config-agent is at work there"), "{}", ended.stderr);
}
