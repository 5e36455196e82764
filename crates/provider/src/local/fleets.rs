//! Services and their groups: kept by locald, balanced by HAProxy.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use cli::lock::Lock;
use jiff::Timestamp;
use manifest::AwsFleet;
use reqwest::Method;
use serde_json::Value;

use super::api::{GroupRecord, Place, ServiceRecord, read_json};
use super::locald::Locald;
use super::{Local, records};
use crate::{Fleets, Group, GroupSpec, Instances, Intent, Member, MemberHealth, Service, ServiceSpec};

impl Fleets for Local {
    type ServiceLock = Lock;

    async fn service(&self, name: &str) -> Result<Option<Service>> {
        let place = self.place()?;
        let record: Option<ServiceRecord> = read_json(&place.service(name).join("service.json"))?;
        let Some(record) = record else { return Ok(None) };
        Ok(Some(as_it_is(&place, &record, is_watched(&place).await?)))
    }

    async fn services(&self) -> Result<Vec<Service>> {
        let place = self.place()?;
        let watched = is_watched(&place).await?;
        let records = place.service_records()?;
        let mut services: Vec<_> = records.iter().map(|record| as_it_is(&place, record, watched)).collect();
        services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(services)
    }

    async fn journalled(&self) -> Result<Vec<String>> {
        let mut names = records::names_in(&self.place()?.service(""))?;
        names.retain(|name| self.journal_path(name).is_ok_and(|journal| journal.exists()));
        Ok(names)
    }

    async fn accepts(&self, _service: &ServiceSpec, _size: u32, _steps: &[u8]) -> Result<()> {
        Ok(())
    }

    async fn calls(&self, intent: &Intent<'_>) -> Result<Vec<String>> {
        Ok(match intent {
            Intent::CopyJournal(_) => Vec::new(),
            _ => vec![intent.to_string()],
        })
    }

    async fn create_service(&self, spec: &ServiceSpec) -> Result<Service> {
        let spec = ServiceSpec { aws: AwsFleet::default(), ..spec.clone() };
        self.locald().await?.ask(Method::PUT, &format!("services/{}", spec.name), &spec).await
    }

    async fn create_group(&self, spec: &GroupSpec) -> Result<Group> {
        let path = format!("services/{}/groups/{}", spec.service, spec.name);
        let spec = GroupSpec { aws: AwsFleet::default(), ..spec.clone() };
        self.locald().await?.ask(Method::PUT, &path, &spec).await
    }

    async fn members(&self, service: &str, group: &str) -> Result<Vec<Member>> {
        let place = self.place()?;
        if let Some(locald) = Locald::find(&place).await? {
            return locald.ask(Method::GET, &format!("services/{service}/groups/{group}"), &()).await;
        }
        let record: Option<ServiceRecord> = read_json(&place.service(service).join("service.json"))?;
        let record = record.with_context(|| format!("there is no service {service}"))?;
        let group = record.groups.get(group).with_context(|| format!("service {service} has no group {group}"))?;
        self.unwatched(group).await
    }

    async fn set_weights(&self, service: &str, weights: &BTreeMap<String, u8>) -> Result<()> {
        self.locald().await?.ask(Method::PUT, &format!("services/{service}/weights"), weights).await
    }

    async fn hold(&self, _service: &str, _group: &str, _until: Timestamp) -> Result<()> {
        // Nothing here changes the size of a group.
        Ok(())
    }

    async fn destroy_group(&self, service: &str, group: &str) -> Result<Option<u64>> {
        if self.service(service).await?.is_none_or(|service| !service.groups.contains_key(group)) {
            return Ok(Some(0));
        }
        let path = format!("services/{service}/groups/{group}");
        self.locald().await?.ask(Method::DELETE, &path, &()).await.map(Some)
    }

    async fn destroy_service(&self, name: &str) -> Result<()> {
        let files = self.place()?.service(name);
        if files.join("service.json").exists() {
            let _: () = self.locald().await?.ask(Method::DELETE, &format!("services/{name}"), &()).await?;
        }
        match fs::remove_dir_all(&files) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("removing {}", files.display()))
            }
            _ => Ok(()),
        }
    }

    async fn repair(&self) -> Result<()> {
        let place = self.place()?;
        if place.service_records()?.is_empty() && place.instance_records()?.is_empty() {
            return Ok(());
        }
        self.locald().await?.ask(Method::POST, "repair", &()).await
    }

    async fn diagnose(&self, instance: &str) -> Result<String> {
        self.locald().await?.ask(Method::GET, &format!("instances/{instance}/diagnosis"), &()).await
    }

    async fn journal(&self, service: &str) -> Result<Vec<Value>> {
        let path = self.journal_path(service)?;
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let whole = &text[..whole_lines(&text)];
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).with_context(|| format!("reading {}", path.display()))).collect()
    }

    async fn record(&self, service: &str, entry: &Value) -> Result<()> {
        let path = self.journal_path(service)?;
        append(&path, entry).with_context(|| format!("writing {}", path.display()))
    }

    /// The journal and the groups stand in one directory.
    async fn copy_journal(&self, _: &str, _: &[&str], _: &[Value]) -> Result<()> {
        Ok(())
    }

    async fn lock_service(&self, name: &str) -> Result<Lock> {
        self.lock(&format!("service-{name}"), &format!("service {name}"))
    }

    async fn unlock_service(&self, lock: Lock) -> Result<()> {
        drop(lock);
        Ok(())
    }
}

impl Local {
    fn journal_path(&self, service: &str) -> Result<PathBuf> {
        Ok(self.place()?.service(service).join("journal"))
    }

    /// The members of a group that nobody watches because locald does not run.
    async fn unwatched(&self, group: &GroupRecord) -> Result<Vec<Member>> {
        let mut members = Vec::new();
        for id in &group.members {
            let Some(instance) = self.describe(id).await? else { continue };
            members.push(Member {
                instance: instance.id,
                state: instance.state,
                address: instance.address,
                starts: instance.starts,
                health: MemberHealth::Unknown,
                open_requests: None,
                weight: 0,
                last_check: String::new(),
            });
        }
        Ok(members)
    }
}

/// Whether there is a locald that can be asked: one of another version would have to hand over first.
async fn is_watched(place: &Place) -> Result<bool> {
    Ok(Locald::find(place).await?.is_some())
}

fn as_it_is(place: &Place, record: &ServiceRecord, watched: bool) -> Service {
    record.service(watched && place.runs(&place.service(&record.spec.name)))
}

/// Length of what ends with a newline. A crash may have left half a line after that.
fn whole_lines(text: &[u8]) -> usize {
    text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

fn append(path: &std::path::Path, entry: &Value) -> Result<()> {
    let directory = path.parent().unwrap_or(std::path::Path::new("/"));
    fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path)?;
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    let whole = whole_lines(&text);
    file.set_len(whole as u64)?;
    file.seek(SeekFrom::Start(whole as u64))?;
    file.write_all(format!("{entry}\n").as_bytes())?;
    file.sync_all()?;
    fs::File::open(directory)?.sync_all()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_line_is_dropped_and_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("service/journal");
        append(&path, &Value::from(1)).unwrap();
        fs::write(&path, "1\n{\"torn").unwrap();
        append(&path, &Value::from(2)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "1\n2\n");
    }
}
