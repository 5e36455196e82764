//! Images of this machine, published on AWS: what the snapshot holds is read with another client.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::emulator::{Emulator, python};
use crate::rig::{Ended, Rig, base, succeeded};

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
";

/// A rig, an emulator, and programs that work here and find AWS there.
struct Setting {
    /// Before the rig, which looks for what is left.
    aws: Emulator,
    rig: Rig,
}

impl Setting {
    fn new() -> Self {
        let mut rig = Rig::with_images_of(&base());
        let aws = Emulator::start(rig.path(), None);
        rig.beside_aws(&aws);
        Self { aws, rig }
    }

    fn publish(&self, arguments: &[&str]) -> Ended {
        let all: Vec<_> = ["publish", "--to", "aws"].iter().chain(arguments).copied().collect();
        self.rig.ask("imager", &all)
    }

    /// An image of this machine whose disk has this length and these bytes, and is made from another.
    fn image(&self, name: &str, length: u64, data: &[(u64, &[u8])], source: Option<&str>) -> PathBuf {
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
            "source_image": source.map(|id| json!({ "kind": "local-image", "value": id })),
        });
        fs::write(directory.join("image.json"), record.to_string()).unwrap();
        path
    }

    /// The image on AWS, as boto3 tells of it.
    fn registered(&self, id: &str) -> Value {
        self.aws.ask("ec2", "describe_images", &json!({ "ImageIds": [id.trim()] }))["Images"][0].clone()
    }

    /// The snapshots that have a digest, oldest first.
    fn snapshots(&self) -> Vec<Value> {
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
        let size = snapshots.last().unwrap()["VolumeSize"].as_u64().unwrap() << 30;
        let ids = snapshots.iter().map(|snapshot| snapshot["SnapshotId"].as_str().unwrap());
        let script = cli::Command::new(python()).args(["-c", READ]).arg(&read).arg(size.to_string()).args(ids);
        let script = self.aws.environment().iter().fold(script, |script, (name, value)| script.env(name, value));
        script.run().unwrap();
        let whole = self.rig.path().join("whole.raw");
        cli::Command::new("cp").args(["--sparse=always", "--reflink=never"]).arg(disk).arg(&whole).run().unwrap();
        File::options().write(true).open(&whole).unwrap().set_len(size).unwrap();
        cli::Command::new("cmp").arg(&read).arg(&whole).run().unwrap();
        fs::remove_file(&read).unwrap();
        fs::remove_file(&whole).unwrap();
    }
}

/// The tags of what EC2 tells of.
fn tag<'a>(of: &'a Value, name: &str) -> Option<&'a str> {
    of["Tags"].as_array()?.iter().find(|tag| tag["Key"] == name)?["Value"].as_str()
}

#[test]
fn the_base_image_is_published_as_it_is_and_once() {
    let setting = Setting::new();
    let ended = succeeded(setting.publish(&["bookworm", "--name", "base"]));
    let [snapshot] = &setting.snapshots()[..] else { panic!("not one snapshot: {}", ended.stderr) };
    assert_eq!((snapshot["State"].as_str(), snapshot["VolumeSize"].as_u64()), (Some("completed"), Some(4)));
    assert_eq!(tag(snapshot, "kiln:expires"), None);
    let id = fs::read_dir(base().join("images")).unwrap().next().unwrap().unwrap();
    setting.assert_holds(&[snapshot], &id.path().join("disk.raw"));

    let image = setting.registered(&ended.stdout);
    assert_eq!(image["Name"], "base");
    assert_eq!(tag(&image, "kiln:digest"), tag(snapshot, "kiln:digest"));
    let calls = setting.aws.calls();
    let register = calls.iter().find(|call| call["call"] == "ec2:RegisterImage").unwrap();
    assert_eq!(register["parameters"]["BlockDeviceMapping.1.Ebs.SnapshotId"], snapshot["SnapshotId"]);
    assert_eq!(register["parameters"]["ImdsSupport"], "v2.0");

    let again = succeeded(setting.publish(&["bookworm", "--name", "base"]));
    assert_eq!(again.stdout, ended.stdout);
    assert!(again.stderr.contains("unchanged:"), "{}", again.stderr);
    assert_eq!(setting.snapshots().len(), 1);
}
