//! The deployer: fleets under load, bad images, rollback, and kills.

use std::fs;
use std::time::Duration;

use cli::process::ProcessId;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::baked::Version;
use crate::load::Load;
use crate::rig::{Ended, Rig, wait_for};

impl Rig {
    fn deploy(&self, version: Version) -> Ended {
        self.ask("deployer", &["deploy", "--manifest", &self.manifest_of(version)])
    }

    pub fn deployed(&self, version: Version) -> String {
        let ended = self.deploy(version);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout.trim().to_owned()
    }

    fn status(&self) -> Value {
        let manifest = self.manifest_of(Version::One);
        serde_json::from_str(&self.run("deployer", &["status", "--json", "--manifest", &manifest]).stdout).unwrap()
    }

    /// The group that has all the traffic.
    fn serving(&self) -> String {
        let status = self.status();
        let mut serving = groups(&status).filter(|group| group["weight"] == 100);
        let name = serving.next().expect("a group with all the traffic")["name"].as_str().unwrap().to_owned();
        assert!(serving.next().is_none());
        name
    }

    pub fn destroy(&self) {
        self.run("deployer", &["destroy", "--manifest", &self.manifest_of(Version::One)]);
        self.assert_nothing_left();
    }

    fn version_of(&self, version: Version) -> String {
        let manifest = manifest::read(self.manifest_of(version).as_ref()).unwrap();
        manifest.source.unwrap().version
    }
}

fn groups(status: &Value) -> impl Iterator<Item = &Value> {
    status["groups"].as_array().unwrap().iter()
}

/// What the service answers.
fn get(url: &str) -> String {
    cli::Command::new("curl").args(["--silent", "--show-error", "--fail", "--max-time", "5", url]).run().unwrap().text()
}

#[test]
fn a_new_version_replaces_the_old_one_and_a_rollback_puts_it_back_without_a_failed_request() {
    let rig = Rig::with_images();
    let url = rig.deployed(Version::One);
    assert!(get(&url).contains(&rig.version_of(Version::One)));
    let again = rig.deploy(Version::One);
    assert!(again.stderr.contains("unchanged: "), "{}", again.stderr);
    assert_eq!(again.stdout.trim(), url);

    let loads = [Load::start(&url, true), Load::start(&url, false)];
    assert_eq!(rig.deployed(Version::Two), url);
    assert!(get(&url).contains(&rig.version_of(Version::Two)));
    assert_eq!(rig.serving(), "hello-local-v001");
    assert!(!crate::rig::namespaces_of(&rig.fleet_key()).is_empty(), "the rig looks for namespaces by another name");
    rig.run("deployer", &["rollback", "--manifest", &rig.manifest_of(Version::One)]);
    assert!(get(&url).contains(&rig.version_of(Version::One)));
    assert_eq!(rig.serving(), "hello-local-v000");
    for load in loads {
        load.stop();
    }
    let listed = rig.run("deployer", &["list"]).stdout;
    assert!(listed.contains("hello-local"), "{listed}");
    rig.destroy();
    assert!(!rig.run("deployer", &["list"]).stdout.contains("hello-local"));
}

#[test]
fn an_image_that_never_becomes_healthy_takes_no_traffic() {
    let rig = Rig::with_images();
    let url = rig.deployed(Version::One);
    let load = Load::start(&url, true);
    let manifest = rig.manifest_of(Version::Bad);
    // The component says how long it may take; the test need not wait that long.
    manifest::update(manifest.as_ref(), None, |manifest| {
        manifest.component.deploy.as_mut().unwrap().fleet.healthy_seconds = Some(6);
    })
    .unwrap();
    let ended = rig.deploy(Version::Bad);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains("the database is not there"), "the reason is not shown:\n{}", ended.stderr);
    load.stop();
    assert_eq!(rig.serving(), "hello-local-v000");
    assert_eq!(groups(&rig.status()).count(), 1, "the bad group is still there");
    assert!(get(&url).contains(&rig.version_of(Version::One)));
    rig.destroy();
}

#[test]
fn an_image_without_a_good_verdict_is_refused() {
    let rig = Rig::with_images();
    let path = rig.manifest_of(Version::One);
    let tested = manifest::read(path.as_ref()).unwrap();
    let refused = |expected: &str, change: &dyn Fn(&mut manifest::Manifest)| {
        let mut changed = tested.clone();
        change(&mut changed);
        fs::write(&path, serde_json::to_string_pretty(&changed).unwrap()).unwrap();
        let ended = rig.deploy(Version::One);
        assert!(matches!(ended.code, Some(1 | 2)), "{ended:?}");
        assert!(ended.stderr.contains(expected), "expected {expected}\nfound {}", ended.stderr);
    };
    refused("tester run", &|manifest| manifest.tests.clear());
    refused("fail", &|manifest| manifest.tests.get_mut("hvm").unwrap().passed = false);
    refused("is for the content", &|manifest| {
        manifest.tests.get_mut("hvm").unwrap().digest = manifest::Identity::sha256("0".repeat(64));
    });
    refused("imager", &|manifest| manifest.images.clear());
    // What the provider has with the image counts, whatever a manifest says.
    let image = rig.state().join("images").join(&tested.images["hvm"].identity.value).join("image.json");
    let mut stored: Value = serde_json::from_slice(&fs::read(&image).unwrap()).unwrap();
    stored["verdict"] = Value::Null;
    fs::remove_file(&image).unwrap();
    fs::write(&image, stored.to_string()).unwrap();
    refused("verdict", &|_| {});
    assert!(!rig.state().join("services").exists() || fs::read_dir(rig.state().join("services")).unwrap().count() == 0);
}

#[test]
fn a_deployment_that_was_killed_goes_on_when_it_is_run_again() {
    let rig = Rig::with_images();
    let url = rig.deployed(Version::One);
    let load = Load::start(&url, true);
    let manifest = rig.manifest_of(Version::Two);
    let journal = rig.state().join("services/hello-local/journal");
    // Killed while the new group boots, and again while traffic moves.
    for mark in ["v001", "hello-local-v001\":10"] {
        let mut deployer = rig.spawn("deployer", &["deploy", "--manifest", &manifest]);
        wait_for(mark, || {
            let text = fs::read_to_string(&journal).unwrap_or_default().replace(' ', "");
            text.contains(mark).then_some(())
        });
        deployer.kill().unwrap();
        deployer.wait().unwrap();
        assert!(!rig.status()["unfinished"].is_null(), "the kill came too late");
    }
    let noted = || {
        let entries = manifest::read(manifest.as_ref()).unwrap().journals["local"].clone();
        (entries[0]["group"].clone(), entries.last().unwrap()["event"].clone())
    };
    // The copy is written after the journal.
    let (group, last) = noted();
    assert!(group == "hello-local-v001" && (last == "creating-group" || last == "shifting"), "{last}");
    assert_eq!(rig.deployed(Version::Two), url);
    assert_eq!(noted(), ("hello-local-v001".into(), "finished".into()));
    load.stop();
    assert_eq!(rig.serving(), "hello-local-v001");
    assert_eq!(groups(&rig.status()).count(), 2);
    assert!(get(&url).contains(&rig.version_of(Version::Two)));
    rig.destroy();
}

#[test]
fn a_rollback_of_a_deployment_that_was_killed_goes_no_further_than_where_it_began() {
    let rig = Rig::with_images();
    rig.deployed(Version::One);
    let url = rig.deployed(Version::Two);
    let load = Load::start(&url, true);
    let mut deployer = rig.spawn("deployer", &["deploy", "--manifest", &rig.manifest_of(Version::One)]);
    let journal = rig.state().join("services/hello-local/journal");
    wait_for("traffic to move", || {
        let text = fs::read_to_string(&journal).unwrap_or_default().replace(' ', "");
        text.contains("hello-local-v002\":10").then_some(())
    });
    deployer.kill().unwrap();
    deployer.wait().unwrap();
    let rollback = || rig.run("deployer", &["rollback", "--manifest", &rig.manifest_of(Version::Two)]).stdout;
    assert_eq!(rollback().trim(), url);
    assert_eq!(rig.serving(), "hello-local-v001");
    assert_eq!(groups(&rig.status()).count(), 2, "what was kept is kept");
    // The next one has nothing to take back.
    rollback();
    assert_eq!(rig.serving(), "hello-local-v000");
    load.stop();

    // Killed before it had made anything, a deployment leaves no more than its journal.
    let begun = fs::read_to_string(&journal).unwrap().lines().next().unwrap().to_owned();
    rig.destroy();
    fs::create_dir_all(journal.parent().unwrap()).unwrap();
    fs::write(&journal, begun + "\n").unwrap();
    rig.run("deployer", &["repair"]);
    assert!(!journal.parent().unwrap().exists(), "the journal is still there");
    rig.assert_nothing_left();
}

#[test]
fn two_environments_stand_side_by_side_and_one_that_is_not_there_is_refused() {
    let rig = Rig::with_images();
    let manifest = rig.manifest_of(Version::One);
    let deploy =
        |environment: &str| rig.ask("deployer", &["deploy", "--manifest", &manifest, "--environment", environment]);
    let mistyped = deploy("liv");
    assert_eq!(mistyped.code, Some(2), "{}", mistyped.stderr);
    assert!(mistyped.stderr.contains("no environment 'liv' (it has 'live', 'local', 'stage')"), "{}", mistyped.stderr);
    let of_live = |change: &dyn Fn(&mut manifest::component::FleetSettings)| {
        let change = |manifest: &mut manifest::Manifest| {
            change(manifest.component.deploy.as_mut().unwrap().environments.get_mut("live").unwrap());
        };
        manifest::update(manifest.as_ref(), None, change).unwrap();
    };
    let its_name = manifest::read(manifest.as_ref()).unwrap().component.deploy.unwrap().fleet_in("live").unwrap().dns;
    of_live(&|live| (live.instances, live.step_millis, live.dns) = (Some(1), Some(100), None));
    let nameless = deploy("live");
    assert_eq!(nameless.code, Some(2), "{}", nameless.stderr);
    assert!(nameless.stderr.contains("add `dns` to [deploy.environments.live]"), "{}", nameless.stderr);

    let local = rig.deployed(Version::One);
    of_live(&|live| live.dns = Some("hello.kiln.internal".to_owned()));
    let taken = deploy("live");
    assert_eq!(taken.code, Some(2), "{}", taken.stderr);
    assert!(taken.stderr.contains("belongs to the service hello-local"), "{}", taken.stderr);
    assert!(!rig.state().join("services/hello-live").exists());
    of_live(&|live| live.dns = Some(its_name.clone()));
    let live = deploy("live");
    assert_eq!(live.code, Some(0), "{}", live.stderr);
    assert_ne!(live.stdout.trim(), local);
    assert!(get(live.stdout.trim()).contains(&rig.version_of(Version::One)));
    let resolver: std::net::SocketAddr = rig.status()["resolver"].as_str().unwrap().parse().unwrap();
    assert_eq!(ask_for_address(resolver, &its_name), Some([127, 0, 0, 1].into()));
    rig.run("deployer", &["destroy", "--manifest", &manifest, "--environment", "live"]);
    rig.destroy();
}

#[test]
fn looking_at_a_state_directory_that_is_not_there_makes_none() {
    let rig = Rig::new();
    let nowhere = rig.path().join("typo");
    let look = |arguments: &[&str]| {
        let state = nowhere.display().to_string();
        rig.ask("deployer", &[arguments, &["--state-dir", &state]].concat())
    };
    let listed = look(&["list"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (Some(0), ""), "{}", listed.stderr);
    let status = look(&["status", "--service", "hello-local"]);
    assert_eq!(status.code, Some(2), "{}", status.stderr);
    for ended in [listed, status] {
        assert!(ended.stderr.contains("there is no state in"), "{}", ended.stderr);
    }
    assert!(!nowhere.exists());
}

#[test]
fn a_fleet_outlives_its_supervisor_and_is_watched_again_by_the_next() {
    let rig = Rig::with_images();
    let url = rig.deployed(Version::One);
    let load = Load::start(&url, true);
    let supervisor = || -> ProcessId {
        serde_json::from_slice(&fs::read(rig.state().join("locald/process.json")).unwrap()).unwrap()
    };
    let first = supervisor();
    kill_process(Pid::from_raw(first.pid).unwrap(), Signal::KILL).unwrap();
    wait_for("the supervisor to be gone", || (!first.is_alive()).then_some(()));
    get(&url);
    let unwatched = rig.run("deployer", &["status", "--json", "--manifest", &rig.manifest_of(Version::One)]);
    assert!(unwatched.stderr.contains("2 of its 2 instances run"), "{}", unwatched.stderr);
    assert!(unwatched.stderr.contains("deployer repair"), "{}", unwatched.stderr);
    let status = rig.status();
    assert_eq!(status["running"], false);
    assert_eq!(status["groups"][0]["members"].as_array().unwrap().len(), 2);
    assert_eq!(status["groups"][0]["members"][0]["state"], "running");

    rig.run("deployer", &["repair"]);
    assert!(supervisor().is_alive() && supervisor() != first);
    assert_eq!(rig.status()["running"], true);
    let starts = |rig: &Rig| rig.status()["groups"][0]["members"][0]["starts"].as_u64().unwrap();
    assert_eq!(starts(&rig), 1, "adopted, not restarted");
    load.stop();

    // An instance that ends is started again; `repair` waits until it answers.
    let instance = rig.status()["groups"][0]["members"][0]["instance"].as_str().unwrap().to_owned();
    let record = fs::read(rig.state().join("instances").join(&instance).join("process.json")).unwrap();
    let process: ProcessId = serde_json::from_slice(&record).unwrap();
    kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).unwrap();
    wait_for("the instance to be started again", || {
        let member = &rig.status()["groups"][0]["members"][0];
        (member["starts"] == 2).then_some(())
    });
    rig.run("deployer", &["repair"]);
    assert_eq!(rig.status()["groups"][0]["members"][0]["health"], "healthy");
    rig.destroy();
}

#[test]
fn two_deployments_of_one_service_do_not_run_at_once() {
    let rig = Rig::with_images();
    let manifest = rig.manifest_of(Version::One);
    let first = rig.spawn("deployer", &["deploy", "--manifest", &manifest]);
    let lock = rig.state().join("locks");
    wait_for("the first deployment to hold the service", || {
        let locks = fs::read_dir(&lock).ok()?;
        let held = |name: &std::ffi::OsStr| name.to_string_lossy().contains("hello-local");
        let path = locks.flatten().find(|entry| held(&entry.file_name()))?.path();
        fs::read_to_string(path).ok().filter(|holder| holder.contains("deployer")).map(drop)
    });
    let second = rig.ask("deployer", &["deploy", "--manifest", &manifest, "--no-wait"]);
    assert_eq!(second.code, Some(3), "{}", second.stderr);
    assert!(second.stderr.contains(&format!("(pid {}", first.id())), "{}", second.stderr);
    let first = Ended::of(first.wait_with_output().unwrap());
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    rig.destroy();
}

#[test]
fn the_services_name_is_served_to_the_host() {
    let rig = Rig::with_images();
    rig.deployed(Version::One);
    let status = rig.status();
    let resolver: std::net::SocketAddr = status["resolver"].as_str().unwrap().parse().unwrap();
    assert!(resolver.ip().is_loopback());
    assert_eq!(ask_for_address(resolver, "hello.kiln.internal"), Some([127, 0, 0, 1].into()));
    assert_eq!(ask_for_address(resolver, "other.kiln.internal"), None);
    rig.destroy();
}

/// Asks a name server for the A record of a name (RFC 1035, 4.1): one question, and the last answer's address.
fn ask_for_address(server: std::net::SocketAddr, name: &str) -> Option<std::net::Ipv4Addr> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).unwrap());
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    socket.send_to(&question, server).unwrap();
    let mut reply = [0; 512];
    let length = socket.recv(&mut reply).unwrap();
    let answers = u16::from_be_bytes([reply[6], reply[7]]);
    let address: [u8; 4] = reply[length - 4..length].try_into().unwrap();
    (answers > 0).then(|| address.into())
}
