//! Instances: containers that boot an image's own systemd, kept by locald.

use std::fs;
use std::io::{Read, Seek, SeekFrom};

use anyhow::{Context, Result, ensure};
use cli::process::ProcessId;
use reqwest::Method;

use super::Local;
use super::api::{InstanceRecord, Launch, Place, read_json};
use crate::{Instance, InstanceState, Instances, LaunchSpec, ObjectDigest, Objects};

/// How much of a console is shown.
const CONSOLE: u64 = 256 << 10;
/// As on EC2.
const LARGEST_USER_DATA: usize = 16 << 10;

impl Instances for Local {
    async fn launch(&self, spec: &LaunchSpec) -> Result<Instance> {
        let length = spec.user_data.as_ref().map_or(0, String::len);
        ensure!(
            length <= LARGEST_USER_DATA,
            "user data has {length} bytes, and at most {LARGEST_USER_DATA} are allowed"
        );
        let launch = Launch { spec: spec.clone(), owner: ProcessId::current() };
        self.locald().await?.ask(Method::POST, "instances", &launch).await
    }

    async fn describe(&self, id: &str) -> Result<Option<Instance>> {
        let place = self.place()?;
        let record = read_json(&place.instance(id).join("instance.json"))?;
        Ok(record.map(|record| as_it_is(&place, record)))
    }

    async fn instances(&self) -> Result<Vec<Instance>> {
        let place = self.place()?;
        let records = place.instance_records()?;
        let mut instances: Vec<_> = records.into_iter().map(|record| as_it_is(&place, record)).collect();
        instances.sort_by_key(|instance| instance.launched);
        Ok(instances)
    }

    async fn console(&self, id: &str) -> Result<String> {
        let path = self.place()?.instance(id).join("console.log");
        let read = || -> std::io::Result<_> {
            let mut file = fs::File::open(&path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE)))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(text)
        };
        let text = read().with_context(|| format!("reading the console of instance {id}"))?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn offer(&self, object: &ObjectDigest) -> Result<String> {
        ensure!(self.objects().has(object).await?, "the store of the local provider has no object {object}");
        Ok(format!("http://169.254.169.254/kiln/objects/{object}"))
    }

    async fn terminate(&self, id: &str) -> Result<()> {
        if !self.place()?.instance(id).exists() {
            return Ok(());
        }
        self.locald().await?.ask(Method::DELETE, &format!("instances/{id}"), &()).await
    }
}

/// After a reboot nothing runs, whatever was written before.
fn as_it_is(place: &Place, record: InstanceRecord) -> Instance {
    let mut instance = record.instance;
    if instance.state == InstanceState::Running && !place.runs(&place.instance(&instance.id)) {
        instance.state = InstanceState::Pending;
    }
    instance
}
