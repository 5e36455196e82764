//! Every template in `tests/templates`: what is read from it, what is wrong in it, and some of them built.

use std::fs;
use std::path::{Path, PathBuf};

use crate::rig::{Ended, Rig, wait_for};

/// A rig with a copy of the templates, in which every program is run.
struct Templates {
    rig: Rig,
}

/// What slide 12 calls `/tmp/myplay.yml`, removed when the test ends.
struct Play;

impl Play {
    fn write(text: &str) -> Self {
        fs::write("/tmp/myplay.yml", text).unwrap();
        Self
    }
}

impl Drop for Play {
    fn drop(&mut self) {
        let _ = fs::remove_file("/tmp/myplay.yml");
    }
}

impl Templates {
    fn new() -> Self {
        let mut rig = Rig::new();
        rig.without_manifest();
        let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
        cli::Command::new("cp").arg("-r").arg(templates).arg(rig.path().join("templates")).run().unwrap();
        Self { rig }
    }

    fn path(&self, file: &str) -> PathBuf {
        self.rig.path().join("templates").join(file)
    }

    /// Runs `imager` where the templates are, without a manifest.
    fn imager(&self, arguments: &[&str]) -> Ended {
        let program = self.rig.program("imager").args(arguments).current_dir(self.path(""));
        let piped = std::process::Stdio::piped;
        let program = program.configure(|command| _ = command.stdout(piped()).stderr(piped()));
        Ended::of(program.spawn().unwrap().wait_with_output().unwrap())
    }

    fn build(&self, arguments: &[&str]) -> Ended {
        let all: Vec<_> = ["build"].iter().chain(arguments).copied().collect();
        let ended = self.imager(&all);
        assert_eq!(ended.code, Some(0), "{arguments:?}:\n{}{}", ended.stdout, ended.stderr);
        ended
    }

    /// What is in a file of the image that `ended` has printed the id of.
    fn read(&self, ended: &Ended, file: &str) -> String {
        let id = ended.stdout.trim().lines().last().unwrap();
        self.rig.read_from(&self.rig.state().join("images").join(id).join("disk.raw"), file)
    }

    /// A text without what differs from run to run.
    fn steady(&self, text: &str) -> String {
        let mut text = text.replace(&self.rig.path().display().to_string(), "[rig]");
        for (pattern, name) in [
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[uuid]"),
            (r"\b(img|vol)-[0-9a-f]{12}\b", "$1-[id]"),
            (r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", "[time]"),
            (r"\b1\d{9}\b", "[timestamp]"),
            (r"kiln-script\.\w+", "kiln-script"),
        ] {
            text = regex::Regex::new(pattern).unwrap().replace_all(&text, name).into_owned();
        }
        text
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    names
}

#[test]
fn every_template_is_valid_and_read_as_it_is_meant() {
    let templates = Templates::new();
    let _play = Play::write(PLAY);
    templates.rig.run("imager", &["alias", "ami-1234abcd", "bookworm"]);
    let names = names(&templates.path(""));
    assert!(names.len() >= 25, "{names:?}");
    for name in names {
        let variables: &[&str] = if name == "variables.json" { &["-var", "required=given"] } else { &[] };
        let valid = templates.imager(&[&["validate", &name], variables].concat());
        assert_eq!(
            (valid.code, valid.stdout.trim()),
            (Some(0), "The configuration is valid."),
            "{name}: {}",
            valid.stderr
        );
        let shown = templates.imager(&[&["inspect", &name], variables].concat());
        let home = std::env::var("HOME").unwrap();
        let shown = format!("{}{}", valid.stderr, shown.stdout.replace(&format!("\"{home}\""), "\"[home]\""));
        insta::assert_snapshot!(name.trim_end_matches(".json"), templates.steady(&shown));
    }
    assert!(!templates.rig.state().join("volumes").exists() && !templates.rig.state().join("layers").exists());
}

#[test]
fn every_broken_template_is_refused_with_the_line_that_is_wrong() {
    let templates = Templates::new();
    let mut messages = String::new();
    for name in names(&templates.path("broken")) {
        let ended = templates.imager(&["validate", &format!("broken/{name}")]);
        assert_eq!(ended.code, Some(2), "{name}: {}", ended.stderr);
        assert_eq!(ended.stderr.matches("error:").count(), 1, "{}", ended.stderr);
        messages += &templates.steady(&ended.stderr);
    }
    insta::assert_snapshot!(messages);
}

#[test]
fn volumes_are_made_from_nothing_and_images_of_them_are_built_on() {
    let templates = Templates::new();
    let ended = templates.build(&["from-scratch.json"]);
    let ids: Vec<_> = ended.stdout.lines().collect();
    let disk = |id: &str| templates.rig.state().join("images").join(id).join("disk.raw");
    assert_eq!(fs::metadata(disk(ids[0])).unwrap().len(), 1 << 30);
    // The whole disk is the file system; debugfs needs no offset.
    let paravirtual = |request: &str| {
        let disk = disk(ids[1]).display().to_string();
        cli::Command::new("debugfs").args(["-R", request, &disk]).run().unwrap().text()
    };
    assert_eq!(paravirtual("cat /made"), "made");
    assert_eq!(paravirtual("cat /filled"), "filled");

    // From a layer: what filled the volume has not run again.
    let changed = templates.build(&["-var", "last=two", "from-scratch.json"]);
    assert_eq!(changed.stderr.matches(": shell: cached").count(), 2, "{}", changed.stderr);

    // The image remembers that its root is on partition 2.
    let further = r#"{ "builders": [{ "type": "chroot", "source_image": "scratch-amazon", "image_name": "further" }],
      "provisioners": [{ "type": "shell", "inline": ["cat /filled /last > /further"] }] }"#;
    fs::write(templates.path("further.json"), further).unwrap();
    templates.build(&["further.json"]);
    let diff = templates.rig.run("imager", &["diff", "scratch-amazon", "further"]).stdout;
    assert!(diff.contains("/further"), "{diff}");
}

#[test]
fn a_source_is_found_by_what_it_is_like() {
    let templates = Templates::new();
    let ended = templates.build(&["source-filter.json"]);
    let images = templates.rig.run("imager", &["images"]).stdout;
    assert!(images.contains("of-filter-debian-bookworm") && ended.stdout.lines().count() == 2, "{images}");
    // Of two that fit, one has to be meant.
    let copy =
        r#"{ "builders": [{ "type": "chroot", "source_image": "bookworm", "image_name": "debian-bookworm-copy" }] }"#;
    fs::write(templates.path("copy.json"), copy).unwrap();
    templates.build(&["copy.json"]);
    let ambiguous = templates.imager(&["validate", "-only=neutral", "source-filter.json"]);
    assert_eq!(ambiguous.code, Some(2), "{}", ambiguous.stderr);
    assert!(ambiguous.stderr.contains("2 images are like that"), "{}", ambiguous.stderr);
}

#[test]
fn a_wrapper_is_put_around_every_command() {
    let templates = Templates::new();
    let ended = templates.build(&["command-wrapper.json"]);
    assert!(ended.stderr.contains("amazon-chroot: yes\n"), "{}", ended.stderr);
    assert_eq!(templates.read(&ended, "/wrapped"), "/tmp/kiln-script.sh it's 2");
}

#[test]
fn the_slides_of_the_talk_run_as_they_are() {
    let templates = Templates::new();
    let _play = Play::write(PLAY);
    templates.rig.run("imager", &["alias", "ami-1234abcd", "bookworm"]);
    let ended = templates.build(&["talk.json"]);
    assert_eq!(templates.read(&ended, "/from-the-talk"), "ansiblefest build-aws-hvm amazon-chroot");
    let image = templates.rig.run("imager", &["inspect", "ansiblefest-2016-v1"]).stdout;
    assert!(image.contains(r#""component": "ansiblefest""#), "{image}");

    // The same again is there already; something else under the name is refused before anything is made.
    assert!(templates.build(&["talk.json"]).stderr.contains("unchanged"));
    fs::write("/tmp/myplay.yml", format!("{PLAY}\n# another\n")).unwrap();
    let refused = templates.imager(&["build", "talk.json"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("the image name 'ansiblefest-2016-v1' is taken by img-"), "{}", refused.stderr);
}

const PLAY: &str = "- hosts: all\n  tasks:\n    - ansible.builtin.copy:\n        dest: /from-the-talk\n        \
                    content: \"{{ component }} {{ packer_build_name }} {{ packer_builder_type }}\"\n";

#[test]
fn shell_does_what_its_options_say() {
    let templates = Templates::new();
    let ended = templates.build(&["shell-environment.json"]);
    let read = |file: &str| templates.read(&ended, file);
    assert_eq!([read("/a"), read("/b"), read("/c"), read("/d")], ["it's b b", "1 2", "3", "4"]);
    let ended = templates.build(&["-force", "shell-remote.json"]);
    assert_eq!(templates.read(&ended, "/where"), "/var/tmp/mine.sh\n/root/mine.sh");
    assert!(templates.read(&ended, "/root/mine.sh").contains("echo $0"));
    assert!(
        ended.stderr.contains("expect_disconnect and start_retry_timeout: there is no connection"),
        "{}",
        ended.stderr
    );
    let ended = templates.build(&["--force", "shell-scripts.json"]);
    assert_eq!(templates.read(&ended, "/scripts"), "script \nscript \ndos\nscript");
}

#[test]
fn files_go_both_ways_and_local_scripts_see_the_volume() {
    let templates = Templates::new();
    let ended = templates.build(&["file-download.json"]);
    assert_eq!(templates.read(&ended, "/opt/generated"), "made");
    assert_eq!(fs::read_to_string(templates.path("fetched/generated")).unwrap(), "made\n");
    assert!(fs::read_to_string(templates.path("fetched/release")).unwrap().contains("ID=debian"));
    let ended = templates.build(&["-force", "file-upload.json"]);
    assert!(templates.read(&ended, "/opt/script.sh").contains("script"));
    assert!(templates.read(&ended, "/opt/scripts/dos.sh").contains("dos"));
    assert!(templates.read(&ended, "/opt/roles/greeting/tasks/main.yml").contains("from-role"));
    let ended = templates.build(&["-force", "shell-local.json"]);
    let expected = format!("it's b {}", templates.path("").display());
    assert!(ended.stderr.contains(expected.trim_end_matches('/')), "{}", ended.stderr);
    templates.build(&["-force", "build-data.json"]);
    let image = templates.rig.run("imager", &["inspect", "bookworm"]).stdout;
    let data = fs::read_to_string(templates.path("build-data")).unwrap();
    assert!(data.ends_with(" eu-west-1\n") && image.contains(data.trim_end_matches(" eu-west-1\n")), "{data}");
}

#[test]
fn ansible_runs_inside_and_from_the_host_and_fetches_roles() {
    let templates = Templates::new();
    let ended = templates.build(&["ansible-local-groups.json"]);
    assert_eq!(templates.read(&ended, "/from-site"), "from group_vars b");
    let ended = templates.build(&["-force", "ansible.json"]);
    assert_eq!(templates.read(&ended, "/from-role"), "volume environment");

    let role = templates.path("role");
    cli::Command::new("cp").arg("-r").arg(templates.path("files/roles/greeting")).arg(&role).run().unwrap();
    fs::create_dir(role.join("meta")).unwrap();
    fs::write(role.join("meta/main.yml"), "galaxy_info: { author: test, description: a role }\n").unwrap();
    commit_all(&role);
    let requirements = format!("roles:\n  - src: git+file://{}\n    name: fetched\n", role.display());
    fs::write(templates.path("requirements.yml"), requirements).unwrap();
    let ended = templates.build(&["-force", "galaxy.json"]);
    assert_eq!(templates.read(&ended, "/from-role").trim(), "127.0.0.1");
    // When a role was fetched is no part of what it is.
    assert!(templates.build(&["galaxy.json"]).stderr.contains("unchanged"));
}

/// Makes a directory a repository, with all that is in it as its first commit.
fn commit_all(directory: &Path) {
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        cli::Command::new("git").current_dir(directory).args(identity).args(arguments).run().unwrap()
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message", "first"]);
}

#[test]
fn a_collection_is_fetched_and_an_inventory_is_the_users() {
    let templates = Templates::new();
    let collection = templates.path("fetched-collection");
    fs::create_dir_all(collection.join("roles/greet/tasks")).unwrap();
    let galaxy = "namespace: ours\nname: greetings\nversion: 1.0.0\nreadme: README.md\nauthors: [test]\n";
    fs::write(collection.join("galaxy.yml"), galaxy).unwrap();
    fs::write(collection.join("README.md"), "greetings\n").unwrap();
    let tasks = "- ansible.builtin.copy: { dest: /from-collection, content: \"{{ inventory_hostname }} {{ a | default(0) }}\" }\n";
    fs::write(collection.join("roles/greet/tasks/main.yml"), tasks).unwrap();
    commit_all(&collection);
    let requirements =
        format!("collections:\n  - name: git+file://{}\n    type: git\n    version: main\n", collection.display());
    fs::write(templates.path("requirements.yml"), requirements).unwrap();
    let play = "- hosts: all\n  roles: [ours.greetings.greet]\n";
    fs::write(templates.path("files/from-galaxy.yml"), play).unwrap();
    let ended = templates.build(&["galaxy.json"]);
    assert_eq!(templates.read(&ended, "/from-collection"), "127.0.0.1 0");
    assert!(templates.build(&["galaxy.json"]).stderr.contains("unchanged"));

    let with = |option: &str| {
        let template = format!(
            r#"{{ "builders": [{{ "type": "chroot", "source_image": "bookworm", "image_name": "inventory", "force_deregister": true }}],
              "provisioners": [{{ "type": "ansible", "playbook_file": "files/from-galaxy.yml", "galaxy_file": "requirements.yml", {option} }}] }}"#
        );
        fs::write(templates.path("inventory.json"), template).unwrap();
        templates.read(&templates.build(&["inventory.json"]), "/from-collection")
    };
    fs::write(templates.path("hosts"), "volume a=1\n").unwrap();
    assert_eq!(with(r#""inventory_file": "hosts""#), "volume 1");
    assert_eq!(with(r#""inventory_file_template": "{{.HostAlias}} a=2\n", "host_alias": "named""#), "named 2");
    fs::create_dir(templates.path("inventory")).unwrap();
    fs::write(templates.path("inventory/hosts"), "listed a=3\n").unwrap();
    assert_eq!(with(r#""inventory_directory": "inventory""#), "listed 3");
}

#[test]
fn post_processors_follow_each_other_with_packers_manifest() {
    let templates = Templates::new();
    templates.build(&["post-sequence.json"]);
    let after = fs::read_to_string(templates.path("after")).unwrap();
    assert_eq!(after, "after one\n", "what follows a post-processor that is left out is left out");
    let read = |file: &str| templates.steady(&fs::read_to_string(templates.path(file)).unwrap());
    insta::assert_snapshot!(format!("{}\n{}", read("packer-manifest.json"), read("second.json")));
}

#[test]
fn machines_are_told_in_packers_lines_and_no_secret() {
    let templates = Templates::new();
    let ended = templates.build(&["-machine-readable", "-var", "token=hunter2", "sensitive.json"]);
    assert_eq!(ended.stderr, "");
    assert!(!ended.stdout.contains("hunter2"), "{}", ended.stdout);
    // Which steps there are is bake's own business; how they are told is not.
    assert!(ended.stdout.contains(",,ui,say,==> b: Provisioning with shell...\n"), "{}", ended.stdout);
    let lines = |ended: &Ended| -> String {
        ended.stdout.lines().filter(|line| !line.contains(",,ui,say,==> b: ")).map(|line| format!("{line}\n")).collect()
    };
    insta::assert_snapshot!("machine_readable", templates.steady(&lines(&ended)));

    let failing = templates.path("failing.json");
    let template = fs::read_to_string(templates.path("sensitive.json")).unwrap().replace("echo {{", "false; echo {{");
    fs::write(&failing, template).unwrap();
    let ended = templates.imager(&["build", "-force", "-machine-readable", "failing.json"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    for expected in
        [",,error-count,1\n", ",b,error,builder 'b': provisioner shell: ", ",,ui,error,error: builder 'b': "]
    {
        assert!(ended.stdout.contains(expected), "{expected} is not in {}", ended.stdout);
    }
}

#[test]
fn flags_are_packers() {
    let templates = Templates::new();
    let ended =
        templates.build(&["-only=one", "-parallel-builds=1", "-on-error=cleanup", "-color=false", "only-except.json"]);
    assert_eq!(ended.stdout.lines().count(), 1);
    assert!(ended.stderr.contains("one: one") && !ended.stderr.contains("two"), "{}", ended.stderr);
    let ended = templates.build(&["--except", "one", "--parallel-builds", "2", "only-except.json"]);
    assert!(ended.stderr.contains("two: two"), "{}", ended.stderr);
    let ended = templates.imager(&["build", "-on-error=ask", "only-except.json"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("-on-error=ask needs a terminal"), "{}", ended.stderr);
    let ended = templates.imager(&["build", "artifact.json"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("run with the --manifest that `artifact build` wrote"), "{}", ended.stderr);

    fs::write(templates.path("failing.json"), FAILING).unwrap();
    let ended = templates.imager(&["build", "-on-error=abort", "failing.json"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("note: the next run removes the volume vol-"), "{}", ended.stderr);
    let disks = || {
        cli::Command::new("find")
            .arg(templates.rig.state().join("tmp"))
            .args(["-name", "disk.raw"])
            .run()
            .unwrap()
            .text()
    };
    assert!(!disks().is_empty());
    templates.imager(&["images"]);
    templates.build(&["-force", "comments.json"]);
    wait_for("the kept volume to be removed", || disks().is_empty().then_some(()));
}

const FAILING: &str = r#"{ "builders": [{ "name": "b", "type": "chroot", "source_image": "bookworm", "image_name": "failing" }],
  "provisioners": [{ "type": "shell", "inline": ["exit 1"] }] }"#;

#[test]
fn a_breakpoint_without_a_terminal_is_refused_before_anything_is_made() {
    let templates = Templates::new();
    let template = fs::read_to_string(templates.path("breakpoint.json")).unwrap();
    fs::write(templates.path("waiting.json"), template.replace("\"disable\": true, ", "")).unwrap();
    assert_eq!(templates.imager(&["validate", "waiting.json"]).code, Some(0));
    let ended = templates.imager(&["build", "waiting.json"]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains(":3: a breakpoint waits for Enter, and there is no terminal"), "{}", ended.stderr);
    let ended = templates.build(&["breakpoint.json"]);
    assert!(ended.stderr.contains("with note \"look at b\" is disabled"), "{}", ended.stderr);
}

#[test]
fn neutral_names_and_mounts_build_as_amazons_do() {
    let templates = Templates::new();
    let ended = templates.build(&["chroot.json"]);
    assert_eq!(templates.read(&ended, "/type"), "chroot");
    templates.rig.run("imager", &["inspect", "image-chroot"]);
    templates.build(&["mounts.json"]);
}
