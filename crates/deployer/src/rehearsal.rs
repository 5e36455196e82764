//! A provider on which nothing happens: what would be done is noted down instead.
//!
//! The sequences of this program run on it as they do on the real one. Questions are answered from the real one until
//! a change has been noted; from then on as if that had been made, and had gone well: a group that is launched is
//! healthy at once. So what is noted comes from no other code than what does the work.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use provider::{Fleets, Group, GroupSpec, InstanceState, Intent, Member, MemberHealth, Service, ServiceSpec};
use serde_json::Value;

/// A provider, and what would have been changed there.
#[derive(Debug)]
pub struct Rehearsal<'a, P> {
    provider: &'a P,
    /// The services that were changed; `None`: there is none any more.
    changed: RefCell<BTreeMap<String, Option<Service>>>,
    /// The groups that were launched.
    launched: RefCell<BTreeSet<String>>,
    /// Entries of journals.
    entries: RefCell<Vec<(String, Value)>>,
    calls: RefCell<Vec<String>>,
}

impl<'a, P: Fleets> Rehearsal<'a, P> {
    /// A rehearsal of what is about to be done.
    pub fn of(provider: &'a P) -> Self {
        Self {
            provider,
            changed: RefCell::default(),
            launched: RefCell::default(),
            entries: RefCell::default(),
            calls: RefCell::default(),
        }
    }

    /// The calls that would have been made, in order.
    pub fn into_calls(self) -> Vec<String> {
        self.calls.into_inner()
    }

    async fn note(&self, intent: Intent<'_>) -> Result<()> {
        let calls = self.provider.calls(&intent).await?;
        self.calls.borrow_mut().extend(calls);
        Ok(())
    }

    async fn present(&self, service: &str) -> Result<Service> {
        self.service(service).await?.with_context(|| format!("there is no service {service}"))
    }

    fn change(&self, service: Service) {
        self.changed.borrow_mut().insert(service.spec.name.clone(), Some(service));
    }
}

impl<P: Fleets> Fleets for Rehearsal<'_, P> {
    type ServiceLock = String;

    async fn service(&self, name: &str) -> Result<Option<Service>> {
        let changed = self.changed.borrow().get(name).cloned();
        let service = match changed {
            Some(changed) => changed,
            None => self.provider.service(name).await?,
        };
        // Nobody need wait for the next check.
        Ok(service.map(|service| Service { check_interval: Duration::ZERO, ..service }))
    }

    async fn services(&self) -> Result<Vec<Service>> {
        self.provider.services().await
    }

    async fn is_watched(&self, service: &str) -> Result<bool> {
        self.provider.is_watched(service).await
    }

    async fn journalled(&self) -> Result<Vec<String>> {
        self.provider.journalled().await
    }

    async fn accepts(&self, service: &ServiceSpec, size: u32, steps: &[u8]) -> Result<()> {
        self.provider.accepts(service, size, steps).await
    }

    async fn calls(&self, intent: &Intent<'_>) -> Result<Vec<String>> {
        self.provider.calls(intent).await
    }

    async fn create_service(&self, spec: &ServiceSpec) -> Result<Service> {
        self.note(Intent::CreateService(spec)).await?;
        let made = self.service(&spec.name).await?.unwrap_or_else(|| Service {
            spec: spec.clone(),
            url: String::new(),
            resolver: None,
            groups: BTreeMap::new(),
            running: true,
            check_interval: Duration::ZERO,
        });
        self.change(made.clone());
        Ok(made)
    }

    async fn create_group(&self, spec: &GroupSpec) -> Result<Group> {
        let mut service = self.present(&spec.service).await?;
        self.note(Intent::CreateGroup(&service.spec, spec)).await?;
        if let Some(present) = service.groups.get(&spec.name) {
            return Ok(present.clone());
        }
        let made = Group { spec: spec.clone(), resized: spec.initial, weight: 0, created: Timestamp::now() };
        service.groups.insert(spec.name.clone(), made.clone());
        self.launched.borrow_mut().insert(spec.name.clone());
        self.change(service);
        Ok(made)
    }

    async fn members(&self, service: &str, group: &str) -> Result<Vec<Member>> {
        if !self.launched.borrow().contains(group) {
            return self.provider.members(service, group).await;
        }
        let size = self.present(service).await?.groups.get(group).map_or(0, Group::size);
        let member = |number| Member {
            instance: format!("{group}-{number}"),
            state: InstanceState::Running,
            address: None,
            starts: 1,
            health: MemberHealth::Healthy,
            open_requests: None,
            weight: 0,
            last_check: String::new(),
        };
        Ok((0..size).map(member).collect())
    }

    async fn set_weights(&self, service: &str, weights: &BTreeMap<String, u8>) -> Result<()> {
        let mut service = self.present(service).await?;
        self.note(Intent::SetWeights(&service.spec, weights)).await?;
        for (name, group) in &mut service.groups {
            group.weight = weights.get(name).copied().unwrap_or(group.weight);
        }
        self.change(service);
        Ok(())
    }

    async fn hold(&self, service: &str, group: &str, until: Timestamp) -> Result<()> {
        self.note(Intent::Hold(&self.present(service).await?.spec, group, until)).await
    }

    async fn destroy_group(&self, service: &str, group: &str) -> Result<Option<u64>> {
        let Some(mut service) = self.service(service).await? else { return Ok(None) };
        self.note(Intent::DestroyGroup(&service.spec, group)).await?;
        service.groups.remove(group);
        self.change(service);
        Ok(None)
    }

    async fn destroy_service(&self, name: &str) -> Result<()> {
        self.note(Intent::DestroyService(name)).await?;
        self.changed.borrow_mut().insert(name.to_owned(), None);
        self.entries.borrow_mut().clear();
        Ok(())
    }

    async fn repair(&self) -> Result<()> {
        self.note(Intent::Repair).await
    }

    async fn diagnose(&self, instance: &str) -> Result<String> {
        self.provider.diagnose(instance).await
    }

    async fn journal(&self, service: &str) -> Result<Vec<Value>> {
        let is_destroyed = matches!(self.changed.borrow().get(service), Some(None));
        let mut entries = if is_destroyed { Vec::new() } else { self.provider.journal(service).await? };
        let noted = self.entries.borrow();
        entries.extend(noted.iter().filter(|(name, _)| name == service).map(|(_, entry)| entry.clone()));
        Ok(entries)
    }

    async fn record(&self, service: &str, entry: &Value) -> Result<()> {
        self.note(Intent::Record(service, entry)).await?;
        self.entries.borrow_mut().push((service.to_owned(), entry.clone()));
        Ok(())
    }

    async fn copy_journal(&self, service: &str, groups: &[&str], _: &[Value]) -> Result<()> {
        let Some(service) = self.service(service).await? else { return Ok(()) };
        let present: Vec<_> = groups.iter().copied().filter(|group| service.groups.contains_key(*group)).collect();
        if present.is_empty() { Ok(()) } else { self.note(Intent::CopyJournal(&present)).await }
    }

    async fn lock_service(&self, name: &str) -> Result<String> {
        self.note(Intent::Lock(name)).await?;
        Ok(name.to_owned())
    }

    async fn unlock_service(&self, lock: String) -> Result<()> {
        self.note(Intent::Unlock(&lock)).await
    }
}
