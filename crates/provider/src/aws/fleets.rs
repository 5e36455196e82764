//! Services on AWS: a balancer and a Route 53 record, with a target group and an Auto Scaling group for each group.

mod accept;
mod alias;
mod application;
mod change;
mod classic;
mod copies;
mod groups;
mod layout;
mod lock;
mod names;
mod parameters;
mod present;
mod verbs;
mod weighted;
mod zone;

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use jiff::Timestamp;
use serde_json::Value;

use self::change::Change;
use self::copies::{copying, with_copies};
use self::layout::Layout;
use self::lock::{ServiceLock, recording};
use self::verbs::{creating_group, creating_service, destroying_group, destroying_service, dividing, freeing, holding};
use super::Aws;
use crate::{Fleets, Group, GroupSpec, Instances, Intent, Member, Service, ServiceSpec};

/// Lines of an instance's console that are shown.
const LAST_LINES: usize = 40;

impl Fleets for Aws {
    type ServiceLock = ServiceLock;

    async fn service(&self, name: &str) -> Result<Option<Service>> {
        match self.recorded(name).await? {
            Some(spec) => self.as_it_is(spec).await.map(Some),
            None => Ok(None),
        }
    }

    async fn services(&self) -> Result<Vec<Service>> {
        let mut services = Vec::new();
        for spec in self.all_recorded().await?.0 {
            services.push(self.as_it_is(spec).await?);
        }
        services.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        Ok(services)
    }

    /// AWS watches by itself.
    async fn is_watched(&self, _: &str) -> Result<bool> {
        Ok(true)
    }

    async fn journalled(&self) -> Result<Vec<String>> {
        Ok(self.all_recorded().await?.1)
    }

    async fn accepts(&self, service: &ServiceSpec, size: u32, steps: &[u8]) -> Result<()> {
        accept::accept(service, size, steps)?;
        if let Some(present) = self.recorded(&service.name).await? {
            accept::same_place(service, &present)?;
        }
        accept::divisible(service, &self.zone(service).await?)?;
        match Layout::of(service) {
            Layout::Records => self.may_divide_name(service).await,
            Layout::Listener | Layout::Attachment => Ok(()),
        }
    }

    async fn calls(&self, intent: &Intent<'_>) -> Result<Vec<String>> {
        match *intent {
            Intent::Lock(service) => self.locking(service).await,
            Intent::Unlock(service) => Ok(vec![self.unlocking(service).await?]),
            Intent::Record(service, _) => Ok(vec![recording(service)]),
            Intent::CopyJournal(groups) => Ok(vec![copying(groups)]),
            Intent::CreateService(service) => self.missing(creating_service(&listening(service))).await,
            Intent::CreateGroup(service, group) => self.missing(creating_group(service, group)).await,
            Intent::SetWeights(service, weights) => self.missing(dividing(service, weights)).await,
            Intent::Hold(service, group, until) => self.missing(holding(service, group, until)).await,
            Intent::DestroyGroup(service, group) => self.missing(destroying_group(service, group)).await,
            Intent::DestroyService(service) => {
                self.destroying(service, async |changes| self.missing(changes).await).await
            }
            Intent::Repair => Ok(Vec::new()),
        }
    }

    async fn create_service(&self, spec: &ServiceSpec) -> Result<Service> {
        let spec = &listening(spec);
        self.carry_out(creating_service(spec)).await?;
        if Layout::of(spec) == Layout::Listener {
            self.active(&names::balancer(&spec.name, None)).await?;
        }
        self.as_it_is(spec.clone()).await
    }

    async fn create_group(&self, spec: &GroupSpec) -> Result<Group> {
        let service = self.must_be_recorded(&spec.service).await?;
        self.carry_out(creating_group(&service, spec)).await?;
        if Layout::of(&service) == Layout::Records {
            self.active(&names::balancer(&service.name, Some(&spec.name))).await?;
        }
        let made = self.group(&spec.name).await?;
        groups::read(&made.with_context(|| format!("the group {} is gone", spec.name))?, 0)
    }

    async fn members(&self, service: &str, group: &str) -> Result<Vec<Member>> {
        let Some(spec) = self.recorded(service).await? else { return Ok(Vec::new()) };
        let Some(group) = self.group(group).await? else { return Ok(Vec::new()) };
        self.members_of(&group, Layout::of(&spec)).await
    }

    async fn set_weights(&self, service: &str, weights: &BTreeMap<String, u8>) -> Result<()> {
        self.carry_out(dividing(&self.must_be_recorded(service).await?, weights)).await
    }

    async fn hold(&self, service: &str, group: &str, until: Timestamp) -> Result<()> {
        self.carry_out(holding(&self.must_be_recorded(service).await?, group, until)).await
    }

    async fn destroy_group(&self, service: &str, group: &str) -> Result<Option<u64>> {
        if let Some(spec) = self.recorded(service).await? {
            self.carry_out(destroying_group(&spec, group)).await?;
        }
        Ok(None)
    }

    async fn destroy_service(&self, name: &str) -> Result<()> {
        self.destroying(name, async |changes| self.carry_out(changes).await).await
    }

    async fn repair(&self) -> Result<()> {
        for service in self.services().await? {
            for group in self.groups_of(&service.spec.name).await? {
                let name = groups::name_of(&group);
                let has_traffic = service.groups.get(name).is_some_and(|group| group.weight > 0);
                let is_over = groups::held_until(&group).is_none_or(|until| until <= Timestamp::now());
                if groups::is_held(&group) && (has_traffic || is_over) {
                    self.carry_out(freeing(name)).await?;
                }
            }
        }
        Ok(())
    }

    async fn diagnose(&self, instance: &str) -> Result<String> {
        let console = self.console(instance).await?;
        let lines: Vec<_> = console.lines().collect();
        Ok(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"))
    }

    async fn journal(&self, service: &str) -> Result<Vec<Value>> {
        let copies = self.groups_of(service).await?.iter().filter_map(copies::copy_in).flatten().collect();
        Ok(with_copies(self.entries(service).await?, copies))
    }

    async fn record(&self, service: &str, entry: &Value) -> Result<()> {
        self.add_entry(service, entry).await
    }

    async fn copy_journal(&self, service: &str, groups: &[&str], entries: &[Value]) -> Result<()> {
        let present = self.groups_of(service).await?;
        let present: Vec<_> = present.iter().map(groups::name_of).filter(|name| groups.contains(name)).collect();
        self.copy_to(&present, entries).await
    }

    async fn lock_service(&self, name: &str) -> Result<ServiceLock> {
        self.take_lock(name, self.machine.if_held()).await
    }

    async fn unlock_service(&self, lock: ServiceLock) -> Result<()> {
        self.release(lock).await
    }
}

/// The service, with the port on which its balancer listens filled in.
fn listening(spec: &ServiceSpec) -> ServiceSpec {
    ServiceSpec { listen: Some(application::port(spec)), ..spec.clone() }
}

/// The subnets of the service's balancers.
fn balancer_subnets(spec: &ServiceSpec) -> &[String] {
    let own = &spec.aws.balancer.subnets;
    if own.is_empty() { &spec.aws.instances.subnets } else { own }
}

impl Aws {
    /// Does `work` with the changes that destroy all that there is of the service.
    async fn destroying<T>(&self, service: &str, work: impl AsyncFnOnce(Vec<Change<'_>>) -> Result<T>) -> Result<T> {
        let groups = self.groups_of(service).await?;
        let spec = self.recorded(service).await?;
        let mut changes = Vec::new();
        if let Some(spec) = &spec {
            let target_groups = self.target_groups(service).await?;
            changes = destroying_service(spec, groups.iter().map(groups::name_of), target_groups);
        }
        changes.push(Change::Forget(service));
        work(changes).await
    }

    async fn must_be_recorded(&self, service: &str) -> Result<ServiceSpec> {
        self.recorded(service).await?.with_context(|| format!("there is no service {service}"))
    }
}
