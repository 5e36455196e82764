//! A tree of files as the store.

use std::fs;
use std::os::unix::fs::symlink;

use super::rig::Rig;

#[test]
fn new_directories_links_and_what_goes() {
    let rig = Rig::new();
    rig.keep(
        "hosts",
        "{% for n, a in hosts.items() %}{{ n }}={{ a }};{% endfor %}",
        "",
        "hosts = { prefix = \"/hosts\", default = {} }\nname = { key = \"/name\", default = \"\" }",
    );
    rig.set("/name", "x");
    rig.set("/hosts/a", "1\n");
    let agent = rig.start();
    agent.wait_for(&rig, "hosts", "a=1;");
    rig.set("/hosts/deep/er/b", "2");
    agent.wait_for(&rig, "hosts", "a=1;deep/er/b=2;");
    rig.write("elsewhere", "3");
    symlink(rig.path("elsewhere"), rig.path("store/hosts/c")).unwrap();
    agent.wait_for(&rig, "hosts", "a=1;c=3;deep/er/b=2;");
    rig.write("store/hosts/.hidden", "4");
    fs::remove_dir_all(rig.path("store/hosts/deep")).unwrap();
    agent.wait_for(&rig, "hosts", "a=1;c=3;");
    // In place, without a rename.
    fs::write(rig.path("store/hosts/a"), "5").unwrap();
    agent.wait_for(&rig, "hosts", "a=5;c=3;");
}

#[test]
fn directories_that_are_swapped_by_a_link() {
    // As Kubernetes does it: keys are links into `..data`, which is a link that is replaced.
    let rig = Rig::new();
    rig.keep("web", "{{ greeting }}", "", "greeting = \"/greeting\"");
    rig.write("store/..1/greeting", "one");
    symlink("..1", rig.path("store/..data")).unwrap();
    symlink("..data/greeting", rig.path("store/greeting")).unwrap();
    let agent = rig.start();
    agent.wait_for(&rig, "web", "one");
    rig.write("store/..2/greeting", "two");
    symlink("..2", rig.path("store/..new")).unwrap();
    fs::rename(rig.path("store/..new"), rig.path("store/..data")).unwrap();
    agent.wait_for(&rig, "web", "two");
}

#[test]
fn no_change_is_lost_while_the_agent_is_busy() {
    let rig = Rig::new();
    rig.keep(
        "web",
        "{{ greeting }}",
        "reload = \"sleep 0.05\"\nquiescence = { min = \"0s\" }",
        "greeting = \"/greeting\"",
    );
    rig.set("/greeting", "0");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "0");
    for number in 1..=2000 {
        rig.set("/greeting", &number.to_string());
    }
    agent.wait_for(&rig, "web", "2000");
}
