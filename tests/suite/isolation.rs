//! Isolation: services that start, services that do not, and what neither leaves.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use manifest::Isolation;
use rustix::process::{Pid, Signal, kill_process};

use crate::rig::{Ended, Rig, processes_with, rig_with_artifact as rig, shell, succeeded, wait_for};

/// What the role has made besides a server, whatever started meanwhile.
fn assert_role_is_there(rig: &Rig) {
    let disk = rig.volume_disk("b");
    assert!(rig.read_from(&disk, "/etc/passwd").contains("keeper:"));
    assert!(rig.read_from(&disk, "/var/spool/cron/crontabs/keeper").contains("7 * * * * /bin/true"));
    assert!(rig.read_from(&disk, "/etc/systemd/system/look.service").contains("echo Debian"));
    for unit in ["redis-server", "look", "cron"] {
        let wanted = format!("stat /etc/systemd/system/multi-user.target.wants/{unit}.service");
        assert!(rig.debugfs(&disk, &wanted).contains("Inode"), "{unit} is not enabled");
    }
}

/// A template of one builder with this isolation and these provisioners.
fn template(isolation: &str, provisioners: &str) -> String {
    format!(
        r#"{{ "builders": [{{ "name": "b", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-b",
                  "force_deregister": true, "isolation": "{isolation}" }}],
  "provisioners": [{provisioners}] }}"#
    )
}

/// A role that installs a server, configures it, restarts it by a handler, and talks to it.
fn write_role(directory: &Path, talks: bool) {
    let role = directory.join("roles/cache");
    for part in ["tasks", "handlers", "templates"] {
        fs::create_dir_all(role.join(part)).unwrap();
    }
    let mut tasks = String::from(
        "- ansible.builtin.apt: { name: redis-server, update_cache: true, install_recommends: false }\n\
         - ansible.builtin.lineinfile: { path: /etc/redis/redis.conf, regexp: '^port ', line: port 6400 }\n\
         \x20 notify: restart the cache\n\
         - ansible.builtin.group: { name: keepers, system: true }\n\
         - ansible.builtin.user: { name: keeper, group: keepers, system: true, shell: /usr/sbin/nologin }\n\
         - ansible.builtin.apt: { name: cron, install_recommends: false }\n\
         - ansible.builtin.cron: { name: look, user: keeper, minute: '7', job: /bin/true }\n\
         - ansible.builtin.template: { src: look.service.j2, dest: /etc/systemd/system/look.service }\n\
         \x20 notify: reload systemd\n\
         - ansible.builtin.systemd: { name: look, enabled: true, daemon_reload: true }\n\
         - ansible.builtin.service: { name: redis-server, state: started, enabled: true }\n\
         - ansible.builtin.meta: flush_handlers\n",
    );
    if talks {
        tasks.push_str(
            "- ansible.builtin.wait_for: { port: 6400, timeout: 20 }\n\
             - ansible.builtin.command: redis-cli -p 6400 set colour blue\n\
             - ansible.builtin.command: redis-cli -p 6400 save\n",
        );
    }
    fs::write(role.join("tasks/main.yml"), tasks).unwrap();
    let handlers = "- name: restart the cache\n  ansible.builtin.service: { name: redis-server, state: restarted }\n\
                    - name: reload systemd\n  ansible.builtin.systemd: { daemon_reload: true }\n";
    let unit = "[Unit]\nAfter=redis-server.service\n[Service]\nType=oneshot\nUser=keeper\n\
                ExecStart=/bin/echo {{ ansible_distribution }}\n[Install]\nWantedBy=multi-user.target\n";
    fs::write(role.join("templates/look.service.j2"), unit).unwrap();
    fs::write(role.join("handlers/main.yml"), handlers).unwrap();
    fs::write(directory.join("site.yml"), "- hosts: all\n  roles: [cache]\n").unwrap();
}

const PLAY: &str = r#"{ "type": "ansible-local", "playbook_file": "site.yml", "role_paths": ["roles/cache"] }"#;

#[test]
fn services_start_and_handlers_restart_them() {
    let rig = rig();
    write_role(rig.path(), true);
    let after = shell("redis-cli -p 6400 get colour > /colour; systemctl is-active redis-server >> /colour");
    succeeded(rig.provision(&template("boot", &[PLAY, &after].join(",")), &[]));
    let disk = rig.volume_disk("b");
    assert_eq!(rig.manifest().volumes["b"].isolation, Isolation::Boot);
    assert_eq!(rig.read_from(&disk, "/colour"), "blue\nactive", "the service starts at the next boot, with its data");
    assert!(rig.manifest().volumes["b"].provisioners.iter().all(|step| step.left_over.is_empty()));
    assert_role_is_there(&rig);
}

#[test]
fn in_a_chroot_the_same_role_starts_nothing_and_succeeds() {
    let rig = rig();
    write_role(rig.path(), false);
    let after = shell("if redis-cli -p 6400 ping; then exit 1; fi");
    succeeded(rig.provision(&template("chroot", &[PLAY, &after].join(",")), &[]));
    assert_eq!(rig.manifest().volumes["b"].isolation, Isolation::Chroot);
    assert_role_is_there(&rig);
}

#[test]
fn a_boot_leaves_no_trace() {
    let rig = rig();
    // The journal would be kept, a timer leaves a stamp, a private /tmp a directory.
    let first = shell(
        "mkdir -p /var/log/journal; echo kept > /tmp/for-the-next; systemctl start apt-daily.timer; \
         test $(wc -c < /etc/machine-id) = 33; test $(systemctl is-system-running) = running",
    );
    let second = shell("cp /tmp/for-the-next /kept; rm /tmp/for-the-next; journalctl --flush; logger a line");
    succeeded(rig.provision(&template("auto", &[first, second].join(",")), &[]));
    assert_eq!(rig.manifest().volumes["b"].isolation, Isolation::Boot, "auto is boot where that is possible");
    let disk = rig.volume_disk("b");
    assert_eq!(rig.read_from(&disk, "/etc/machine-id"), "", "every instance of the image has an identity of its own");
    assert_eq!(rig.read_from(&disk, "/kept"), "kept");
    assert!(rig.debugfs(&disk, "stat /etc/resolv.conf").contains("../run/systemd/resolve/stub-resolv.conf"));
    let names = |directory: &str| {
        let listed = rig.debugfs(&disk, &format!("ls -p {directory}"));
        let name = |line: &str| line.split('/').nth(5).map(str::to_owned);
        let names = listed.lines().filter_map(name).filter(|name| !["", ".", ".."].contains(&name.as_str()));
        names.collect::<Vec<_>>()
    };
    for empty in ["/tmp", "/var/tmp", "/var/log/journal", "/var/lib/systemd/timers", "/var/lib/dhcp"] {
        assert!(names(empty).is_empty(), "{empty}: {:?}", names(empty));
    }
    for (directory, absent) in [
        ("/var/lib/systemd", "random-seed"),
        ("/var/lib/cloud", "instances"),
        ("/var/lib/dbus", "machine-id"),
        ("/etc", ".updated"),
        ("/var", ".updated"),
        ("/etc", ".kiln-original-resolv.conf"),
        ("/usr/sbin", "policy-rc.d"),
    ] {
        assert!(!names(directory).contains(&absent.to_owned()), "{directory}/{absent} is there");
    }
    assert_eq!(rig.read_from(&disk, "/var/log/wtmp"), "");
}

#[test]
fn two_booted_builds_do_not_meet_on_a_port() {
    let rig = rig();
    let line = "systemd-run --quiet python3 -c 'import socket,time; s=socket.create_server((\"\", 7411)); \
                open(\"/listening\", \"w\").close(); time.sleep(60)'; \
                until test -e /listening; do sleep 0.05; done; sleep 1";
    let two = template("boot", &shell(line)).replace(
        "\"builders\": [",
        r#""builders": [{ "name": "a", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-a",
           "ami_virtualization_type": "paravirtual", "isolation": "boot" }, "#,
    );
    let _hosts_own = TcpListener::bind(("0.0.0.0", 7411)).unwrap();
    succeeded(rig.provision(&two, &[]));
    assert_eq!(rig.manifest().volumes.len(), 2);
}

#[test]
fn the_hosts_services_and_metadata_are_out_of_reach_and_the_rest_is_not() {
    let rig = rig();
    let host = TcpListener::bind(("0.0.0.0", 0)).unwrap();
    let port = host.local_addr().unwrap().port();
    let serving = host.try_clone().unwrap();
    std::thread::spawn(move || {
        for stream in serving.incoming().flatten() {
            let _ = { stream }.write_all(b"HTTP/1.0 200 OK\r\n\r\n");
        }
    });
    let own = cli::Command::new("hostname").arg("-I").run().unwrap().text();
    let own = own.split_whitespace().filter(|address| !address.contains(':')).map(|address| (address.to_owned(), port));
    let mut forbidden: Vec<_> = ["127.0.0.1", "10.0.2.2"].map(|address| (address.to_owned(), port)).into();
    forbidden.extend(own);
    forbidden.push(("169.254.169.254".into(), 80));
    forbidden.push(("169.254.170.2".into(), 80));
    let tries: String = forbidden.iter().map(|(address, port)| format!("try {address} {port}; ")).collect();
    let line = format!(
        "try() {{ if python3 -c 'import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)' \
         $1 $2 2>/dev/null; then echo $1 >> /reached; fi; }}; {tries} touch /tried; \
         ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; \
         apt-get update; apt-get install --yes --download-only hello; ls /var/cache/apt/archives/hello_*"
    );
    succeeded(rig.provision(&template("boot", &shell(&line)), &[]));
    let disk = rig.volume_disk("b");
    assert!(rig.debugfs(&disk, "stat /tried").contains("Inode"));
    assert_eq!(rig.read_from(&disk, "/reached"), "");
}

#[test]
fn what_a_provisioner_leaves_is_ended_and_what_systemd_started_is_not_blamed() {
    let rig = rig();
    let line = "systemd-run --quiet sleep 45671; setsid sleep 45672 >/dev/null 2>&1 &";
    let ended = succeeded(rig.provision(&template("boot", &shell(line)), &[]));
    assert!(ended.stderr.contains("shell left a process running, which was ended: sleep 45672"), "{}", ended.stderr);
    let steps = &rig.manifest().volumes["b"].provisioners;
    assert_eq!(steps[0].left_over.iter().map(|left| left.command_line.as_str()).collect::<Vec<_>>(), ["sleep 45672"]);
    assert!(processes_with("sleep 4567").is_empty());
}

#[test]
fn after_kill_9_of_a_booted_build_nothing_is_left() {
    let rig = rig();
    let path = rig.template(&template("boot", &shell("systemd-run --quiet sleep 34561; sleep 34562")));
    let mut imager = rig.spawn("imager", &["provision", &path]);
    let group = group_of("sleep 34562");
    imager.kill().unwrap();
    imager.wait().unwrap();
    rig.assert_nothing_left();
    wait_for("everything in the volume to end", || processes_with("sleep 3456").is_empty().then_some(()));
    wait_for("the control group to go", || (!group.exists()).then_some(()));
    succeeded(rig.provision(&template("boot", &shell("true")), &[]));
}

#[test]
fn sigterm_ends_a_booted_build_within_five_seconds() {
    let rig = rig();
    // The shutdown of this service would take a minute.
    let line = "systemd-run --quiet sh -c \"trap '' TERM; sleep 23451; sleep 23452\"; trap '' TERM; sleep 23453";
    let path = rig.template(&template("boot", &shell(line)));
    let imager = rig.spawn("imager", &["provision", &path]);
    let group = group_of("sleep 23453");
    let asked = Instant::now();
    kill_process(Pid::from_raw(imager.id().cast_signed()).unwrap(), Signal::TERM).unwrap();
    let ended = Ended::of(imager.wait_with_output().unwrap());
    assert!(asked.elapsed() < Duration::from_secs(5), "it took {:?}", asked.elapsed());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    rig.assert_nothing_left();
    assert!(processes_with("sleep 2345").is_empty() && !group.exists());
}

#[test]
fn an_isolation_that_there_is_not_is_a_fault_of_its_line() {
    let rig = rig();
    let ended = rig.provision(&template("jail", &shell("true")), &[]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("there is no isolation 'jail'"), "{}", ended.stderr);
    assert!(ended.stderr.contains("template.json:2"), "{}", ended.stderr);
}

/// The control group of the session that the process which is `processes_with` this text runs in.
fn group_of(text: &str) -> PathBuf {
    wait_for("the provisioner", || {
        let mut groups = processes_with(text).into_iter().filter_map(|process| {
            let pid = process.split(':').next()?.to_owned();
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
            let unified = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
            let group = unified.split('/').next().filter(|name| name.starts_with("kiln-build-"))?;
            Some(cli::cgroup::hierarchy().join(group))
        });
        groups.next()
    })
}
