//! Instances that the tester launches on the emulator, which boots nothing. What an instance would do is done here: the
//! probe and the gossfile are fetched from where its user data says, the probe runs on this machine, and its report is
//! what the console is said to hold.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::rig::{Rig, wait_for};

/// Waits until instances have been launched beyond the first `before`, and returns the user data of the next: what its
/// script is to do.
pub fn task(emulator: &Emulator, before: usize) -> Value {
    let launch = wait_for("an instance", || launches(emulator).get(before).cloned());
    let script = BASE64_STANDARD.decode(launch["UserData"].as_str().unwrap()).unwrap();
    let script = String::from_utf8(script).unwrap();
    let task = script.strip_prefix("#!/usr/bin/python3\nTASK = ").unwrap();
    serde_json::Deserializer::from_str(task).into_iter().next().unwrap().unwrap()
}

/// Parameters of the calls that launched instances, so far.
pub fn launches(emulator: &Emulator) -> Vec<Value> {
    let calls = emulator.calls().into_iter().filter(|call| call["call"] == "ec2:RunInstances");
    calls.map(|call| call["parameters"].clone()).collect()
}

/// Does what an instance would do with the task, and returns what it writes.
pub fn report(rig: &Rig, task: &Value) -> String {
    let directory = rig.path().join("instance");
    fs::create_dir_all(&directory).unwrap();
    for name in ["probe", "gossfile"] {
        let file = directory.join(name).display().to_string();
        // Without credentials: the link is all that the instance has.
        let fetch = ["--silent", "--fail", "--output", &file, task[name]["url"].as_str().unwrap()];
        cli::Command::new("curl").args(fetch).run().unwrap();
        let digest = cli::Command::new("sha256sum").arg(&file).run().unwrap().text();
        assert!(digest.starts_with(task[name]["sha256"].as_str().unwrap()));
    }
    // Whether this machine runs systemd does not matter.
    let systemctl = directory.join("systemctl");
    fs::write(&systemctl, "#!/bin/sh\necho running\n").unwrap();
    cli::Command::new("chmod").args(["755"]).arg(&systemctl).arg(directory.join("probe")).run().unwrap();
    let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
    let arguments: Vec<_> = task["arguments"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    let nonce = arguments[arguments.iter().position(|it| *it == "--nonce").unwrap() + 1];
    let probe = cli::Command::new(directory.join("probe")).args(["run", "--wait-system", "5", "--nonce", nonce]);
    probe.arg("--gossfile").arg(directory.join("gossfile")).env("PATH", path).run().unwrap().text()
}

/// From here on the console has this text.
pub fn console(emulator: &Emulator, text: &str) {
    let output = BASE64_STANDARD.encode(text);
    let body = format!(
        "<GetConsoleOutputResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>0</requestId>\
         <instanceId>i</instanceId><output>{output}</output></GetConsoleOutputResponse>"
    );
    emulator.script(&json!({"call": "ec2:GetConsoleOutput", "do": "answer", "body": body, "times": 1000}));
}

/// The instances that a tester has launched.
pub fn instances(emulator: &Emulator) -> Vec<Value> {
    let tester = json!({"Filters": [{"Name": "tag:kiln:stage", "Values": ["tester"]}]});
    let found = emulator.ask("ec2", "describe_instances", &tester);
    let reservations = found["Reservations"].as_array().unwrap().iter();
    reservations.flat_map(|it| it["Instances"].as_array().unwrap().clone()).collect()
}

pub fn states(emulator: &Emulator) -> Vec<String> {
    instances(emulator).iter().map(|it| it["State"]["Name"].as_str().unwrap().to_owned()).collect()
}
