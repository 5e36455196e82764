//! Instances: containers that boot an image's own systemd, kept by locald.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use cli::BadInput;
use cli::process::ProcessId;
use reqwest::Method;

use super::Local;
use super::api::{InstanceRecord, Launch, Owner, Place, read_json};
use crate::{Instance, InstanceState, Instances, LaunchSpec, Objects, Offer, Store};

/// How much of a console is shown.
const CONSOLE: u64 = 256 << 10;

impl Instances for Local {
    // A report is there within a few seconds, and a look at a file costs next to nothing.
    const POLL: Duration = Duration::from_millis(50);
    const LAG: Duration = Duration::ZERO;

    async fn launch(&self, spec: &LaunchSpec) -> Result<Instance> {
        spec.user_data()?;
        if spec.lets_in {
            const WHY: &str = "the local provider reads nothing but its console";
            return Err(BadInput::new("launching an instance", WHY, "use --via console").into());
        }
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

    async fn outlived(&self) -> Result<Vec<Instance>> {
        let place = self.place()?;
        let mut records = place.instance_records()?;
        // locald ends them, if it runs.
        records.retain(|record| matches!(&record.owner, Owner::Process(process) if !process.is_alive()));
        Ok(records.into_iter().map(|record| as_it_is(&place, record)).collect())
    }

    async fn console(&self, id: &str) -> Result<String> {
        let path = self.place()?.instance(id).join("console.log");
        let read = || -> io::Result<_> {
            let mut file = fs::File::open(&path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(CONSOLE)))?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            // It has not been started yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.describe(id).await?.is_some() => {
                Ok(String::new())
            }
            Err(error) => Err(error).with_context(|| format!("reading the console of instance {id}")),
        }
    }

    async fn read(&self, _id: &str, _path: &str) -> Result<Option<String>> {
        Ok(None)
    }

    async fn offer(&self, file: &Path, _store: Option<&Store>, _lasting: Duration) -> Result<Offer> {
        let digest = self.objects().put(file).await?;
        Ok(Offer { url: format!("http://169.254.169.254/kiln/objects/{digest}"), digest })
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
