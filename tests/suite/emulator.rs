//! AWS for a test: moto with disks and scripted trouble (tests/emulator), and another client than ours to look at it.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};

/// Asks moto with boto3: service, method, parameters.
const ASK: &str = "
import boto3, json, sys
service, method, parameters = sys.argv[1:]
answer = getattr(boto3.client(service), method)(**json.loads(parameters))
answer.pop('ResponseMetadata', None)
print(json.dumps(answer, default=str))
";

/// An emulator of its own for a test. It ends when this is dropped, and with this process however that ends.
pub struct Emulator {
    child: Child,
    /// Where it answers.
    pub endpoint: String,
    /// The image that has the disk which the emulator was started with.
    pub source_ami: String,
    /// The instance that a builder seems to run on.
    pub instance: String,
    /// Where the disks of volumes and snapshots are, by id.
    pub disks: PathBuf,
}

impl Emulator {
    /// Starts one that keeps its disks below `directory`. `disk` is that of the source image.
    pub fn start(directory: &Path, disk: Option<&Path>) -> Self {
        let disks = directory.join("disks");
        std::fs::create_dir_all(&disks).unwrap();
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("emulator");
        let command = cli::Command::new(python()).arg(program).arg(&disks).args(disk);
        let command = command.configure(|it| _ = it.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).expect("the emulator did not start");
        let of = |name: &str| ready[name].as_str().unwrap().to_owned();
        Self { child, endpoint: of("endpoint"), source_ami: of("source_ami"), instance: of("instance"), disks }
    }

    /// What a client of AWS needs in its environment to find the emulator, and nothing else.
    pub fn environment(&self) -> Vec<(String, String)> {
        let set = [
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", self.endpoint.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "AKIATEST"),
            ("AWS_SECRET_ACCESS_KEY", "test-secret"),
        ];
        set.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    /// Says beforehand what happens to calls to come; the rules are in tests/emulator/script.py.
    pub fn script(&self, rule: &Value) {
        self.post("/_script", &rule.to_string());
    }

    /// From here on every such call is refused once for its rate, and then its answer is lost once.
    pub fn trouble_each(&self, call: &str) {
        // S3 has no body for HEAD that could say it.
        self.script(&json!({"call": call, "each": true, "do": "throttle", "status": 503}));
        self.script(&json!({"call": call, "each": true, "do": "lose"}));
    }

    /// Nothing happens to calls to come any more.
    pub fn forget_script(&self) {
        self.post("/_forget", "");
    }

    /// Every call so far: `{"call": "ec2:RunInstances", "parameters": {…}}`. Of one without a form these are its query,
    /// its `x-amz-` headers and its JSON.
    pub fn calls(&self) -> Vec<Value> {
        serde_json::from_str(&self.post("/_calls", "")).unwrap()
    }

    /// Names of the calls that changed something since `before` calls had been made.
    pub fn changes_since(&self, before: usize) -> Vec<String> {
        let calls = self.calls().split_off(before);
        let names = calls.into_iter().map(|call| call["call"].as_str().unwrap().to_owned());
        let reads = ["Describe", "Get", "List", "GET", "HEAD"];
        names.filter(|name| !reads.iter().any(|read| name.split(':').nth(1).unwrap().starts_with(read))).collect()
    }

    /// A link to an object in S3, for others than our programs. moto looks only whether a link is signed.
    pub fn link(&self, bucket: &str, key: &str) -> String {
        format!("{}/{bucket}/{key}?X-Amz-Signature=any", self.endpoint)
    }

    /// The content of an object in S3.
    pub fn object(&self, bucket: &str, key: &str) -> Vec<u8> {
        let fetch = cli::Command::new("curl").args(["--silent", "--fail", &self.link(bucket, key)]);
        fetch.run().unwrap().stdout
    }

    /// Asks with a client that is not ours (boto3), as in `ask("ec2", "describe_images", &json!({"Owners": ["self"]}))`.
    pub fn ask(&self, service: &str, method: &str, parameters: &Value) -> Value {
        self.python(ASK, &[service, method, &parameters.to_string()])
    }

    /// Runs Python that has boto3 and prints JSON.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Value {
        let ask = cli::Command::new(python()).args(["-c", script]).args(arguments);
        let ask = self.environment().into_iter().fold(ask, |ask, (name, value)| ask.env(name, value));
        serde_json::from_slice(&ask.run().unwrap().stdout).unwrap()
    }

    fn post(&self, path: &str, body: &str) -> String {
        let curl = cli::Command::new("curl").args(["--silent", "--fail", "--data", body]);
        curl.arg(format!("{}{path}", self.endpoint)).run().unwrap().text()
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        if let Some(mut stdin) = self.child.stdin.take() {
            let _ = stdin.flush();
        }
        let _ = self.child.wait();
    }
}

fn python() -> PathBuf {
    let server = std::env::var_os("KILN_MOTO").expect("KILN_MOTO names moto's server: run `cargo xtask test`");
    Path::new(&server).with_file_name("python")
}
