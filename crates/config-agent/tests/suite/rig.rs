//! A machine of a test's own: directories, the built program, and waiting for what it does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything that is waited for may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// Directories with settings, `conf.d` and templates, and a tree of files that can be the store.
pub struct Rig {
    directory: TempDir,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running `config-agent run`. It is killed when it is dropped.
pub struct Agent {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Rig {
    /// With a tree of files as the store.
    pub fn new() -> Self {
        let rig = Self::with_store("");
        fs::create_dir(rig.path("store")).unwrap();
        let store = format!("[store.directory]\npath = \"{}\"\n", rig.path("store").display());
        rig.settings(&store);
        rig
    }

    /// With the store that `store` describes in TOML.
    pub fn with_store(store: &str) -> Self {
        let rig = Self { directory: tempfile::Builder::new().prefix("config-agent-test-").tempdir().unwrap() };
        for directory in ["conf.d", "templates", "out"] {
            fs::create_dir(rig.path(directory)).unwrap();
        }
        rig.settings(store);
        rig
    }

    pub fn settings(&self, store: &str) {
        let path = |name| self.path(name).display().to_string();
        let settings = format!(
            "conf_dir = \"{}\"\ntemplate_dir = \"{}\"\nstate_dir = \"{}\"\nsocket = \"{}\"\n{store}",
            path("conf.d"),
            path("templates"),
            path("state"),
            path("agent.sock")
        );
        self.write("config-agent.toml", &settings);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Writes a file that others must not read.
    pub fn write_secret(&self, name: &str, text: &str) -> PathBuf {
        self.write(name, text);
        fs::set_permissions(self.path(name), PermissionsExt::from_mode(0o600)).unwrap();
        self.path(name)
    }

    /// A file of `conf.d` that makes `out/NAME` from `template`; `more` is TOML in front of `[values]`.
    pub fn keep(&self, name: &str, template: &str, more: &str, values: &str) {
        self.write(&format!("templates/{name}.j2"), template);
        let destination = self.path("out").join(name);
        let text = format!(
            "template = \"{name}.j2\"\ndestination = \"{}\"\nquiescence = {{ min = \"20ms\" }}\n{more}\n[values]\n{values}\n",
            destination.display()
        );
        let text =
            if more.contains("quiescence") { text.replacen("quiescence = { min = \"20ms\" }\n", "", 1) } else { text };
        self.write(&format!("conf.d/{name}.toml"), &text);
    }

    /// Sets a key of the tree, as a whole.
    pub fn set(&self, key: &str, value: &str) {
        let path = self.path("store").join(key.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let new = path.with_file_name(".new");
        fs::write(&new, value).unwrap();
        fs::rename(new, path).unwrap();
    }

    /// Removes a key of the tree.
    pub fn unset(&self, key: &str) {
        fs::remove_file(self.path("store").join(key.trim_start_matches('/'))).unwrap();
    }

    /// What a kept file holds; empty if there is none.
    pub fn out(&self, name: &str) -> String {
        fs::read_to_string(self.path("out").join(name)).unwrap_or_default()
    }

    /// How many lines a file has: how often a command ran that adds one.
    pub fn lines(&self, name: &str) -> usize {
        fs::read_to_string(self.path(name)).unwrap_or_default().lines().count()
    }

    pub fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path("out").join(name)).unwrap().permissions().mode() & 0o7777
    }

    /// A shell command that adds a line to a file.
    pub fn note(&self, name: &str) -> String {
        format!("echo >> {}", self.path(name).display())
    }

    /// Runs the program to its end, with the rig's settings behind the subcommand.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        let (subcommand, rest) = arguments.split_first().unwrap();
        let settings = self.path("config-agent.toml");
        self.plain(&[&[*subcommand, "--settings", settings.to_str().unwrap()], rest].concat(), &[])
    }

    /// Runs the program to its end, with variables and nothing else.
    pub fn plain(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ended {
        let output = program().args(arguments).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ended { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Starts `config-agent run`.
    pub fn start(&self) -> Agent {
        self.start_with(&[])
    }

    /// Starts it with variables, and waits until it answers.
    pub fn start_with(&self, variables: &[(&str, &str)]) -> Agent {
        let agent = self.launch(variables);
        agent.wait("it answers", || UnixStream::connect(self.path("agent.sock")).is_ok());
        agent
    }

    /// Starts it, and waits for nothing.
    pub fn launch(&self, variables: &[(&str, &str)]) -> Agent {
        let log = self.path("agent.log");
        let err = fs::OpenOptions::new().create(true).append(true).open(&log).unwrap();
        let child = program()
            .args(["run", "--settings"])
            .arg(self.path("config-agent.toml"))
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(err)
            .spawn()
            .unwrap();
        Agent { child, log, socket: self.path("agent.sock") }
    }
}

impl Agent {
    /// Waits until `what` is true; fails with the agent's log.
    pub fn wait(&self, doing: &str, what: impl FnMut() -> bool) {
        assert!(comes_true(what), "{doing}: not within {PATIENCE:?}; the agent said:\n{}", self.log());
    }

    /// Waits until a kept file is `content`.
    pub fn wait_for(&self, rig: &Rig, name: &str, content: &str) {
        self.wait(&format!("{name} is {content:?}, but it is {:?}", rig.out(name)), || rig.out(name) == content);
    }

    /// Waits until the agent has said `text`.
    pub fn wait_until_said(&self, text: &str) {
        self.wait(&format!("saying {text:?}"), || self.log().contains(text));
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Its report.
    pub fn status(&self) -> Value {
        let output = program().args(["status", "--json", "--socket"]).arg(&self.socket).output().unwrap();
        assert!(!output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The report on one file.
    pub fn file(&self, name: &str) -> Value {
        self.status()["files"].as_array().unwrap().iter().find(|file| file["name"] == name).unwrap().clone()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Ends it with SIGTERM. Its exit status.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().code()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether `what` becomes true before patience ends.
pub fn comes_true(mut what: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The one place where these tests start programs.
#[expect(clippy::disallowed_methods, reason = "the tests of this crate do not link crate cli either")]
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}

/// A port of this machine that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Runs an HTTP server on a thread of its own, until the test ends. Its address.
pub fn serve(router: axum::Router) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, router).await.unwrap();
        });
    });
    address
}

fn program() -> Command {
    let mut command = command(Path::new(env!("CARGO_BIN_EXE_config-agent")));
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "CONFIG_AGENT_IMDS", "NOTIFY_SOCKET"] {
        command.env_remove(variable);
    }
    command
}
