//! A state directory of a test's own, the programs, and the proof that nothing is left.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use manifest::Manifest;
use tempfile::TempDir;

use crate::emulator::Emulator;

/// How long anything that is waited for may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a test works with. Dropping it checks that nothing is left on the machine.
pub struct Rig {
    directory: TempDir,
    /// Locked as long as the test runs: a directory that is not belongs to one that was killed.
    _in_use: File,
    /// Whether programs are told of the rig's manifest.
    with_manifest: bool,
    /// What programs find in their environment beside that.
    environment: Vec<(String, String)>,
}

/// A repository with one component in it.
pub struct Component {
    pub repository: PathBuf,
    pub subdirectory: String,
}

impl Rig {
    /// A rig whose state directory has the base image and nothing else.
    pub fn new() -> Self {
        Self::with_images_of(&base())
    }

    /// A rig whose state directory has the images of another (by hard links) and nothing else.
    pub fn with_images_of(state: &Path) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test mounts disks and boots instances: it needs root");
        // Beside the base image, for hard links do not leave a file system.
        let directory = tempfile::Builder::new().prefix("rig-").tempdir_in(base().parent().unwrap()).unwrap();
        let in_use = File::open(&directory).unwrap();
        in_use.lock_shared().unwrap();
        let rig = Self { directory, _in_use: in_use, with_manifest: true, environment: Vec::new() };
        for part in ["images", "aliases"] {
            fs::create_dir_all(rig.state()).unwrap();
            let copied = cli::Command::new("cp").arg("-al").arg(state.join(part)).arg(rig.state()).run();
            copied.expect("the base image: `cargo xtask test` makes it");
        }
        rig
    }

    /// From here on programs are told of no manifest, as people are who have a template only.
    pub fn without_manifest(&mut self) {
        self.with_manifest = false;
    }

    /// From here on programs work on AWS, which is the emulator.
    pub fn on_aws(&mut self, emulator: &Emulator) {
        self.beside_aws(emulator);
        self.environment.push(("KILN_PROVIDER".to_owned(), "aws".to_owned()));
    }

    /// From here on programs find AWS, which is the emulator, when they are told to go there.
    pub fn beside_aws(&mut self, emulator: &Emulator) {
        self.environment = emulator.environment();
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub fn manifest_path(&self) -> PathBuf {
        self.path().join("manifest.json")
    }

    pub fn manifest(&self) -> Manifest {
        manifest::read(&self.manifest_path()).unwrap()
    }

    /// One of the built programs, with this rig's state directory.
    pub fn program(&self, name: &str) -> cli::Command {
        // target/debug/deps/suite-…: the programs are two directories up.
        let this = std::env::current_exe().unwrap();
        let program = this.parent().and_then(Path::parent).unwrap().join(name);
        let program = cli::Command::new(program)
            .env("KILN_STATE_DIR", self.state())
            .env("NO_COLOR", "1")
            .current_dir(self.path());
        let program = self.environment.iter().fold(program, |program, (name, value)| program.env(name, value));
        if self.with_manifest { program.env("KILN_MANIFEST", self.manifest_path()) } else { program }
    }

    /// Runs a program and returns how it ended, with everything that it printed.
    pub fn ask(&self, name: &str, arguments: &[&str]) -> Ended {
        let child = self.spawn(name, arguments);
        Ended::of(child.wait_with_output().unwrap())
    }

    /// Runs a program that must succeed.
    pub fn run(&self, name: &str, arguments: &[&str]) -> Ended {
        let ended = self.ask(name, arguments);
        assert_eq!(ended.code, Some(0), "{name} {arguments:?}:\n{}", ended.stderr);
        ended
    }

    /// Starts a program in a process group of its own.
    pub fn spawn(&self, name: &str, arguments: &[&str]) -> Child {
        self.program(name)
            .args(arguments)
            .configure(|command| _ = command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0))
            .spawn()
            .unwrap()
    }

    /// A component that is one file, so that an artifact of it takes a moment only.
    pub fn small_component(&self) -> Component {
        let component = Component { repository: self.path().join("small"), subdirectory: String::new() };
        component.write("component.toml", SMALL_COMPONENT);
        component.write("image.json", SMALL_TEMPLATE);
        component.write("goss.yaml", "file:\n  /opt/small/greeting:\n    exists: true\n");
        component.write("files/greeting", "hello\n");
        component.commit("small");
        component
    }

    /// The same under a name of this rig's own: builds of one component wait for each other.
    pub fn own_small_component(&self) -> Component {
        let component = self.small_component();
        let name = format!("small-{}", &self.fleet_key()["kiln-".len()..]);
        component.write("component.toml", &SMALL_COMPONENT.replacen("\"small\"", &format!("{name:?}"), 1));
        component.commit_change("a name of its own");
        component
    }

    /// This repository's example, in a repository of its own.
    pub fn hello(&self) -> Component {
        let component = Component { repository: self.path().join("repository"), subdirectory: "examples/hello".into() };
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/hello");
        fs::create_dir_all(component.path().parent().unwrap()).unwrap();
        cli::Command::new("cp").arg("-r").arg(example).arg(component.path()).run().unwrap();
        component.commit("hello");
        component
    }

    /// Builds the component's artifact into the manifest.
    pub fn build_artifact(&self, component: &Component) {
        let source = component.repository.display().to_string();
        self.run("artifact", &["build", "--source", &source, "--subdir", &component.subdirectory]);
    }

    /// Writes a template and provisions it with the small component's artifact.
    pub fn provision(&self, template: &str, arguments: &[&str]) -> Ended {
        let path = self.template(template);
        let all: Vec<_> = ["provision", &path].into_iter().chain(arguments.iter().copied()).collect();
        self.ask("imager", &all)
    }

    /// Writes a template and returns its path.
    pub fn template(&self, template: &str) -> String {
        let path = self.path().join("template.json");
        fs::write(&path, template).unwrap();
        path.display().to_string()
    }

    /// A file of a volume's or an image's root file system, read without mounting it.
    pub fn read_from(&self, disk: &Path, file: &str) -> String {
        self.debugfs(disk, &format!("cat {file}"))
    }

    /// What debugfs says of a request about the root file system of a partitioned disk.
    pub fn debugfs(&self, disk: &Path, request: &str) -> String {
        let disk = format!("{}?offset=134217728", disk.display());
        cli::Command::new("debugfs").args(["-R", request, &disk]).run().unwrap().text()
    }

    /// The disk of the volume that `builder` has in the manifest.
    pub fn volume_disk(&self, builder: &str) -> PathBuf {
        let volume = &self.manifest().volumes[builder].identity.value;
        self.state().join("volumes").join(volume).join("disk.raw")
    }

    /// Fails unless the machine is as if this rig had never been: no mount, loop device, namespace or process.
    pub fn assert_nothing_left(&self) {
        let state = self.path().display().to_string();
        let fleet = self.fleet_key();
        wait_for("everything of this rig to be gone", || {
            (left_over(&state).is_empty() && namespaces_of(&fleet).is_empty()).then_some(())
        });
    }

    /// The name that the fleet of this rig's state directory has on the machine (docs/local.md).
    pub fn fleet_key(&self) -> String {
        use sha2::{Digest, Sha256};
        let state = self.state().canonicalize().unwrap_or_else(|_| self.state());
        format!("kiln-{}", &hex::encode(Sha256::digest(state.as_os_str().as_encoded_bytes()))[..8])
    }
}

/// The state directory with the base image.
pub fn base() -> PathBuf {
    let base = std::env::var_os("KILN_TEST_BASE").map(PathBuf::from);
    base.expect("KILN_TEST_BASE names the state directory with the base image: run `cargo xtask test`")
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The next test should not run beside this one's fleet.
            for service in fs::read_dir(self.state().join("services")).into_iter().flatten().flatten() {
                let service = service.file_name().to_string_lossy().into_owned();
                let environment = service.rsplit('-').next().unwrap_or_default();
                let manifest = self.path().join("one.json").display().to_string();
                self.ask("deployer", &["destroy", "--manifest", &manifest, "--environment", environment]);
            }
        } else {
            self.assert_nothing_left();
        }
    }
}

impl Component {
    pub fn path(&self) -> PathBuf {
        self.repository.join(&self.subdirectory)
    }

    pub fn write(&self, file: &str, content: &str) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        if content.starts_with("#!") {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// Makes the repository, with what has been written as its first commit.
    pub fn commit(&self, message: &str) {
        self.git(&["init", "--quiet"]);
        self.commit_change(message);
    }

    /// Commits everything; a commit that changes nothing is none.
    pub fn commit_change(&self, message: &str) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    fn git(&self, arguments: &[&str]) {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        cli::Command::new("git").current_dir(&self.repository).args(identity).args(arguments).run().unwrap();
    }
}

/// A rig with the artifact of the small component.
pub fn rig_with_artifact() -> Rig {
    let rig = Rig::new();
    let component = rig.small_component();
    rig.build_artifact(&component);
    rig
}

/// A shell provisioner of one line.
pub fn shell(line: &str) -> String {
    format!(r#"{{ "type": "shell", "inline": [{}] }}"#, serde_json::to_string(line).unwrap())
}

/// Fails with what the program said, unless it succeeded.
pub fn succeeded(ended: Ended) -> Ended {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    pub fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Command lines of running processes that hold `text`, without our own.
pub fn processes_with(text: &str) -> Vec<String> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let Ok(command) = fs::read(entry.path().join("cmdline")) else { continue };
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if pid != own && command.contains(text) {
            found.push(format!("{pid}: {command}"));
        }
    }
    found
}

/// Loop devices of files whose path holds `text`.
pub fn loop_devices(text: &str) -> Vec<String> {
    let loops = cli::Command::new("losetup").args(["--list", "--noheadings", "--output", "NAME,BACK-FILE"]).run();
    loops.unwrap().text().lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

/// Network namespaces of a fleet.
pub fn namespaces_of(fleet: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with(fleet)).collect()
}

/// What there is on the machine that names `text`.
fn left_over(text: &str) -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut found: Vec<_> = mounts.lines().filter(|line| line.contains(text)).map(str::to_owned).collect();
    found.extend(loop_devices(text));
    found.extend(processes_with(text));
    found
}

const SMALL_COMPONENT: &str = r#"name = "small"

[build]
commands = ["true"]

[package.tree]
path = "files"
prefix = "/opt/small"

[image]
template = "image.json"
builder = "small"

[test]
gossfile = "goss.yaml"

[deploy]
port = 80
health = "/"
dns = "small.kiln.internal"
"#;

const SMALL_TEMPLATE: &str = r#"{
  "builders": [{ "name": "small", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "small" }],
  "provisioners": [{ "type": "artifact" }]
}
"#;
