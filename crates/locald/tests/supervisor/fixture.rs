//! A small image, and a state directory after which nothing may be left.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cli::Command;
use cli::args::{ProviderArgs, ProviderName};
use cli::process::ProcessId;
use provider::local::Local;
use provider::local::api::{Place, read_json};

/// Longer than anything takes here, also on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Id of the image that every fleet has.
pub const IMAGE: &str = "img-test";

/// A unit that asks the metadata service and tells the console.
const ASKS: &str = r#"[Unit]
Wants=network-online.target
After=network-online.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'http=http://169.254.169.254; \
  token=$(curl -s -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" $http/latest/api/token); \
  ask() { curl -s -w " %%{http_code}" -H "X-aws-ec2-metadata-token: $1" $http/$2; }; \
  { echo "untold: $(ask none latest/meta-data/instance-id)"; \
    echo "id: $(ask $token latest/meta-data/instance-id)"; \
    echo "tag: $(ask $token latest/meta-data/tags/instance/component)"; \
    echo "object: $(ask $token kiln/objects/2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae)"; \
    echo "told all"; } > /dev/console'
[Install]
WantedBy=multi-user.target
"#;

/// A state directory with one image.
pub struct Fixture {
    pub local: Local,
    pub place: Place,
    directory: tempfile::TempDir,
}

impl Fixture {
    /// A new one.
    pub fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "instances need root: run this test as root");
        // The test runs one program, and locald is another.
        // SAFETY: no other thread of this test runs yet.
        unsafe { std::env::set_var("KILN_LOCALD", env!("CARGO_BIN_EXE_locald")) };
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let files = directory.path().join("images").join(IMAGE);
        fs::create_dir_all(&files).unwrap();
        // A copy, not a link: mount(8) would have tests that run at once share one loop device.
        let copy = Command::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(disk());
        copy.arg(files.join("disk.raw")).run().unwrap();
        let image = serde_json::json!({
            "id": IMAGE, "name": "test", "digest": {"kind": "sha256", "value": "00"}, "size": 0,
            "virtualization_type": "paravirtual", "created": "2026-01-01T00:00:00Z",
            "source_image": null, "tags": {}, "verdict": null,
        });
        fs::write(files.join("image.json"), image.to_string()).unwrap();
        let args =
            ProviderArgs { provider: ProviderName::Local, state_dir: directory.path().to_owned(), no_wait: false };
        Self { local: Local::open(&args).unwrap(), place: Place::of(directory.path()).unwrap(), directory }
    }

    /// The process recorded in a directory.
    pub fn process(&self, directory: &Path) -> ProcessId {
        read_json(&directory.join("process.json")).unwrap().unwrap()
    }

    /// Stops all processes of an instance: it still takes requests, and answers none.
    pub fn freeze(&self, instance: &str) {
        let group = Path::new(self.place.key()).join(instance).join("cgroup.freeze");
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(|root| Path::new(root).join(&group));
        fs::write(roots.iter().find(|file| file.exists()).unwrap(), "1").unwrap();
    }

    /// Waits until locald has ended by itself, and looks for what it left.
    pub fn nothing_is_left(&self) {
        until("locald ends", || !self.place.run().exists());
        let key = self.place.key();
        let names = |directory: &str| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect::<Vec<_>>()
        };
        for directory in ["/run/netns", "/sys/fs/cgroup", "/sys/fs/cgroup/unified"] {
            assert!(!names(directory).iter().any(|name| name.starts_with(key)), "{directory} still has {key}");
        }
        let state = self.directory.path().to_str().unwrap();
        let of_state = |file: &str| fs::read_to_string(file).is_ok_and(|text| text.contains(state));
        assert!(!of_state("/proc/mounts"), "something is still mounted");
        let devices = names("/sys/block");
        let used = devices.iter().find(|name| of_state(&format!("/sys/block/{name}/loop/backing_file")));
        assert_eq!(used, None, "a loop device is still attached");
        let processes = names("/proc");
        until("no process is left", || !processes.iter().any(|pid| of_state(&format!("/proc/{pid}/cmdline"))));
        assert_eq!(names(self.place.instance("").to_str().unwrap()), [""; 0], "files of instances are left");
    }
}

/// Waits for it.
pub fn until(what: &str, mut it_is: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !it_is() {
        assert!(Instant::now() < deadline, "after {} s still not: {what}", PATIENCE.as_secs());
        std::thread::sleep(POLL);
    }
}

/// Waits for it, too.
pub async fn until_async(what: &str, mut it_is: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !it_is().await {
        assert!(Instant::now() < deadline, "after {} s still not: {what}", PATIENCE.as_secs());
        tokio::time::sleep(POLL).await;
    }
}

/// The disk of the image: a Debian with systemd and nginx, made once.
fn disk() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let disk = directory.join("locald-test-2.raw");
    let lock = File::create(directory.join("locald-test.lock")).unwrap();
    lock.lock().unwrap();
    if !disk.exists() {
        let work = tempfile::tempdir_in(directory).unwrap();
        let (root, new) = (work.path().join("root"), work.path().join("disk"));
        let packages = "systemd,systemd-sysv,dbus,nginx-light,curl";
        Command::new("mmdebstrap")
            .args(["--variant=minbase", &format!("--include={packages}"), "bookworm"])
            .arg(&root)
            .run()
            .unwrap();
        let write = |path: &str, text: &str| fs::write(root.join(path), text).unwrap();
        write("etc/fstab", "/dev/root / ext4 defaults 0 1\n");
        write("etc/machine-id", "");
        write("etc/systemd/network/80-en.network", "[Match]\nName=en*\n[Network]\nDHCP=ipv4\n");
        write("var/www/html/index.html", "hello from an instance\n");
        write("etc/systemd/system/asks.service", ASKS);
        let units = ["systemd-networkd", "asks"];
        Command::new("systemctl").arg("--root").arg(&root).arg("enable").args(units).run().unwrap();
        File::create(&new).unwrap().set_len(1 << 30).unwrap();
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).args([&root, &new]).run().unwrap();
        fs::rename(&new, &disk).unwrap();
    }
    disk
}
