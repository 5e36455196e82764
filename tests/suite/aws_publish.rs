//! Images of this machine, published on AWS: what the snapshot holds is read with another client.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::aws_account::tag;
use crate::emulator::Emulator;
use crate::rig::{Ended, Rig, base, succeeded, wait_for};

const BLOCK: u64 = 512 * 1024;

/// Reads a snapshot, given with those below it from the lowest on, into a file of SIZE bytes.
const READ: &str = "
import boto3, sys
path, size, *snapshots = sys.argv[1:]
ebs = boto3.client('ebs')
with open(path, 'wb') as disk:
    disk.truncate(int(size))
    for snapshot in snapshots:
        for block in ebs.list_snapshot_blocks(SnapshotId=snapshot)['Blocks']:
            token = dict(BlockIndex=block['BlockIndex'], BlockToken=block['BlockToken'])
            disk.seek(block['BlockIndex'] * 524288)
            disk.write(ebs.get_snapshot_block(SnapshotId=snapshot, **token)['BlockData'].read())
print('{}')
";

/// A rig, an emulator, and programs that work here and find AWS there.
pub struct Setting {
    /// Before the rig, which looks for what is left.
    pub aws: Emulator,
    pub rig: Rig,
}

impl Setting {
    pub fn new() -> Self {
        let mut rig = Rig::with_images_of(&base());
        let aws = Emulator::start(rig.path(), None);
        rig.beside_aws(&aws);
        Self { aws, rig }
    }

    pub fn publish(&self, arguments: &[&str]) -> Ended {
        self.rig.ask("imager", &[&["publish", "--to", "aws"], arguments].concat())
    }

    /// Says beforehand what happens to calls to come.
    fn script(&self, call: &str, mut rule: Value) {
        rule["call"] = json!(call);
        self.aws.script(&rule);
    }

    /// Ends a publication by this signal once `what` is under way, and returns what it had said.
    fn publish_until(&self, arguments: &[&str], signal: Signal, what: impl Fn(&[Value]) -> bool) -> Ended {
        let imager = self.rig.spawn("imager", &[&["publish", "--to", "aws"], arguments].concat());
        wait_for("a publication to be where it is to end", || what(&self.aws.calls()).then_some(()));
        kill_process(Pid::from_raw(imager.id().cast_signed()).unwrap(), signal).unwrap();
        Ended::of(imager.wait_with_output().unwrap())
    }

    /// How many blocks are known on this machine to have been uploaded.
    fn written_down(&self) -> usize {
        let lines = cli::Command::new("find").arg(self.rig.state().join("cache/uploads")).args(["-name", "snap-*"]);
        let files = lines.run().unwrap().text();
        files.lines().map(|file| fs::read_to_string(file).unwrap().lines().count()).sum()
    }

    /// How often a call was made.
    fn count(&self, call: &str) -> usize {
        count(&self.aws.calls(), call)
    }

    /// An image of this machine whose disk has this length and these bytes.
    pub fn image(&self, name: &str, length: u64, data: &[(u64, &[u8])]) -> PathBuf {
        let directory = self.rig.state().join("images").join(format!("img-{name}"));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("disk.raw");
        let disk = File::create(&path).unwrap();
        disk.set_len(length).unwrap();
        for (offset, bytes) in data {
            disk.write_all_at(bytes, *offset).unwrap();
        }
        let content = fs::read(&path).unwrap();
        let digests: Vec<u8> = content.chunks(BLOCK as usize).flat_map(Sha256::digest).collect();
        fs::write(directory.join("blocks.sha256"), &digests).unwrap();
        let record = json!({
            "id": format!("img-{name}"), "name": name, "size": length, "virtualization_type": "hvm",
            "digest": { "kind": "sha256", "value": hex::encode(Sha256::digest(&digests)) },
            "created": "2026-01-01T00:00:00Z", "tags": { "colour": "blue" }, "verdict": null,
            "source_image": null,
        });
        fs::write(directory.join("image.json"), record.to_string()).unwrap();
        path
    }

    /// Writes a manifest that has this image, of a volume that is changed so.
    pub fn write_manifest(&self, image: &str, change: impl Fn(&mut Value)) {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/manifest/tests/fixtures/v1.json");
        let mut manifest: Value = serde_json::from_slice(&fs::read(fixture).unwrap()).unwrap();
        manifest["images"]["hvm"]["identity"] = json!({ "kind": "local-image", "value": image });
        change(&mut manifest["volumes"]["hvm"]);
        fs::write(self.rig.manifest_path(), manifest.to_string()).unwrap();
    }

    /// The images that have a digest, as boto3 tells of them.
    pub fn images(&self) -> Vec<Value> {
        let filters = json!({ "Filters": [{ "Name": "tag-key", "Values": ["kiln:digest"] }] });
        self.aws.ask("ec2", "describe_images", &filters)["Images"].as_array().unwrap().clone()
    }

    /// Fails unless there is one snapshot, complete and without a lease, that holds the disk, and one image of it.
    fn assert_published_once(&self, disk: &Path) {
        let [snapshot] = &self.snapshots()[..] else { panic!("there is not one snapshot") };
        assert_eq!((snapshot["State"].as_str(), tag(snapshot, "kiln:expires")), (Some("completed"), None));
        self.assert_holds(&[snapshot], disk);
        let [image] = &self.images()[..] else { panic!("there is not one image") };
        assert_eq!(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"], snapshot["SnapshotId"]);
        assert_eq!(tag(image, "kiln:digest"), tag(snapshot, "kiln:digest"));
        assert!(!self.rig.state().join("cache/uploads").read_dir().is_ok_and(|mut left| left.next().is_some()));
    }

    /// The snapshots that have a digest, oldest first.
    pub fn snapshots(&self) -> Vec<Value> {
        let filters = json!({ "Filters": [{ "Name": "tag-key", "Values": ["kiln:digest"] }] });
        let answer = self.aws.ask("ec2", "describe_snapshots", &filters);
        let mut snapshots = answer["Snapshots"].as_array().unwrap().clone();
        snapshots.sort_by_key(|snapshot| snapshot["StartTime"].as_str().unwrap().to_owned());
        snapshots
    }

    /// The indexes of the blocks that a snapshot itself has.
    fn blocks(&self, snapshot: &Value) -> Vec<u64> {
        let of = json!({ "SnapshotId": snapshot["SnapshotId"] });
        let answer = self.aws.ask("ebs", "list_snapshot_blocks", &of);
        let mut indexes: Vec<_> =
            answer["Blocks"].as_array().unwrap().iter().map(|block| block["BlockIndex"].as_u64().unwrap()).collect();
        indexes.sort_unstable();
        indexes
    }

    /// Fails unless the last of the snapshots, over those before it, holds the disk and zeros behind it.
    fn assert_holds(&self, snapshots: &[&Value], disk: &Path) {
        let read = self.rig.path().join("read.raw");
        let gib = snapshots.last().unwrap()["VolumeSize"].as_u64().unwrap();
        let (path, size) = (read.display().to_string(), (gib << 30).to_string());
        let ids = snapshots.iter().map(|snapshot| snapshot["SnapshotId"].as_str().unwrap());
        self.aws.python(READ, &[path.as_str(), &size].into_iter().chain(ids).collect::<Vec<_>>());
        let whole = self.rig.path().join("whole.raw");
        cli::Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(disk).arg(&whole).run().unwrap();
        File::options().write(true).open(&whole).unwrap().set_len(gib << 30).unwrap();
        cli::Command::new("cmp").arg(&read).arg(&whole).run().unwrap();
        fs::remove_file(&read).unwrap();
        fs::remove_file(&whole).unwrap();
    }
}

/// How many of the calls are `call`, or begin with it if it is the beginning of a path.
fn count(calls: &[Value], call: &str) -> usize {
    let is = |made: &str| made == call || (call.ends_with('/') && made.starts_with(call));
    calls.iter().filter(|made| is(made["call"].as_str().unwrap())).count()
}

/// Eight blocks with data in each.
fn eight_blocks() -> Vec<(u64, &'static [u8])> {
    (0..8).map(|block| (block * BLOCK + 100, &b"data"[..])).collect()
}

const START: &str = "ebs:POST /snapshots";
const PUT: &str = "ebs:PUT /snapshots/";
const COMPLETE: &str = "ebs:POST /snapshots/completion/";

#[test]
fn the_base_image_is_published_as_it_is_and_once() {
    let setting = Setting::new();
    let ended = succeeded(setting.publish(&["bookworm", "--name", "base"]));
    let id = fs::read_dir(base().join("images")).unwrap().next().unwrap().unwrap();
    setting.assert_published_once(&id.path().join("disk.raw"));
    let calls = setting.aws.calls();
    let register = calls.iter().find(|call| call["call"] == "ec2:RegisterImage").unwrap();
    assert_eq!(register["parameters"]["Name"], "base");
    assert_eq!(register["parameters"]["ImdsSupport"], "v2.0");
    assert_eq!(register["parameters"]["BlockDeviceMapping.1.Ebs.VolumeSize"], "4");

    let again = succeeded(setting.publish(&["bookworm", "--name", "base"]));
    assert_eq!(again.stdout, ended.stdout);
    assert!(again.stderr.contains("unchanged:"), "{}", again.stderr);
    assert_eq!((setting.count(PUT), setting.count(START)), (count(&calls, PUT), 1));
}

#[test]
fn only_what_differs_from_a_published_image_is_uploaded() {
    let setting = Setting::new();
    let mut old: Vec<(u64, &[u8])> = (8..16).map(|block| (block * BLOCK, &b"kept"[..])).collect();
    let mut new = old.clone();
    old.extend([(BLOCK, &b"becomes zeros"[..]), (3 * BLOCK, b"old"), (20 * BLOCK, b"behind the end")]);
    new.extend([(3 * BLOCK, &b"new"[..]), (16 * BLOCK, b"in a block that is not whole")]);
    let old = setting.image("old", 21 * BLOCK, &old);
    let new = setting.image("new", 16 * BLOCK + 512, &new);
    succeeded(setting.publish(&["old"]));
    let ended = succeeded(setting.publish(&["new"]));

    let [below, snapshot] = &setting.snapshots()[..] else { panic!("{}", ended.stderr) };
    assert_eq!(setting.blocks(below), [1, 3, 8, 9, 10, 11, 12, 13, 14, 15, 20]);
    assert_eq!(setting.blocks(snapshot), [1, 3, 16, 20]);
    setting.assert_holds(&[below], &old);
    setting.assert_holds(&[below, snapshot], &new);
    assert_eq!(tag(snapshot, "colour"), Some("blue"));

    let calls = setting.aws.calls();
    let of = |call: &str| calls.iter().rfind(|made| count(std::slice::from_ref(made), call) == 1).unwrap();
    assert_eq!(of(START)["parameters"]["ParentSnapshotId"], below["SnapshotId"]);
    // What was written, in the order of its index: SHA-256 over the digests.
    let mut volume = fs::read(&new).unwrap();
    volume.resize(21 * BLOCK as usize, 0);
    let written = [1, 3, 16, 20].map(|index| &volume[index * BLOCK as usize..][..BLOCK as usize]);
    let whole = Sha256::digest(written.map(Sha256::digest).concat());
    let said = &of(COMPLETE)["parameters"];
    assert_eq!(said["x-amz-checksum"], BASE64_STANDARD.encode(whole));
    assert_eq!(
        (&said["x-amz-changedblockscount"], &said["x-amz-checksum-aggregation-method"]),
        (&json!("4"), &json!("LINEAR"))
    );
}

#[test]
fn every_block_of_an_encrypted_snapshot_is_written_unless_its_parent_has_it() {
    let setting = Setting::new();
    setting.image("old", 4 * BLOCK, &[(0, b"kept"), (BLOCK, b"old")]);
    let new = setting.image("new", 4 * BLOCK, &[(0, b"kept"), (BLOCK, b"new")]);
    succeeded(setting.publish(&["old", "--name", "plain"]));
    let key = "arn:aws:kms:us-east-1:123456789012:key/one";
    succeeded(setting.publish(&["old", "--kms-key", key]));
    succeeded(setting.publish(&["new", "--kms-key", key]));
    let [plain, below, snapshot] = &setting.snapshots()[..] else { panic!("there are not three snapshots") };
    assert_eq!(setting.blocks(plain), [0, 1]);
    assert_eq!(setting.blocks(below), (0..2048).collect::<Vec<_>>());
    assert_eq!(setting.blocks(snapshot), [1]);
    setting.assert_holds(&[below, snapshot], &new);
    let calls = setting.aws.calls();
    let starts = calls.iter().filter(|call| call["call"] == START).map(|call| &call["parameters"]);
    let told: Vec<_> = starts.map(|said| (said["Encrypted"].clone(), said["KmsKeyArn"].clone())).collect();
    assert_eq!(told, [(Value::Null, Value::Null), (json!(true), json!(key)), (Value::Null, Value::Null)]);
}

#[test]
fn a_killed_publication_is_gone_on_with_wherever_it_was() {
    let setting = Setting::new();
    let disk = setting.image("hello", 8 * BLOCK, &eight_blocks());
    let hang = |call: &str| setting.script(call, json!({ "do": "hang" }));
    let kill_at = |call: &str| {
        let before = setting.count(call);
        setting.publish_until(&["img-hello"], Signal::KILL, |calls| count(calls, call) > before);
    };
    // The snapshot is there, and nobody has heard of it.
    hang(START);
    kill_at(START);
    // EC2 does not tell of it yet: the same request finds it.
    let nothing = r#"<DescribeSnapshotsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><snapshotSet/></DescribeSnapshotsResponse>"#;
    setting.script("ec2:DescribeSnapshots", json!({ "do": "answer", "body": nothing, "times": 3 }));
    // Five blocks are put, and the answers to more do not come.
    setting.script(&format!("{PUT}*"), json!({ "do": "hang", "after": 5, "times": 3 }));
    setting.publish_until(&["img-hello"], Signal::KILL, |calls| count(calls, PUT) == 8 && setting.written_down() == 5);
    let calls = setting.aws.calls();
    let starts: Vec<_> = calls.iter().filter(|call| call["call"] == START).collect();
    assert_eq!(starts.len(), 2);
    assert_eq!(starts[0]["parameters"], starts[1]["parameters"]);
    let [pending] = &setting.snapshots()[..] else { panic!("there is not one snapshot") };
    assert_eq!(pending["State"], "pending");
    assert!(tag(pending, "kiln:expires").is_some() && setting.images().is_empty());

    hang(&format!("{COMPLETE}*"));
    kill_at(COMPLETE);
    assert_eq!(setting.count(PUT), 8 + 3, "five were known to be there");
    hang("ec2:RegisterImage");
    kill_at("ec2:RegisterImage");
    hang("ec2:DeleteTags");
    kill_at("ec2:DeleteTags");
    succeeded(setting.publish(&["img-hello"]));
    setting.assert_published_once(&disk);
    assert_eq!((setting.count(START), setting.count(PUT)), (2, 11));
}

#[test]
fn an_interrupted_upload_waits_for_the_next_run_even_if_nothing_was_written_down() {
    let setting = Setting::new();
    let disk = setting.image("hello", 8 * BLOCK, &eight_blocks());
    setting.script(&format!("{PUT}*"), json!({ "do": "throttle", "after": 4, "times": 1000 }));
    let ended = setting.publish_until(&["img-hello"], Signal::INT, |calls| count(calls, PUT) > 12);
    assert_eq!(ended.code, Some(130), "{}", ended.stderr);
    assert!(ended.stderr.contains("waits until 20") && ended.stderr.contains("interrupted"), "{}", ended.stderr);
    fs::remove_dir_all(setting.rig.state().join("cache/uploads")).unwrap();
    let before = setting.snapshots();

    setting.aws.forget_script();
    succeeded(setting.publish(&["img-hello"]));
    setting.assert_published_once(&disk);
    assert_eq!(setting.snapshots()[0]["SnapshotId"], before[0]["SnapshotId"]);
}

#[test]
fn throttles_lost_answers_and_what_is_not_known_yet_change_nothing() {
    let setting = Setting::new();
    let disk = setting.image("hello", 8 * BLOCK, &eight_blocks());
    let put = format!("{PUT}*");
    for rule in [
        json!({ "do": "refuse", "status": 404, "code": "ResourceNotFoundException", "times": 8 }),
        json!({ "do": "throttle", "code": "RequestThrottledException", "times": 16 }),
        json!({ "do": "lose", "times": 5 }),
        json!({ "do": "refuse", "status": 503, "code": "InternalServerException", "times": 3 }),
    ] {
        setting.script(&put, rule);
    }
    for call in ["ec2:*", START, &format!("{COMPLETE}*")] {
        setting.script(call, json!({ "do": "throttle", "code": "RequestLimitExceeded", "each": true }));
    }
    succeeded(setting.publish(&["img-hello"]));
    setting.assert_published_once(&disk);
    assert_eq!(setting.count(PUT), 8 + 8 + 16 + 5 + 3);
}

#[test]
fn every_answer_may_be_lost_once() {
    let setting = Setting::new();
    let disk = setting.image("hello", 8 * BLOCK, &eight_blocks());
    for call in ["ec2:*", START, &format!("{COMPLETE}*")] {
        setting.script(call, json!({ "do": "lose", "each": true }));
    }
    setting.script(&format!("{PUT}*"), json!({ "do": "lose", "each": "name" }));
    succeeded(setting.publish(&["img-hello"]));
    setting.aws.forget_script();
    setting.assert_published_once(&disk);
}

#[test]
fn what_aws_refuses_is_said_with_what_to_do() {
    let setting = Setting::new();
    setting.image("hello", 8 * BLOCK, &eight_blocks());
    setting.image("other", 8 * BLOCK, &[]);
    let refused = |call: &str, status: u32, code: &str, expected: &[&str]| {
        setting.script(call, json!({ "do": "refuse", "status": status, "code": code, "message": "No." }));
        let ended = setting.publish(&["img-hello"]);
        assert_eq!(ended.code, Some(3), "{}", ended.stderr);
        for expected in expected {
            assert!(ended.stderr.contains(expected), "{expected:?} is not in: {}", ended.stderr);
        }
    };
    let put = format!("{PUT}*");
    refused("ec2:DescribeSnapshots", 403, "UnauthorizedOperation", &["allow the action ec2:DescribeSnapshots"]);
    refused(
        START,
        403,
        "AccessDeniedException",
        &["beginning a snapshot of img-hello", "allow the action ebs:StartSnapshot"],
    );
    refused(START, 400, "ConcurrentLimitExceededException", &["have the quota raised, or remove", "`imager gc`"]);
    refused(START, 402, "ServiceQuotaExceededException", &["have the quota raised"]);
    refused(START, 403, "UnrecognizedClientException", &["check AWS_PROFILE and AWS_REGION"]);
    refused(&put, 403, "AccessDeniedException", &["putting block", "allow the action ebs:PutSnapshotBlock"]);
    refused("ec2:RegisterImage", 403, "UnauthorizedOperation", &["allow the action ec2:RegisterImage"]);

    succeeded(setting.publish(&["img-hello"]));
    assert_eq!((setting.snapshots().len(), setting.images().len()), (1, 1));
    let taken = setting.publish(&["img-other", "--name", "hello"]);
    assert_eq!(taken.code, Some(2), "{}", taken.stderr);
    assert!(taken.stderr.contains("the name 'hello' is taken there by ami-"), "{}", taken.stderr);
    succeeded(setting.publish(&["img-other", "--name", "hello", "--force"]));
    assert_eq!(setting.images().len(), 1);
}

#[test]
fn what_cannot_be_published_is_said_before_anything_is_made() {
    let setting = Setting::new();
    let disk = setting.image("hello", 8 * BLOCK, &eight_blocks());
    let refused = |program: cli::Command, code: i32, expected: &str| {
        let program = program.arg("--manifest").arg("none.json");
        let program = program.configure(|it| _ = it.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let ended = Ended::of(program.spawn().unwrap().wait_with_output().unwrap());
        assert_eq!(ended.code, Some(code), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{expected:?} is not in: {}", ended.stderr);
    };
    let imager = |arguments: &[&str]| setting.rig.program("imager").arg("publish").args(arguments);
    refused(imager(&["nothing", "--to", "aws"]), 2, "there is no image 'nothing'");
    refused(imager(&["--to", "aws"]), 2, "no manifest at none.json");
    refused(imager(&["img-hello", "--to", "local"]), 2, "it is an image of the local provider already");
    refused(imager(&["img-hello", "--to", "aws", "--provider", "aws"]), 2, "use --provider local");
    let without = |names: [&'static str; 2]| {
        let imager = imager(&["img-hello", "--to", "aws"]).env("AWS_EC2_METADATA_DISABLED", "true");
        imager.configure(move |it| names.iter().for_each(|name| _ = it.env_remove(name)))
    };
    refused(without(["AWS_REGION", "AWS_DEFAULT_REGION"]), 2, "no region is set");
    refused(without(["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]), 3, "set AWS_PROFILE or AWS_ACCESS_KEY_ID");
    File::options().write(true).open(&disk).unwrap().write_all_at(b"DATA", 3 * BLOCK + 100).unwrap();
    refused(imager(&["img-hello", "--to", "aws"]), 3, "block 3 of the disk of img-hello is damaged");
    assert!(setting.images().is_empty());
}

#[test]
fn the_manifest_records_where_an_image_is_and_what_it_has_earned() {
    let setting = Setting::new();
    setting.image("hello", 8 * BLOCK, &eight_blocks());
    let image = setting.rig.state().join("images/img-hello/image.json");
    let mut record: Value = serde_json::from_slice(&fs::read(&image).unwrap()).unwrap();
    record["verdict"] = json!({ "passed": true, "digest": record["digest"], "ended": "2026-01-02T03:04:05Z" });
    fs::write(&image, record.to_string()).unwrap();
    setting.write_manifest("img-hello", |_| {});

    let ended = succeeded(setting.publish(&[]));
    let published = &setting.rig.manifest().images["hvm"].published["aws us-east-1"];
    assert_eq!(published.identity.value, ended.stdout.trim());
    assert_eq!(published.stamp.consumed.value, "img-hello");
    let earned = published.earned.as_ref().unwrap();
    assert_eq!((earned.passed, earned.at.as_str()), (true, "local"));
    let image = &setting.images()[0];
    assert_eq!(tag(image, "kiln:earned"), Some("passed 2026-01-02T03:04:05Z local"));
    assert_eq!(tag(image, "kiln:version"), Some("1.0.7"));

    let before = fs::read(setting.rig.manifest_path()).unwrap();
    assert!(succeeded(setting.publish(&["--only", "hvm"])).stderr.contains("unchanged:"));
    assert_eq!(fs::read(setting.rig.manifest_path()).unwrap(), before);
    let missing = setting.publish(&["--only", "pv"]);
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    assert!(missing.stderr.contains("it has no image of the builder 'pv'"), "{}", missing.stderr);
}
