//! `artifact build` as a user runs it, on repositories made for each test.
//!
//! The build path is fixed by component, so each test has a component name of its own.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cli::{Command, CommandError};
use manifest::Manifest;
use tempfile::TempDir;

/// A repository with one component in `app/`, and the places that builds of it use.
struct Line {
    home: TempDir,
    name: String,
}

impl Line {
    /// A component whose build makes a tree by `commands`.
    fn new(name: &str, commands: &str) -> Self {
        let line = Self { home: tempfile::tempdir().unwrap(), name: format!("{name}-{}", std::process::id()) };
        fs::create_dir_all(line.component()).unwrap();
        line.git(&["init", "--quiet", "--initial-branch=main"]);
        line.set_commands(commands);
        for file in ["image.json", "goss.yaml"] {
            fs::write(line.component().join(file), "{}").unwrap();
        }
        fs::write(line.component().join("run"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(line.component().join("run"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("run", line.component().join("link")).unwrap();
        line.commit("component");
        line
    }

    fn set_commands(&self, commands: &str) {
        let text = format!(
            "name = '{}'\nbuild.commands = {commands}\n\
             package.tree = {{ path = 'out', prefix = '/opt/app' }}\n\
             image = {{ template = 'image.json', builder = 'hvm' }}\ntest.gossfile = 'goss.yaml'\n\
             [deploy]\nport = 80\nhealth = '/'\ndns = 'app.internal'\n",
            self.name
        );
        fs::write(self.component().join("component.toml"), text).unwrap();
    }

    fn repository(&self) -> PathBuf {
        self.home.path().join("repository")
    }

    fn component(&self) -> PathBuf {
        self.repository().join("app")
    }

    fn git(&self, arguments: &[&str]) -> String {
        fs::create_dir_all(self.repository()).unwrap();
        let git = Command::new("git").arg("-C").arg(self.repository());
        let git = git.args(["-c", "user.name=Test", "-c", "user.email=test@example.org"]).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").run().unwrap().text()
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--message", message]);
    }

    fn artifact(&self, arguments: &[&str]) -> Command {
        let command = Command::new(env!("CARGO_BIN_EXE_artifact")).arg("build").args(arguments);
        let command = command.arg("--state-dir").arg(self.state()).arg("--manifest").arg(self.manifest_path());
        // What a shell has set must not show in what is built.
        command.env("GIT_DIR", "/nonexistent").env("SOURCE_DATE_EPOCH", "1").env("SECRET", "x")
    }

    fn build(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let source = self.component();
        self.artifact(&["--source", source.to_str().unwrap()]).args(arguments).run().map(|output| output.text())
    }

    /// Exit code and message of a build that does not succeed.
    fn refusal(&self, arguments: &[&str]) -> (Option<i32>, String) {
        match self.artifact(arguments).run() {
            Err(CommandError::Failed { status, tail, .. }) => (status.code(), tail),
            other => panic!("{other:?}"),
        }
    }

    fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    fn manifest_path(&self) -> PathBuf {
        self.home.path().join("manifest.json")
    }

    fn manifest(&self) -> Manifest {
        manifest::read(&self.manifest_path()).unwrap()
    }

    fn build_dir(&self) -> PathBuf {
        Path::new("/var/tmp/kiln-build").join(&self.name)
    }

    fn objects(&self) -> usize {
        walkdir::WalkDir::new(self.state().join("objects"))
            .into_iter()
            .flatten()
            .filter(|e| e.file_type().is_file())
            .count()
    }

    /// The names and contents of the files in an object.
    fn unpack(&self, digest: &str) -> Vec<(String, String)> {
        let object = self.state().join("objects/sha256").join(&digest[..2]).join(digest);
        let mut archive = tar::Archive::new(zstd::Decoder::new(fs::File::open(object).unwrap()).unwrap());
        let read = |entry: std::io::Result<tar::Entry<_>>| {
            let entry = entry.unwrap();
            let name = entry.path().unwrap().display().to_string();
            (name, std::io::read_to_string(entry).unwrap())
        };
        archive.entries().unwrap().map(read).collect()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.build_dir().with_extension("lock"));
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(command_line: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .any(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == command_line)
}

/// A build that shows everything that could differ between two.
const TELLING: &str = "['mkdir out', 'env | grep -v ^_ | sort > out/env', 'pwd > out/pwd', 'umask > out/umask', 'stat -c \"%n %a %Y\" [!o]* > out/files']";

#[test]
fn the_same_inputs_give_the_same_bytes_whoever_asks() {
    let line = Line::new("same", TELLING);
    let first = line.build(&[]).unwrap();
    fs::set_permissions(line.component().join("image.json"), fs::Permissions::from_mode(0o600)).unwrap();
    let root = line.repository();
    let again = line.artifact(&["--force", "--subdir", "app", "--source", root.to_str().unwrap()]);
    let again = again.env("TZ", "Asia/Tokyo").env("LANG", "C").run().unwrap().text();
    assert_eq!(first, again);
    assert_eq!(line.objects(), 2, "one source archive and one artifact");

    let manifest = line.manifest();
    let (source, artifact) = (manifest.source.unwrap(), manifest.artifact.unwrap());
    assert_eq!((artifact.identity.value, artifact.stamp.consumed), (first.clone(), source.archive.clone()));
    assert_eq!(source.tree, line.git(&["rev-parse", "HEAD:app"]));
    assert_eq!((source.repository, source.subdirectory), (root.display().to_string(), "app".to_owned()));
    assert_eq!(artifact.file_name, format!("{}_{}.tar.zst", line.name, source.version));

    let files = line.unpack(&first);
    let content = |name: &str| files.iter().find(|(found, _)| found == name).unwrap().1.clone();
    let build_dir = line.build_dir().display().to_string();
    assert_eq!(content("pwd"), format!("{build_dir}/source\n"));
    assert_eq!(content("umask"), "0022\n");
    let epoch = source.epoch;
    assert!(content("files").contains(&format!("image.json 644 {epoch}\n")), "{}", content("files"));
    assert!(content("files").contains(&format!("run 755 {epoch}\n")), "{}", content("files"));
    assert_eq!(
        content("env"),
        format!(
            "HOME={build_dir}/home\nKILN_COMMIT={}\nKILN_COMPONENT={}\nKILN_VERSION={}\nLANG=C.UTF-8\n\
             PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD={build_dir}/source\n\
             SOURCE_DATE_EPOCH={epoch}\nTMPDIR={build_dir}/tmp\nTZ=UTC\n",
            source.component_commit, line.name, source.version
        )
    );
    let names: Vec<_> = line.unpack(&source.archive.value).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["component.toml", "goss.yaml", "image.json", "link", "run"]);
    assert!(!line.build_dir().exists());
}

#[test]
fn a_commit_elsewhere_changes_nothing_and_nothing_is_built_twice() {
    let line = Line::new("elsewhere", TELLING);
    let first = line.build(&[]).unwrap();
    let before = line.manifest();
    fs::write(line.repository().join("README"), "elsewhere").unwrap();
    line.commit("elsewhere");
    line.git(&["commit", "--quiet", "--allow-empty", "--message", "nothing"]);

    let started = Instant::now();
    assert_eq!(line.build(&[]).unwrap(), first);
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
    let after = line.manifest();
    assert_eq!(after.artifact, before.artifact);
    let (before, after) = (before.source.unwrap(), after.source.unwrap());
    assert_eq!((&after.version, &after.archive), (&before.version, &before.archive));
    assert_eq!(after.commit, line.git(&["rev-parse", "HEAD"]));
    assert_eq!(line.build(&["--force"]).unwrap(), first);

    fs::write(line.component().join("run"), "changed").unwrap();
    assert_eq!(line.build(&[]).unwrap(), first, "what is not committed is not built");
    line.commit("changed");
    assert_ne!(line.build(&[]).unwrap(), first);
}

#[test]
fn an_object_that_the_store_lost_is_built_again() {
    let line = Line::new("lost", TELLING);
    let first = line.build(&[]).unwrap();
    fs::remove_dir_all(line.state().join("objects")).unwrap();
    assert_eq!(line.build(&[]).unwrap(), first);
    assert_eq!(line.objects(), 2);
}

#[test]
fn a_failing_build_is_a_verdict_that_leaves_everything_as_it_was() {
    let line = Line::new("failing", "['mkdir out']");
    line.build(&[]).unwrap();
    let before = (line.manifest(), line.objects());
    line.set_commands("['mkdir out', 'echo the reason; echo more >&2; sleep 4242 & exit 7', 'touch /nonexistent/x']");
    line.commit("broken");
    let source = line.component();
    let (code, message) = line.refusal(&["--source", source.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{message}");
    let expected = format!(
        "error: the build of {}: command 2 of 3 failed (exit status: 7): `echo the reason; echo more >&2; \
         sleep 4242 & exit 7`; its last lines:\nthe reason\nmore",
        line.name
    );
    assert!(message.ends_with(&expected), "{message}");
    assert_eq!((line.manifest(), line.objects()), before);
    assert!(!line.build_dir().exists());
    assert!(!is_running("sleep 4242"));
}

#[test]
fn what_a_build_command_leaves_running_ends_with_it() {
    let line = Line::new("left", "['mkdir out; setsid sleep 4343 & sleep 4343 &']");
    line.build(&[]).unwrap();
    assert!(!is_running("sleep 4343"));
}

#[test]
fn a_killed_run_leaves_no_process_and_the_next_run_succeeds() {
    let line = Line::new("killed", "['mkdir out; test -e /nonexistent/$KILN_COMMIT || setsid sleep 4444']");
    let source = line.component();
    let mut run = line.artifact(&["--source", source.to_str().unwrap()]).spawn().unwrap();
    wait_for("the build runs", || is_running("sleep 4444"));
    run.kill().unwrap();
    run.wait().unwrap();
    assert!(line.build_dir().exists());
    wait_for("its processes are gone", || !is_running("sleep 4444"));
    assert_eq!(line.objects(), 0);

    line.set_commands("['mkdir out']");
    line.commit("does not wait");
    line.build(&[]).unwrap();
    assert!(!line.build_dir().exists());
}

#[test]
fn an_interrupted_run_cleans_up() {
    let line = Line::new("interrupted", "['mkdir out; sleep 4545']");
    let source = line.component();
    let mut run = line.artifact(&["--source", source.to_str().unwrap()]).spawn().unwrap();
    wait_for("the build runs", || is_running("sleep 4545"));
    let pid = rustix::process::Pid::from_child(&run);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(run.wait().unwrap().code(), Some(130));
    assert!(!line.build_dir().exists());
    assert!(!is_running("sleep 4545"));
}

#[test]
fn a_second_run_names_the_first_and_takes_what_it_built() {
    let line = Line::new("second", "['mkdir out; until test -e \"$HOME/../go\"; do sleep 0.01; done; echo x > out/x']");
    let source = line.component();
    let source = source.to_str().unwrap();
    let mut first = line.artifact(&["--source", source]).spawn().unwrap();
    wait_for("the first run builds", || line.build_dir().join("source/out").exists());
    let (code, message) = line.refusal(&["--source", source, "--no-wait"]);
    assert_eq!(code, Some(3));
    assert!(message.contains(&format!("(pid {}, since ", first.id())), "{message}");

    let second = std::thread::scope(|scope| {
        let second = scope.spawn(|| line.build(&[]).unwrap());
        fs::write(line.build_dir().join("go"), "").unwrap();
        assert!(first.wait().unwrap().success());
        second.join().unwrap()
    });
    assert_eq!(line.manifest().artifact.unwrap().identity.value, second);
}

#[test]
fn a_url_is_fetched_and_what_is_new_there_is_found() {
    let line = Line::new("url", "['mkdir out', 'cp run out']");
    let url = format!("file://{}", line.repository().display());
    let build = |rev: &str| line.artifact(&["--source", &url, "--subdir", "app", "--rev", rev]).run().unwrap().text();
    let first = build("HEAD");
    assert_eq!(first, line.build(&[]).unwrap());
    fs::write(line.component().join("run"), "new").unwrap();
    line.git(&["checkout", "--quiet", "-b", "next"]);
    line.commit("new");
    let second = build("next");
    assert_ne!(first, second);
    assert_eq!(build("HEAD"), second, "HEAD is what it is over there now");
    assert_eq!(build("HEAD~1"), first);
    assert_eq!(line.manifest().source.unwrap().repository, url);
    let commit = line.git(&["rev-parse", "main"]);
    fs::rename(line.repository(), line.home.path().join("away")).unwrap();
    assert_eq!(build(&commit), first, "a commit that is here needs no network");
    let (code, message) = line.refusal(&["--source", &url]);
    assert_eq!(code, Some(3), "{message}");
    assert!(message.contains(&format!("fetching {url}: fatal: ")), "{message}");
    assert_eq!(build(&commit), first, "a failed fetch loses nothing");
}

#[test]
fn bare_repositories_and_roots_are_sources_too() {
    let line = Line::new("bare", "['mkdir out', 'cp run out']");
    let bare = line.home.path().join("bare.git");
    line.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let from_bare = line.artifact(&["--source", bare.to_str().unwrap(), "--subdir", "app"]).run().unwrap().text();
    assert_eq!(from_bare, line.build(&["--force"]).unwrap());

    line.git(&["mv", "app/component.toml", "app/goss.yaml", "app/image.json", "app/run", "."]);
    line.commit("at the root");
    let root = line.repository();
    let at_root = line.artifact(&["--source", root.to_str().unwrap()]).run().unwrap().text();
    let source = line.manifest().source.unwrap();
    assert_eq!((source.subdirectory.as_str(), source.component_commit), ("", source.commit));
    line.git(&["commit", "--quiet", "--allow-empty", "--message", "nothing"]);
    assert_eq!(line.artifact(&["--source", root.to_str().unwrap()]).run().unwrap().text(), at_root);
}

#[test]
fn bad_input_is_refused_and_nothing_is_created() {
    let line = Line::new("refused", "['mkdir out']");
    let (app, root) = (line.component(), line.repository());
    let (app, root) = (app.to_str().unwrap(), root.to_str().unwrap());
    let nowhere = line.home.path().to_str().unwrap().to_owned();
    let cases: &[(&[&str], &str)] = &[
        (&["--source", app, "--rev", "nope"], "has no revision 'nope'; name a commit, a branch or a tag with --rev"),
        (&["--source", app, "--rev=--all"], "has no revision '--all'"),
        (&["--source", root], "component.toml: there is no such file; commit one"),
        (&["--source", root, "--subdir", "nope"], "has no directory 'nope' at"),
        (&["--source", root, "--subdir", "../x"], "--subdir is '../x', which is not a path below the source"),
        (&["--source", "nope"], "there is no directory 'nope', and it is not a URL"),
        (&["--source", &nowhere], "cannot be read by git: fatal: not a git repository"),
    ];
    for (arguments, expected) in cases {
        let (code, message) = line.refusal(arguments);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let (code, message) = line.refusal(&["--source", "file:///nope"]);
    assert_eq!(code, Some(3), "{message}");
    let cache = fs::read_dir(line.state().join("git-cache")).unwrap().flatten();
    assert!(cache.into_iter().all(|entry| entry.path().extension().is_some_and(|end| end == "lock")));
    line.set_commands("['mkdir other']");
    line.commit("no tree");
    let (code, message) = line.refusal(&["--source", app]);
    assert_eq!(code, Some(2));
    let expected = "app/component.toml:3: package.tree.path is 'out': the build commands made no such directory";
    assert!(message.contains(expected), "{message}");
    assert_eq!(line.objects(), 0);
    assert!(!line.manifest_path().exists());
    assert!(!line.build_dir().exists());
}

#[test]
fn a_manifest_of_another_component_or_a_newer_schema_is_left_alone() {
    let line = Line::new("other", "['mkdir out']");
    line.build(&[]).unwrap();
    let text = fs::read_to_string(line.manifest_path()).unwrap();
    let others = [
        (text.replace(&line.name, "somebody-else"), "it is the manifest of 'somebody-else', not of"),
        (text.replace("\"schema_version\": 1", "\"schema_version\": 99"), "its schema_version is 99"),
        ("{".to_owned(), "not a manifest"),
    ];
    for (text, expected) in others {
        fs::write(line.manifest_path(), &text).unwrap();
        let app = line.component();
        let (code, message) = line.refusal(&["--source", app.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(fs::read_to_string(line.manifest_path()).unwrap(), text);
    }
}

#[test]
fn one_debian_package_is_the_artifact_and_anything_else_is_refused() {
    let make = |name: &str| {
        format!(
            "mkdir -p out p/DEBIAN; printf 'Package: app\\nVersion: %s\\nArchitecture: all\\nMaintainer: x\\n\
             Description: x\\n' $KILN_VERSION > p/DEBIAN/control; dpkg-deb -b --root-owner-group p out/{name}"
        )
    };
    let line = Line::new("deb", "[]");
    let set = |command: &str| {
        line.set_commands(&format!("[\"\"\"{command}\"\"\"]"));
        let file = line.component().join("component.toml");
        let text = fs::read_to_string(&file).unwrap();
        let tree = "package.tree = { path = 'out', prefix = '/opt/app' }";
        fs::write(file, text.replace(tree, "package.deb = 'out/*.deb'")).unwrap();
        line.git(&["add", "--all"]);
        line.git(&["commit", "--quiet", "--allow-empty", "--message", "changed"]);
    };
    let source = line.component();
    let cases = [
        (":", "package.deb is 'out/*.deb': the build commands made no such file;"),
        ("mkdir out; touch out/a.deb out/b.deb", "package.deb is 'out/*.deb': 2 files fit: a.deb, b.deb;"),
        ("mkdir out; touch out/a.deb", "package.deb is 'out/*.deb': a.deb is not a Debian package;"),
        ("mkdir out; ln -s /etc/passwd out/a.deb", "package.deb is 'out/*.deb': a.deb is not a Debian package;"),
    ];
    for (command, expected) in cases {
        set(command);
        let (code, message) = line.refusal(&["--source", source.to_str().unwrap()]);
        assert_eq!(code, Some(2), "{message}");
        assert!(message.contains(&format!("app/component.toml:3: {expected}")), "{message}");
        assert_eq!(line.objects(), 0);
    }
    set(&make("app_1_all.deb"));
    let digest = line.build(&[]).unwrap();
    assert_eq!(line.build(&["--force"]).unwrap(), digest);
    let artifact = line.manifest().artifact.unwrap();
    assert_eq!((artifact.file_name.as_str(), artifact.identity.value), ("app_1_all.deb", digest));
}
