//! Artifacts and manifests in S3: what is there afterwards, whoever else writes and whatever AWS answers.

use std::fs;
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use manifest::Manifest;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::emulator::Emulator;
use crate::rig::{Component, Ended, Rig, wait_for};

const STORE: &str = "s3://artifacts/line";

/// A rig whose programs find the emulator, with a bucket in it that keeps every version of what it is given.
fn rig_with_bucket() -> (Rig, Emulator) {
    let mut rig = Rig::new();
    let emulator = Emulator::start(rig.path(), None);
    rig.on_aws(&emulator);
    emulator.ask("s3", "create_bucket", &json!({"Bucket": "artifacts"}));
    let enabled = json!({"Bucket": "artifacts", "VersioningConfiguration": {"Status": "Enabled"}});
    emulator.ask("s3", "put_bucket_versioning", &enabled);
    (rig, emulator)
}

/// A component whose artifact is too large for one request: 40 MiB that cannot be packed.
fn large_component(rig: &Rig) -> Component {
    let component = rig.own_small_component();
    let text = fs::read_to_string(component.path().join("component.toml")).unwrap();
    let build = "head -c 41943040 /dev/zero | openssl enc -aes-128-ctr -nosalt -pbkdf2 -k x > files/noise";
    component.write("component.toml", &text.replace(r#"["true"]"#, &format!("[{build:?}]")));
    component.commit_change("large");
    component
}

fn build(rig: &Rig, component: &Component) -> Ended {
    let source = component.repository.display().to_string();
    rig.ask("artifact", &["build", "--provider", "local", "--store", STORE, "--source", &source])
}

/// Every version of every object, by key.
fn versions(emulator: &Emulator) -> Vec<String> {
    let listed = emulator.ask("s3", "list_object_versions", &json!({"Bucket": "artifacts"}));
    let versions = listed["Versions"].as_array().cloned().unwrap_or_default();
    versions.iter().map(|version| version["Key"].as_str().unwrap().to_owned()).collect()
}

fn unfinished_uploads(emulator: &Emulator) -> usize {
    let listed = emulator.ask("s3", "list_multipart_uploads", &json!({"Bucket": "artifacts"}));
    listed["Uploads"].as_array().map_or(0, Vec::len)
}

fn key(digest: &str) -> String {
    format!("line/sha256/{}/{digest}", &digest[..2])
}

/// The object's checksum as S3 has it, and of how many parts it was made.
fn checksum(emulator: &Emulator, digest: &str) -> Value {
    emulator.ask("s3", "head_object", &json!({"Bucket": "artifacts", "Key": key(digest), "ChecksumMode": "ENABLED"}))
}

#[test]
fn an_artifact_is_built_into_a_bucket_and_baked_from_it() {
    let (rig, emulator) = rig_with_bucket();
    let component = rig.own_small_component();
    let built = build(&rig, &component);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    let manifest = rig.manifest();
    let (source, artifact) = (manifest.source.unwrap(), manifest.artifact.unwrap());
    assert_eq!(artifact.store, STORE);
    let mut expected = [key(&source.archive.value), key(&artifact.identity.value)];
    expected.sort();
    assert_eq!(versions(&emulator), expected);
    let kept = checksum(&emulator, &artifact.identity.value);
    let digest = hex::decode(&artifact.identity.value).unwrap();
    assert_eq!(kept["ChecksumSHA256"], BASE64_STANDARD.encode(digest), "{kept}");

    let again = build(&rig, &component);
    assert!(again.stderr.contains("unchanged: "), "{}", again.stderr);
    assert_eq!(versions(&emulator), expected);

    // Nothing of it is on this machine but the manifest.
    assert!(!rig.state().join("objects").exists());
    rig.run("imager", &["build", "--provider", "local"]);
    assert!(rig.state().join("cache/objects/sha256").exists());
}

#[test]
fn a_large_artifact_goes_in_parts_and_comes_back_whole() {
    let (rig, emulator) = rig_with_bucket();
    let component = large_component(&rig);
    emulator.trouble_each("s3:*");
    let built = build(&rig, &component);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    emulator.forget_script();
    let artifact = rig.manifest().artifact.unwrap();
    assert!(artifact.size > 40 << 20);
    assert_eq!(versions(&emulator).len(), 2, "source archive and artifact");
    let kept = checksum(&emulator, &artifact.identity.value);
    assert!(kept["ETag"].as_str().unwrap().ends_with("-3\""), "{kept}");

    emulator.trouble_each("s3:*");
    rig.run("imager", &["build", "--provider", "local"]);
    let cached = rig.state().join("cache/objects").join(key(&artifact.identity.value).strip_prefix("line/").unwrap());
    let content = fs::read(cached).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&content)), artifact.identity.value);
    // "Checking object integrity": that of an object in parts is the digest of their digests.
    let parts: Vec<u8> = content.chunks(16 << 20).flat_map(Sha256::digest).collect();
    assert_eq!(kept["ChecksumSHA256"], BASE64_STANDARD.encode(Sha256::digest(parts)), "{kept}");
}

#[test]
fn an_upload_that_fails_or_is_interrupted_leaves_no_parts() {
    let (rig, emulator) = rig_with_bucket();
    let component = large_component(&rig);
    emulator.script(&json!({"call": "s3:PUT *uploadId", "do": "refuse", "status": 403, "code": "AccessDenied"}));
    emulator.trouble_each("s3:DELETE *uploadId");
    let refused = build(&rig, &component);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("uploading part ") && refused.stderr.contains("allow the action s3:PutObject"));
    assert_eq!(unfinished_uploads(&emulator), 0);

    let slow = json!({"call": "s3:PUT *uploadId", "do": "throttle", "status": 503, "code": "SlowDown", "times": 100});
    emulator.script(&slow);
    let source = component.repository.display().to_string();
    let arguments = ["build", "--provider", "local", "--store", STORE, "--source", &source];
    let before = parts_sent(&emulator);
    let child = rig.spawn("artifact", &arguments);
    wait_for("a part to be sent", || (parts_sent(&emulator) > before).then_some(()));
    cli::Command::new("kill").args(["-INT", &child.id().to_string()]).run().unwrap();
    let ended = Ended::of(child.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert_eq!(unfinished_uploads(&emulator), 0);
    assert!(!rig.manifest_path().exists(), "a manifest of an artifact that is nowhere");
}

fn parts_sent(emulator: &Emulator) -> usize {
    let is_part = |call: &&Value| {
        call["call"].as_str().is_some_and(|name| name.starts_with("s3:PUT ") && name.ends_with("?uploadId"))
    };
    emulator.calls().iter().filter(is_part).count()
}

#[test]
fn two_builders_of_the_same_content_agree() {
    let (rig, emulator) = rig_with_bucket();
    let component = rig.own_small_component();
    assert_eq!(build(&rig, &component).code, Some(0));
    let first = versions(&emulator);
    // The other builder has looked before this one had put anything.
    emulator.script(&json!({"call": "s3:HEAD *", "do": "answer", "status": 404, "body": "", "times": 2}));
    let source = component.repository.display().to_string();
    let other = ["build", "--provider", "local", "--store", STORE, "--source", &source, "--force"];
    let manifest = rig.path().join("other.json").display().to_string();
    rig.run("artifact", &[&other[..], &["--manifest", &manifest]].concat());
    assert_eq!(versions(&emulator), first, "what was there was written again");

    // S3 asks to try again when another upload of the same key is being completed.
    let large = large_component(&rig);
    let conflict = json!({"status": 409, "code": "ConditionalRequestConflict", "do": "refuse"});
    for call in ["s3:PUT *", "s3:POST *uploadId"] {
        let mut rule = conflict.clone();
        rule["call"] = call.into();
        emulator.script(&rule);
    }
    let built = build(&rig, &large);
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    assert_eq!(versions(&emulator).len(), first.len() + 2);
    assert_eq!(unfinished_uploads(&emulator), 0);
}

#[test]
fn damaged_content_is_not_baked() {
    let (rig, emulator) = rig_with_bucket();
    assert_eq!(build(&rig, &rig.own_small_component()).code, Some(0));
    let artifact = rig.manifest().artifact.unwrap().identity.value;
    let other = json!({"Bucket": "artifacts", "Key": key(&artifact), "Body": "something else"});
    emulator.ask("s3", "put_object", &other);
    let ended = rig.ask("imager", &["build", "--provider", "local"]);
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
    let damaged = format!("s3://artifacts/{} is damaged", key(&artifact));
    assert!(ended.stderr.contains(&damaged) && ended.stderr.contains("artifact build --force"), "{}", ended.stderr);
}

#[test]
fn what_is_wrong_with_a_store_is_said() {
    let (rig, emulator) = rig_with_bucket();
    let component = rig.own_small_component();
    let source = component.repository.display().to_string();
    let build_in = |store: &str| rig.ask("artifact", &["build", "--store", store, "--source", &source]);

    for (store, code, said) in [
        ("s3://Not_A_Bucket/x", 2, "'s3://Not_A_Bucket/x' names no bucket"),
        ("https://example.com/", 2, "'https://example.com/' is neither a directory nor in S3"),
        ("s3://missing", 3, "NoSuchBucket"),
    ] {
        let ended = build_in(store);
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }
    let none = rig.ask("artifact", &["build", "--source", &source]);
    assert_eq!(none.code, Some(2), "{}", none.stderr);
    assert!(none.stderr.contains("--store s3://BUCKET/PREFIX"), "{}", none.stderr);

    for (call, status, code, said) in [
        ("s3:HEAD *", 403, "AccessDenied", "allow the actions s3:GetObject and, on the bucket, s3:ListBucket"),
        ("s3:PUT *", 403, "AccessDenied", "allow the action s3:PutObject"),
        ("s3:PUT *", 301, "PermanentRedirect", "the bucket is in another region: set AWS_REGION"),
    ] {
        emulator.script(&json!({"call": call, "do": "refuse", "status": status, "code": code}));
        let ended = build_in(STORE);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        assert!(ended.stderr.contains(said), "{}", ended.stderr);
    }

    let stranger = rig.program("artifact").args(["build", "--store", STORE, "--source", &source]);
    let stranger = stranger.env("AWS_ACCESS_KEY_ID", "").env("AWS_EC2_METADATA_DISABLED", "true");
    let said = stranger.run().unwrap_err().to_string();
    assert!(said.contains("set AWS_PROFILE or AWS_ACCESS_KEY_ID"), "{said}");
    assert!(versions(&emulator).is_empty());
}

const MANIFEST: &str = "s3://artifacts/manifest.json";

fn manifest_text(emulator: &Emulator) -> String {
    String::from_utf8(emulator.object("artifacts", "manifest.json")).unwrap()
}

/// Starts a build whose write of the manifest is held up, changes the manifest meanwhile, and lets the build end.
fn build_meanwhile(rig: &Rig, emulator: &Emulator, component: &Component, change: impl Fn(&mut Manifest)) -> Ended {
    let put = "s3:PUT /artifacts/manifest.json";
    let writes = || emulator.calls().iter().filter(|call| call["call"] == put).count();
    let before = writes();
    emulator.script(&json!({"call": put, "do": "throttle", "status": 503, "code": "SlowDown", "times": 5}));
    let source = component.repository.display().to_string();
    let build = ["build", "--provider", "local", "--store", STORE, "--manifest", MANIFEST, "--force"];
    let build = rig.program("artifact").args(build).args(["--source", &source]).env("AWS_MAX_ATTEMPTS", "10");
    let build = build.configure(|it| _ = it.stdout(Stdio::piped()).stderr(Stdio::piped())).spawn().unwrap();
    wait_for("the write", || (writes() > before).then_some(()));
    let mut manifest: Manifest = serde_json::from_str(&manifest_text(emulator)).unwrap();
    change(&mut manifest);
    let file = rig.path().join("theirs.json");
    fs::write(&file, serde_json::to_string(&manifest).unwrap()).unwrap();
    // By the link, which the rule does not hold up.
    let put = cli::Command::new("curl").args(["--silent", "--fail", "--upload-file"]).arg(&file);
    put.arg(emulator.link("artifacts", "manifest.json")).run().unwrap();
    Ended::of(build.wait_with_output().unwrap())
}

#[test]
fn a_manifest_in_a_bucket_has_one_writer_at_a_time() {
    let (rig, emulator) = rig_with_bucket();
    let component = rig.own_small_component();
    let source = component.repository.display().to_string();
    let missing = rig.ask("imager", &["build", "--provider", "local", "--manifest", MANIFEST]);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains(&format!("no manifest at {MANIFEST}")), "{}", missing.stderr);

    // The answers to writes are lost, and the writes are not taken for somebody else's.
    emulator.trouble_each("s3:* /artifacts/manifest.json");
    let build = ["build", "--provider", "local", "--store", STORE, "--manifest", MANIFEST, "--source", &source];
    rig.run("artifact", &build);
    rig.run("imager", &["build", "--provider", "local", "--manifest", MANIFEST]);
    emulator.forget_script();
    let manifest: Manifest = serde_json::from_str(&manifest_text(&emulator)).unwrap();
    assert!(manifest.artifact.is_some() && manifest.images.contains_key("small"));
    assert!(!rig.manifest_path().exists());
    assert!(rig.run("artifact", &build).stderr.contains("unchanged: "));

    // Somebody else changes something else: both changes stand.
    let built = build_meanwhile(&rig, &emulator, &component, |manifest| manifest.images.clear());
    assert_eq!(built.code, Some(0), "{}", built.stderr);
    let both: Manifest = serde_json::from_str(&manifest_text(&emulator)).unwrap();
    assert!(both.images.is_empty());
    assert_ne!(both.artifact, manifest.artifact);

    // The same: theirs stands, and it is said.
    let theirs = |manifest: &mut Manifest| manifest.artifact.as_mut().unwrap().file_name = "theirs".to_owned();
    let refused = build_meanwhile(&rig, &emulator, &component, theirs);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    let said = format!("somebody else changed artifact in the manifest {MANIFEST} at the same time");
    assert!(refused.stderr.contains(&said) && refused.stderr.contains("run again"), "{}", refused.stderr);
    let stands: Manifest = serde_json::from_str(&manifest_text(&emulator)).unwrap();
    assert_eq!(stands.artifact.unwrap().file_name, "theirs");
}
