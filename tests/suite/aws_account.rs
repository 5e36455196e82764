//! An account on the emulator with a source image, a machine that works in it, and what our stages have made there, as
//! another client sees it.

use std::path::PathBuf;

use serde_json::Value;

use crate::emulator::Emulator;
use crate::rig::{Ended, Rig};

/// A machine on which programs work on AWS, where the source image has the disk of the base image.
pub fn on_aws() -> (Rig, Emulator) {
    let (mut rig, emulator) = with_source(Rig::new());
    rig.without_manifest();
    (rig, emulator)
}

/// The same with a manifest that has an artifact.
pub fn with_artifact() -> (Rig, Emulator) {
    with_source(crate::rig::rig_with_artifact())
}

/// The rig on AWS, where the source image has the disk of the base image.
pub fn with_source(rig: Rig) -> (Rig, Emulator) {
    with_disk_of(rig, "bookworm")
}

/// The rig on AWS, where the source image has the disk of an image that the rig has.
pub fn with_disk_of(mut rig: Rig, image: &str) -> (Rig, Emulator) {
    let image = rig.run("imager", &["inspect", image]).stdout;
    let image: Value = serde_json::from_str(&image).unwrap();
    let disk = rig.state().join("images").join(image["id"].as_str().unwrap()).join("disk.raw");
    let emulator = Emulator::start(rig.path(), Some(&disk));
    rig.on_aws(&emulator);
    (rig, emulator)
}

/// A template of one builder with these options beside the usual ones.
pub fn template(emulator: &Emulator, options: &str, provisioners: &[&str]) -> String {
    format!(
        r#"{{ "builders": [{{ "name": "b", "type": "amazon-chroot", "source_ami": "{}", "ami_name": "image-b"{options} }}],
  "provisioners": [{}] }}"#,
        emulator.source_ami,
        provisioners.join(",")
    )
}

/// What there is of images, snapshots and volumes.
const ALL: &str = "
import boto3, json
ec2 = boto3.client('ec2')
there = {**ec2.describe_images(Owners=['self']), **ec2.describe_snapshots(OwnerIds=['self']), **ec2.describe_volumes()}
print(json.dumps(there, default=str))
";

/// What our stages have made: moto makes images, snapshots and volumes of its own.
pub fn ours(there: &Value, kind: &str) -> Vec<Value> {
    let all = there[kind].as_array().unwrap().iter();
    all.filter(|it| tag(it, "kiln:stage").is_some()).cloned().collect()
}

/// What there is of a kind, such as `Volumes`.
pub fn described(emulator: &Emulator, kind: &str) -> Vec<Value> {
    ours(&emulator.python(ALL, &[]), kind)
}

pub fn only(found: Vec<Value>) -> Value {
    assert_eq!(found.len(), 1, "{found:#?}");
    found.into_iter().next().unwrap()
}

pub fn tag<'a>(it: &'a Value, name: &str) -> Option<&'a str> {
    let tags = it["Tags"].as_array()?;
    tags.iter().find(|tag| tag["Key"] == name).and_then(|tag| tag["Value"].as_str())
}

/// The requests of this name, in order.
pub fn requests(emulator: &Emulator, call: &str) -> Vec<Value> {
    let calls = emulator.calls().into_iter().filter(|it| it["call"] == call);
    calls.map(|it| it["parameters"].clone()).collect()
}

/// A list parameter's members as `name=value`, such as the tags of a request.
pub fn pairs(request: &Value, prefix: &str) -> Vec<String> {
    let member = |n: usize, part: &str| request[format!("{prefix}.{n}.{part}")].as_str();
    (1..).map_while(|n| Some(format!("{}={}", member(n, "Key")?, member(n, "Value").unwrap_or_default()))).collect()
}

/// That all is as after one undisturbed `build` or `snapshot`: an image, its snapshot, the volume, and no lease but its.
pub fn assert_one_of_each(emulator: &Emulator) -> (Value, Value) {
    let there = emulator.python(ALL, &[]);
    let (image, snapshot) = (only(ours(&there, "Images")), only(ours(&there, "Snapshots")));
    assert_eq!(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"], snapshot["SnapshotId"]);
    assert_eq!((tag(&image, "kiln:expires"), tag(&snapshot, "kiln:expires")), (None, None));
    assert_eq!(only(ours(&there, "Volumes"))["State"], "available");
    (image, snapshot)
}

pub fn build(rig: &Rig, template: &str, arguments: &[&str]) -> Ended {
    let path = rig.template(template);
    rig.ask("imager", &[&["build"], arguments, &[&path]].concat())
}

pub fn disk(emulator: &Emulator, id: &Value) -> PathBuf {
    emulator.disks.join(id.as_str().unwrap())
}
