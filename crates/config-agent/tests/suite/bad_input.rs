//! What a person wrote is wrong: one message, exit code 2, nothing changed.

use super::rig::Rig;

fn refused(rig: &Rig, command: &str) -> String {
    let ended = rig.run(&[command]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(!rig.path("state").exists());
    ended.stderr.replace(&format!("{}/", rig.path("").display().to_string().trim_end_matches('/')), "")
}

#[test]
fn settings() {
    for (store, message) in [
        (
            "[store.etcd]\nadresses = [\"http://a\"]",
            "config-agent.toml:6: unknown key 'adresses' in [store.etcd]; did you mean 'addresses'?",
        ),
        ("[store.ectd]\n", "config-agent.toml:5: store.ectd: unknown kind 'ectd'; did you mean 'etcd'?"),
        (
            "",
            "config-agent.toml: missing key 'store' at the top level; add it; docs/config-agent.md describes every key",
        ),
        (
            "[store.etcd]\naddresses = [\"a:2379\"]",
            "config-agent.toml:6: store.etcd.addresses has 'a:2379', which is no URL; write, say, https://HOST:PORT",
        ),
        (
            "[store.etcd]\naddresses = [\"http://a\"]\nuser = \"u\"",
            "config-agent.toml:5: store.etcd has only one of 'user' and 'password_file'; write both or neither",
        ),
        (
            "[store.etcd]\naddresses = [\"https://a\"]",
            "config-agent.toml:5: store.etcd has an https address, but no certificate authority; name its file as ca in [store.etcd.tls]",
        ),
        (
            "[store.consul]\naddress = \"http://a\"\nwait = \"11m\"",
            "config-agent.toml:7: store.consul.wait is not between a second and ten minutes; write, say, \"5m\"",
        ),
        (
            "[store.directory]\npath = \"a\"\n[store.ssm]",
            "config-agent.toml:5: [store] must have exactly one kind; remove all but one",
        ),
    ] {
        let rig = Rig::with_store(store);
        assert_eq!(refused(&rig, "run"), format!("config-agent: reading the settings: {message}\n"));
    }
}

#[test]
fn files_and_templates() {
    let rig = Rig::new();
    assert_eq!(
        refused(&rig, "check"),
        "config-agent: reading conf.d: conf.d: it has no .toml file; add one for each file that is to be kept\n"
    );
    rig.keep("web", "a\n{{ greting }}\n", "", "greeting = \"/web/greeting\"");
    assert_eq!(
        refused(&rig, "check"),
        "config-agent: reading a template: templates/web.j2:2: the variable 'greting' is not in [values] of the file \
         that uses this template; did you mean 'greeting'?\n"
    );
    rig.keep("web", "{{ greeting }}", "spaly = \"1s\"", "greeting = \"/web/greeting\"");
    assert_eq!(
        refused(&rig, "once"),
        "config-agent: reading conf.d: conf.d/web.toml:4: unknown key 'spaly' at the top level; did you mean 'splay'?\n"
    );
    rig.keep("web", "{{ greeting }}", "", "greeting = \"/web/greeting\"");
    std::fs::copy(rig.path("conf.d/web.toml"), rig.path("conf.d/again.toml")).unwrap();
    assert_eq!(
        refused(&rig, "run"),
        "config-agent: reading conf.d: conf.d/web.toml: out/web is the destination of conf.d/again.toml already; give each its own\n"
    );
}

#[test]
fn a_secret_that_everyone_can_read() {
    let store = |rig: &Rig| {
        format!("[store.consul]\naddress = \"http://127.0.0.1:1\"\ntoken_file = \"{}\"\n", rig.path("token").display())
    };
    let rig = Rig::with_store("");
    rig.settings(&store(&rig));
    rig.keep("web", "{{ greeting }}", "", "greeting = \"/web/greeting\"");
    rig.write("token", "secret");
    let ended = rig.run(&["once", "--noop"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("everyone can use it (mode 0644); chmod 600"), "{}", ended.stderr);
}
