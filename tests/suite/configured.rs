//! One image that serves every environment: config-agent in instances of a fleet, with an etcd on its bridge.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::baked::Version;
use crate::load::Load;
use crate::rig::{Rig, base, wait_for};

/// Where the bridge of every fleet is (docs/local.md).
const STORE: &str = "http://10.77.0.1:2379";

/// An etcd in the fleet's network.
struct Etcd {
    namespace: String,
    child: Child,
}

impl Etcd {
    /// Starts it on the bridge of a fleet that runs.
    fn start(rig: &Rig) -> Self {
        let namespace = rig.fleet_key();
        let log = File::create(rig.path().join("etcd.log")).unwrap();
        let peer = "http://10.77.0.1:2380";
        let etcd = inside(&namespace, "etcd").args(["--name", "test", "--data-dir"]).arg(rig.path().join("etcd"));
        let etcd = etcd.args(["--listen-client-urls", STORE, "--advertise-client-urls", STORE]);
        let etcd = etcd.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
        let etcd = etcd.args(["--initial-cluster", &format!("test={peer}")]);
        let etcd = etcd.configure(|it| _ = it.stdout(log.try_clone().unwrap()).stderr(log));
        let etcd = Self { namespace, child: etcd.spawn().expect("Debian's package etcd-server is needed") };
        wait_for("etcd to answer", || etcd.ctl(&["endpoint", "health"]).ask().unwrap().status.success().then_some(()));
        etcd
    }

    fn put(&self, key: &str, value: &str) {
        self.ctl(&["put", key, value]).run().unwrap();
    }

    fn ctl(&self, arguments: &[&str]) -> cli::Command {
        inside(&self.namespace, "etcdctl").args(["--endpoints", STORE]).args(arguments).env("ETCDCTL_API", "3")
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A program in a network namespace. `ip netns exec` becomes it.
fn inside(namespace: &str, program: &str) -> cli::Command {
    cli::Command::new("ip").args(["netns", "exec", namespace, program])
}

/// config-agent's package as the artifact stage builds it from this repository, once for the same source.
fn agent() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let all = base().with_file_name("test-agent");
    fs::create_dir_all(&all).unwrap();
    let lock = File::create(all.join("lock")).unwrap();
    lock.lock().unwrap();
    let tracked = |under: &[&str]| {
        let files = cli::Command::new("git").current_dir(&root).args(["ls-files", "-z", "--"]).args(under);
        let tar = ["--create", "--sort=name", "--mtime=@0", "--null", "--files-from=-"];
        let tar = cli::Command::new("tar").current_dir(&root).args(tar).input(files.run().unwrap().stdout);
        tar.run().unwrap().stdout
    };
    let built = all.join(digest(&tracked(&["crates/config-agent", "Cargo.lock", "component.toml"])));
    let manifest = built.join("config-agent.json");
    if !manifest.exists() {
        let rig = Rig::new();
        let source = rig.path().join("source");
        fs::create_dir_all(&source).unwrap();
        let untar = cli::Command::new("tar").args(["--extract", "--directory"]).arg(&source);
        untar.input(tracked(&["."])).run().unwrap();
        let git = |arguments: &[&str]| {
            let identity = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
            cli::Command::new("git").current_dir(&source).args(identity).args(arguments).run().unwrap()
        };
        git(&["init", "--quiet"]);
        git(&["add", "--all", "--force"]);
        git(&["commit", "--quiet", "--message", "config-agent"]);
        let [source, store] = [&source, &built.join("objects")].map(|path| path.display().to_string());
        let manifest = manifest.display().to_string();
        rig.run("artifact", &["build", "--source", &source, "--store", &store, "--manifest", &manifest]);
    }
    manifest
}

fn digest(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    hex::encode(Sha256::digest(bytes))[..16].to_owned()
}

impl Rig {
    fn deploy_to(&self, environment: &str) -> String {
        self.run("deployer", &["deploy", "--environment", environment]).stdout.trim().to_owned()
    }

    /// The answer of every instance of an environment, each asked by itself.
    fn answers(&self, environment: &str) -> Vec<Value> {
        let status = self.run("deployer", &["status", "--json", "--environment", environment]).stdout;
        let status: Value = serde_json::from_str(&status).unwrap();
        let groups = status["groups"].as_array().unwrap();
        let members = groups.iter().flat_map(|group| group["members"].as_array().unwrap());
        members.map(|member| self.answer(&format!("http://{}:8000/", member["address"].as_str().unwrap()))).collect()
    }

    fn answer(&self, url: &str) -> Value {
        let curl = inside(&self.fleet_key(), "curl").args(["--silent", "--show-error", "--fail", url]);
        serde_json::from_str(&curl.run().unwrap().text()).unwrap()
    }
}

#[test]
fn one_image_serves_every_environment_and_one_put_changes_all_answers() {
    let agent = agent();
    let rig = Rig::with_images();
    // The first service brings the fleet's network up, in which the store then is.
    rig.run("deployer", &["deploy", "--manifest", &rig.manifest_of(Version::One)]);
    let etcd = Etcd::start(&rig);
    etcd.put("/hello/announcement", "welcome");

    let hello = rig.hello();
    rig.build_artifact(&hello);
    // A template's paths begin where imager is started, as they do with Packer.
    let imager = rig.program("imager").current_dir(hello.path()).args(["build", "configured.json"]);
    imager.args(["--var", &format!("config_agent={}", agent.display())]).run().unwrap();
    rig.run("tester", &["run"]);
    let urls = ["stage", "live"].map(|environment| rig.deploy_to(environment));

    let images = rig.manifest().deployments;
    assert_eq!(images["stage"].stamp.consumed, images["live"].stamp.consumed, "one image is in service twice");
    for (environment, country) in [("stage", "uk"), ("live", "us")] {
        let answers = rig.answers(environment);
        assert!(answers.len() >= 2, "{answers:?}");
        for answer in &answers {
            assert_eq!((&answer["country"], &answer["environment"]), (&country.into(), &environment.into()));
            assert_eq!(answer["announcement"], "welcome");
        }
    }

    let loads = urls.each_ref().map(|url| [Load::start(url, true), Load::start(url, false)]);
    for number in 0..3 {
        let announcement = format!("announcement {number}");
        etcd.put("/hello/announcement", &announcement);
        let changed = Instant::now();
        wait_for("all instances to answer otherwise", || {
            let answers = ["stage", "live"].into_iter().flat_map(|environment| rig.answers(environment));
            answers.into_iter().all(|answer| answer["announcement"] == announcement).then_some(())
        });
        let took = changed.elapsed();
        assert!(took < Duration::from_secs(2), "it took {took:?} until the last instance had changed");
    }
    loads.into_iter().flatten().for_each(Load::stop);

    // No file is for the place of this environment, so its instances do not serve, and say why.
    manifest::update(&rig.manifest_path(), None, |manifest| {
        manifest.component.deploy.as_mut().unwrap().fleet.healthy_seconds = Some(6);
    })
    .unwrap();
    let ended = rig.ask("deployer", &["deploy"]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("config-agent-select.service"), "{}", ended.stderr);

    for environment in ["stage", "live"] {
        rig.run("deployer", &["destroy", "--environment", environment]);
    }
    drop(etcd);
    rig.run("deployer", &["destroy", "--manifest", &rig.manifest_of(Version::One)]);
}
