//! Debian's etcd, and its HTTP gateway to change it: xtask links no client.
//! <https://etcd.io/docs/v3.4/dev-guide/api_grpc_gateway/>

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cli::{Child, Command, interrupt};
use serde_json::{Value, json};
use ureq::Agent as Http;

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// A running etcd on ports of its own, with its data below a directory. It is killed when it is dropped.
pub struct Etcd {
    directory: PathBuf,
    port: u16,
    peer_port: u16,
    child: RefCell<Option<Child>>,
    http: Http,
}

impl Etcd {
    /// Starts it.
    pub fn start(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
        let http = Http::config_builder().timeout_global(Some(Duration::from_secs(20))).build().new_agent();
        let (port, peer_port) = (free_port()?, free_port()?);
        let etcd = Self { directory: directory.to_owned(), port, peer_port, child: RefCell::new(None), http };
        etcd.restart()?;
        Ok(etcd)
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Kills it if it runs, and starts it on the same data and ports.
    pub fn restart(&self) -> Result<()> {
        self.kill()?;
        let (client, peer) = (self.address(), format!("http://127.0.0.1:{}", self.peer_port));
        let path = self.directory.join("log");
        let log = File::options().create(true).append(true).open(&path).context("opening etcd's log")?;
        let command = Command::new("etcd")
            .args(["--name", "bench", "--data-dir"])
            .arg(self.directory.join("data"))
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("bench={peer}")])
            .configure(|command| _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        *self.child.borrow_mut() = Some(command.spawn()?);
        let deadline = Instant::now() + START;
        while self.http.get(format!("{client}/health")).call().is_err() {
            interrupt::check()?;
            if Instant::now() > deadline {
                bail!("etcd does not start; its log is {}", path.display());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child.borrow_mut().take() {
            child.kill().context("killing etcd")?;
            child.wait().context("killing etcd")?;
        }
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.child.borrow().as_ref().map(std::process::Child::id)
    }

    /// Sets one key.
    pub fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ask("kv/put", &json!({ "key": BASE64.encode(key), "value": BASE64.encode(value) })).map(drop)
    }

    /// Sets keys in one transaction.
    pub fn put_all(&self, pairs: &[(String, String)]) -> Result<()> {
        let changes: Vec<_> = pairs.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
        self.change(&changes)
    }

    /// Sets and deletes keys in one transaction.
    pub fn change(&self, changes: &[(String, Option<String>)]) -> Result<()> {
        let operations: Vec<_> = changes
            .iter()
            .map(|(key, value)| match value {
                Some(value) => json!({ "requestPut": { "key": BASE64.encode(key), "value": BASE64.encode(value) } }),
                None => json!({ "requestDeleteRange": { "key": BASE64.encode(key) } }),
            })
            .collect();
        self.ask("kv/txn", &json!({ "success": operations })).map(drop)
    }

    /// All keys that begin with `prefix`, which ends with a slash.
    pub fn all(&self, prefix: &str) -> Result<BTreeMap<String, String>> {
        let end = format!("{}0", prefix.trim_end_matches('/'));
        let answer = self.ask("kv/range", &json!({ "key": BASE64.encode(prefix), "range_end": BASE64.encode(end) }))?;
        let text = |pair: &Value, part: &str| -> Result<String> {
            Ok(String::from_utf8(BASE64.decode(pair[part].as_str().unwrap_or_default())?)?)
        };
        let pairs = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
        pairs.iter().map(|pair| Ok((text(pair, "key")?, text(pair, "value")?))).collect()
    }

    fn ask(&self, path: &str, question: &Value) -> Result<Value> {
        let url = format!("{}/v3/{path}", self.address());
        let answer = self.http.post(&url).send(question.to_string());
        let text = answer.and_then(|mut answer| answer.body_mut().with_config().limit(1 << 28).read_to_string());
        serde_json::from_str(&text.with_context(|| format!("asking {url}"))?).with_context(|| format!("asking {url}"))
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0)).context("finding a free port")?.local_addr()?.port())
}
