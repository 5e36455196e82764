//! Debian's etcd, started by a test on ports of its own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;

use etcd_client::{Client, CompactionOptions, ConnectOptions, TxnOp};
use tokio::runtime::Runtime;

use super::rig::{Rig, comes_true, command, free_port};

/// A running etcd, and a client of the test's own. It is killed when it is dropped.
pub struct Etcd {
    data: PathBuf,
    log: PathBuf,
    scheme: &'static str,
    port: u16,
    peer_port: u16,
    arguments: Vec<String>,
    child: Option<Child>,
    runtime: Runtime,
}

impl Etcd {
    pub fn start(rig: &Rig) -> Self {
        Self::start_with(rig, "http", Vec::new())
    }

    pub fn start_with(rig: &Rig, scheme: &'static str, arguments: Vec<String>) -> Self {
        let mut etcd = Self {
            data: rig.path("etcd"),
            log: rig.path("etcd.log"),
            scheme,
            port: free_port(),
            peer_port: free_port(),
            arguments,
            child: None,
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        };
        etcd.restart();
        etcd
    }

    /// `[store.etcd]`, without more.
    pub fn settings(&self) -> String {
        format!("[store.etcd]\naddresses = [\"{}\"]\n", self.address())
    }

    pub fn address(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Starts it again, on the same data and ports.
    pub fn restart(&mut self) {
        self.kill();
        let (client, peer) = (self.address(), format!("http://127.0.0.1:{}", self.peer_port));
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        let mut etcd = command("etcd");
        etcd.args(["--name", "test", "--data-dir"]).arg(&self.data).args(&self.arguments);
        for (option, url) in [
            ("--listen-client-urls", &client),
            ("--advertise-client-urls", &client),
            ("--listen-peer-urls", &peer),
            ("--initial-advertise-peer-urls", &peer),
        ] {
            etcd.args([option, url]);
        }
        // Changes by the thousand need not survive the machine.
        etcd.args(["--initial-cluster", &format!("test={peer}"), "--unsafe-no-fsync"]);
        let child = etcd.stdout(log.try_clone().unwrap()).stderr(log).spawn();
        self.child = Some(child.expect("Debian's package etcd-server is needed"));
        let listens = || std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
        assert!(comes_true(listens), "etcd: {}", fs::read_to_string(&self.log).unwrap());
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it with nothing in it, on the same ports.
    pub fn lose_everything(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).unwrap();
        self.restart();
    }

    pub fn put(&self, key: &str, value: &str) {
        self.with(async |mut client| _ = client.put(key, value, None).await.unwrap());
    }

    pub fn delete(&self, key: &str) {
        self.with(async |mut client| _ = client.delete(key, None).await.unwrap());
    }

    /// Many changes over one connection, ninety at once: no key may be in one transaction twice.
    pub fn put_all(&self, pairs: &[(String, String)]) {
        self.with(async |mut client| {
            for some in pairs.chunks(90) {
                let operations: Vec<_> = some.iter().map(|(k, v)| TxnOp::put(k.as_str(), v.as_str(), None)).collect();
                client.txn(etcd_client::Txn::new().and_then(operations)).await.unwrap();
            }
        });
    }

    pub fn revision(&self) -> i64 {
        self.with(async |mut client| client.get("/", None).await.unwrap().header().unwrap().revision())
    }

    pub fn compact(&self) {
        let revision = self.revision();
        let options = CompactionOptions::new().with_physical();
        self.with(async |mut client| _ = client.compact(revision, Some(options.clone())).await.unwrap());
    }

    pub fn with<T>(&self, what: impl AsyncFn(Client) -> T) -> T {
        self.runtime.block_on(async {
            let options = ConnectOptions::new();
            what(Client::connect([self.address()], Some(options)).await.unwrap()).await
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}
