//! moto as AWS Systems Manager.

use std::process::{Child, Stdio};

use serde_json::{Value, json};

use super::imds::Imds;
use super::rig::{Rig, comes_true, command, free_port};

/// A running moto, which is killed when it is dropped.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    fn start() -> Self {
        let program = std::env::var_os("KILN_MOTO");
        let program = program.expect("KILN_MOTO names moto_server: run `cargo xtask test`, which installs it");
        let port = free_port();
        let child = command(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        assert!(comes_true(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()));
        Self { child, port }
    }

    fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn settings(&self) -> String {
        format!("[store.ssm]\nregion = \"eu-west-1\"\nendpoint = \"{}\"\ninterval = \"200ms\"\n", self.address())
    }

    fn put(&self, name: &str, value: &str, kind: &str) {
        self.ask("PutParameter", &json!({ "Name": name, "Value": value, "Type": kind, "Overwrite": true }));
    }

    fn ask(&self, action: &str, question: &Value) {
        // moto finds service and region in the name of the credentials, and does not look at the signature.
        let authorization =
            "AWS4-HMAC-SHA256 Credential=x/20260101/eu-west-1/ssm/aws4_request, SignedHeaders=host, Signature=x";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(async {
            let request = client().post(self.address()).header("X-Amz-Target", format!("AmazonSSM.{action}"));
            let request = request.header("Content-Type", "application/x-amz-json-1.1");
            let response = request.header("Authorization", authorization).body(question.to_string()).send().await;
            response.unwrap().error_for_status()
        });
        answer.unwrap();
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    // It is told once for the whole process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "key")];

#[test]
fn parameters_are_polled() {
    let moto = Moto::start();
    let rig = Rig::with_store(&moto.settings());
    let template = "one={{ one }} {{ hosts | length }} {{ hosts['deep/er'] }}";
    rig.keep("web", template, "", "one = \"/web/one\"\nhosts = { prefix = \"/hosts\" }");
    moto.put("/web/one", "secret", "SecureString");
    // More than one answer has.
    for host in 0..23 {
        moto.put(&format!("/hosts/{host}"), "x", "String");
    }
    // The last one: moto's answers go on by number, so a read would miss one behind another that is deleted meanwhile.
    moto.put("/hosts/deep/er", "x", "String");
    moto.put("/hostname", "not one of them", "String");
    let agent = rig.start_with(&KEYS);
    agent.wait_for(&rig, "web", "one=secret 24 x");
    moto.put("/web/one", "other", "SecureString");
    agent.wait_for(&rig, "web", "one=other 24 x");
    moto.ask("DeleteParameter", &json!({ "Name": "/hosts/deep/er" }));
    agent.wait_until_said("web: rendering");
    moto.ask("DeleteParameter", &json!({ "Name": "/web/one" }));
    agent.wait_until_said("the store has no /web/one, which is required");
    assert_eq!(rig.out("web"), "one=other 24 x");
}

#[test]
fn credentials_from_a_file_or_of_the_instances_role() {
    let moto = Moto::start();
    moto.put("/one", "1", "String");
    let rig = Rig::with_store("");
    rig.keep("web", "one={{ one }}", "", "one = \"/one\"");
    let file = rig.write_secret("credentials", "[default]\naws_access_key_id = id\naws_secret_access_key = key\n");
    rig.settings(&format!("{}credentials_file = \"{}\"\n", moto.settings(), file.display()));
    let ended = rig.run(&["once"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(rig.out("web"), "one=1");

    let imds = Imds::default();
    imds.put("meta-data/iam/security-credentials/", "reader");
    imds.put("meta-data/placement/region", "eu-west-1");
    let role = json!({ "AccessKeyId": "id", "SecretAccessKey": "key", "Token": "token", "Expiration": "2100-01-01T00:00:00Z" });
    imds.put("meta-data/iam/security-credentials/reader", &role.to_string());
    let settings = moto.settings().replace("region = \"eu-west-1\"\n", "");
    rig.settings(&format!("{settings}imds = \"{}\"\n", imds.serve()));
    moto.put("/one", "2", "String");
    let ended = rig.run(&["once"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(rig.out("web"), "one=2");
}

#[test]
fn a_store_that_goes_leaves_the_file() {
    let moto = Moto::start();
    let rig = Rig::with_store(&moto.settings());
    rig.keep("web", "one={{ one }}", "", "one = \"/one\"");
    moto.put("/one", "1", "String");
    let mut agent = rig.start_with(&KEYS);
    agent.wait_for(&rig, "web", "one=1");
    drop(moto);
    agent.wait_until_said("the store is lost");
    assert_eq!(rig.out("web"), "one=1");
    assert!(agent.runs());
}
