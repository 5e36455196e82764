//! Ansible's modules in one process that stays: the same tree as without, in less time.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::ansible_image;
use crate::rig::{Rig, succeeded};
use crate::tree::{differences, tree};

/// A template whose play is run by the Ansible of the source image, or by the host's where it has none.
fn template(source: &str, name: &str) -> String {
    format!(
        r#"{{ "builders": [{{ "name": "b", "type": "chroot", "source_image": "{source}", "image_name": "{name}",
                  "isolation": "chroot" }}],
  "provisioners": [{{ "type": "ansible-local", "playbook_file": "play/site.yml", "playbook_dir": "play" }}] }}"#
    )
}

/// A play with modules that are unlike each other in how they are started and in what they do.
fn write_play(directory: &Path) {
    let play = directory.join("play");
    for part in ["files", "templates", "library", "module_utils"] {
        fs::create_dir_all(play.join(part)).unwrap();
    }
    fs::write(play.join("files/script.sh"), "#!/bin/sh\necho \"$0\" | sed s,.*/,, > /from-script\n").unwrap();
    fs::write(play.join("templates/t.j2"), "{{ ansible_distribution }} {{ inventory_hostname }}\n").unwrap();
    fs::write(play.join("module_utils/ours.py"), "WORD = 'ours'\n").unwrap();
    fs::write(play.join("library/own.py"), OWN_MODULE).unwrap();
    fs::write(play.join("library/old.sh"), "#!/bin/sh\necho old > /from-old\necho '{\"changed\": true}'\n").unwrap();
    fs::write(play.join("site.yml"), PLAY).unwrap();
}

const OWN_MODULE: &str = r#"#!/usr/bin/python3
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.ours import WORD
import atexit, os, threading

def main():
    module = AnsibleModule(argument_spec=dict(path=dict(type="path", required=True)))
    def write(name, text):
        with open(module.params["path"] + name, "w") as file:
            file.write(text)
    atexit.register(write, "-atexit", "done")
    threading.Thread(target=write, args=("-thread", "done")).start()
    write("", "%s %s %s\n" % (WORD, sorted(os.environ.items()), os.getcwd()))
    module.exit_json(changed=True, umask=os.umask(0o22))

main()
"#;

const PLAY: &str = r#"- hosts: all
  environment:
    FOR_ALL: "a 'quoted' $value"
  tasks:
    - ansible.builtin.apt: { name: cron, update_cache: true, install_recommends: false }
    - ansible.builtin.group: { name: ours, system: true }
    - ansible.builtin.user: { name: ours, group: ours, home: /srv/ours, shell: /bin/sh, system: true }
    - ansible.builtin.copy: { content: "text\n", dest: /etc/copied, owner: ours, mode: "0640" }
    - ansible.builtin.template: { src: t.j2, dest: /etc/from-template }
    - ansible.builtin.lineinfile: { path: /etc/copied, line: another }
    - ansible.builtin.blockinfile: { path: /etc/copied, block: "a block" }
    - ansible.builtin.file: { path: /srv/ours/deep/er, state: directory, owner: ours }
    - ansible.builtin.cron: { name: job, minute: "5", job: /bin/true }
    - ansible.builtin.systemd: { name: cron, enabled: false, masked: true }
    - ansible.builtin.service: { name: cron, state: stopped }
    - ansible.builtin.command: "printenv FOR_ALL LC_ALL"
      environment: { LC_ALL: C.UTF-8 }
      register: printed
    - ansible.builtin.copy: { content: "{{ printed.stdout }}\n", dest: /etc/printed }
    - ansible.builtin.shell: "echo $((1 + 2)); exit 3"
      args: { executable: /bin/bash, chdir: /srv }
      register: failing
      failed_when: failing.rc != 3
    - ansible.builtin.script: script.sh
    - ansible.builtin.raw: "echo raw > /from-raw"
    - ansible.builtin.shell: "echo async > /from-async"
      async: 20
      poll: 1
    - own: { path: /from-own }
    - old:
    - ansible.builtin.stat: { path: /etc/copied, checksum_algorithm: sha256 }
      register: stat
    - ansible.builtin.copy: { content: "{{ stat.stat.checksum }}\n", dest: /etc/checksum }
    - ansible.builtin.slurp: { src: /etc/printed }
    - ansible.builtin.command: touch /etc/delegated
      delegate_to: localhost
    - ansible.builtin.fail: { msg: never }
      when: ansible_service_mgr is not defined
    - ansible.builtin.shell: exit 4
      register: ignored
      ignore_errors: true
    - ansible.builtin.assert: { that: ignored.rc == 4 }
"#;

/// Both trees of one source, and how long the provisioner took for each.
fn both(rig: &Rig, source: &str) -> [(BTreeMap<String, String>, u64); 2] {
    [(&[][..], "with"), (&["--no-accelerate"][..], "without")].map(|(arguments, name)| {
        let path = rig.path().join(format!("{name}.json"));
        fs::write(&path, template(source, &format!("{source}-{name}"))).unwrap();
        let path = path.display().to_string();
        let ended = succeeded(rig.ask("imager", &[&["build", "--no-cache", &path], arguments].concat()));
        let seconds = ended.stderr.lines().find_map(|line| line.split_once("b: ansible-local: ")?.1.split_once(' '));
        let millis = seconds.unwrap().0.parse::<f64>().unwrap() * 1000.0;
        let disk = rig.state().join("images").join(ended.stdout.trim()).join("disk.raw");
        (tree(&disk), millis as u64)
    })
}

fn the_trees_are_the_same(rig: &Rig, source: &str) {
    write_play(rig.path());
    let [(with, fast), (without, slow)] = both(rig, source);
    assert!(
        with.contains_key("from-old") && with.contains_key("from-own-atexit") && with.contains_key("from-own-thread")
    );
    let mut differences = differences(&with, &without);
    // Ansible leaves the files of asynchronous tasks under a name of the moment, and crontab(1) writes the moment down.
    differences
        .retain(|name| !name.starts_with("root/.ansible/tmp/ansible-tmp-") && !name.starts_with("var/spool/cron/"));
    assert!(differences.is_empty(), "{differences:#?}");
    assert!(fast < slow, "{fast} ms with it, {slow} without");
}

#[test]
fn with_the_hosts_ansible_the_trees_are_the_same() {
    let mut rig = Rig::new();
    rig.without_manifest();
    the_trees_are_the_same(&rig, "bookworm");
}

#[test]
fn with_the_images_ansible_the_trees_are_the_same() {
    let rig = ansible_image::rig();
    the_trees_are_the_same(&rig, ansible_image::NAME);
}

#[test]
fn a_module_that_is_killed_fails_its_task_and_the_next_one_runs() {
    let mut rig = Rig::new();
    rig.without_manifest();
    fs::create_dir_all(rig.path().join("play/library")).unwrap();
    let dies = "#!/usr/bin/python3\nfrom ansible.module_utils.basic import AnsibleModule\nimport os\n\
                module = AnsibleModule(argument_spec={})\nos.kill(os.getpid(), 9)\n";
    fs::write(rig.path().join("play/library/dies.py"), dies).unwrap();
    let play = "- hosts: all\n  tasks:\n  - dies:\n    ignore_errors: true\n    register: it\n\
                \x20 - ansible.builtin.assert: { that: [it is failed, it.rc == -9] }\n  - ansible.builtin.command: touch /after\n";
    fs::write(rig.path().join("play/site.yml"), play).unwrap();
    fs::write(rig.path().join("t.json"), template("bookworm", "died")).unwrap();
    let started = Instant::now();
    succeeded(rig.ask("imager", &["build", "t.json"]));
    assert!(started.elapsed() < Duration::from_secs(60));
}
