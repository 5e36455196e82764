//! A start while the store is down.

use std::fs;

use super::rig::{Rig, comes_true};

const VALUES: &str = "greeting = \"/web/greeting\"";

#[test]
fn files_come_from_the_cache_while_the_store_is_down() {
    let rig = Rig::new();
    rig.keep("web", "greeting={{ greeting }}\n", "", VALUES);
    rig.keep("other", "other={{ greeting }}\n", "", VALUES);
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "other", "other=hello\n");
    agent.wait("it is kept", || {
        rig.path("state/values/web.json").exists() && rig.path("state/values/other.json").exists()
    });
    agent.terminate();
    // As at a boot where the destination is on a tmpfs and the store is not reachable.
    fs::remove_file(rig.path("out/web")).unwrap();
    rig.write("out/other", "other=newer\n");
    fs::rename(rig.path("store"), rig.path("elsewhere")).unwrap();
    let agent = rig.start();
    agent.wait_for(&rig, "web", "greeting=hello\n");
    assert_eq!(rig.out("other"), "other=newer\n", "what is there stays");
    assert_eq!(agent.status()["store"]["connected"], false);
    rig.write("elsewhere/web/greeting", "good day");
    fs::rename(rig.path("elsewhere"), rig.path("store")).unwrap();
    agent.wait_for(&rig, "web", "greeting=good day\n");
    agent.wait_for(&rig, "other", "other=good day\n");
}

#[test]
fn only_root_reads_the_cache() {
    use std::os::unix::fs::PermissionsExt;
    let rig = Rig::new();
    rig.keep("web", "greeting={{ greeting }}\n", "", VALUES);
    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait("it is kept", || rig.path("state/values/web.json").exists());
    let mode = |name: &str| fs::metadata(rig.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("state"), mode("state/values"), mode("state/values/web.json")), (0o700, 0o700, 0o600));
    assert_eq!(mode("agent.sock"), 0o600);
}

#[test]
fn systemd_is_told_when_every_file_is_there() {
    let rig = Rig::new();
    rig.keep("web", "greeting={{ greeting }}\n", "", VALUES);
    let socket = std::os::unix::net::UnixDatagram::bind(rig.path("notify")).unwrap();
    socket.set_nonblocking(true).unwrap();
    let agent = rig.start_with(&[("NOTIFY_SOCKET", rig.path("notify").to_str().unwrap())]);
    agent.wait_until_said("the store has no /web/greeting");
    let mut buffer = [0; 64];
    assert!(socket.recv(&mut buffer).is_err(), "there is no file yet");
    rig.set("/web/greeting", "hello");
    let mut said = String::new();
    assert!(comes_true(|| {
        said = socket
            .recv(&mut buffer)
            .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
            .unwrap_or_default();
        !said.is_empty()
    }));
    assert_eq!(said.trim(), "READY=1");
    assert_eq!(rig.out("web"), "greeting=hello\n");
}
