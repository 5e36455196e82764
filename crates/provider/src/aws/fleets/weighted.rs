//! The DNS name of a service whose groups have a balancer each: a weighted record for every group, which divide the
//! traffic between these.
//!
//! They are CNAME records, for those say how long an answer may be kept, while an alias of a balancer says 60 seconds,
//! whatever is asked for ("Choosing between alias and non-alias records"). A record that has been given another weight
//! is in force when the name servers know it and the answers of before have run out. If every record weighed nothing,
//! each would get the same share ("Values specific for weighted records", Weight): then there is none.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_route53::types::{ChangeAction, ResourceRecord, ResourceRecordSet, RrType};
use cli::narrate;

use super::layout::percent;
use super::{groups, names};
use crate::ServiceSpec;
use crate::aws::{Aws, wait};

/// How long answers may be kept where the component does not say, in seconds.
const TTL: u32 = 60;

/// The service's weighted records: who has which.
#[derive(Debug, Clone, Default)]
pub struct Weights(Vec<ResourceRecordSet>);

impl Weights {
    /// The record of a group, if it has one.
    fn of(&self, group: &str) -> Option<&ResourceRecordSet> {
        self.0.iter().find(|record| record.set_identifier() == Some(group))
    }

    /// The records of the service's own groups: somebody else's may have the same name.
    fn of_groups(&self, service: &str) -> impl Iterator<Item = &ResourceRecordSet> {
        self.0.iter().filter(move |record| record.set_identifier().is_some_and(|it| names::is_group(service, it)))
    }

    /// Whether no group of the service has one.
    pub fn has_none_of(&self, service: &str) -> bool {
        self.of_groups(service).next().is_none()
    }

    /// Whether a group has one.
    pub fn contains(&self, group: &str) -> bool {
        self.of(group).is_some()
    }

    /// Every group's share in percent.
    pub fn shares(&self) -> BTreeMap<String, u8> {
        let weight = |record: &ResourceRecordSet| record.weight().unwrap_or_default();
        let all: i64 = self.0.iter().map(weight).sum();
        let group = |record: &ResourceRecordSet| record.set_identifier().unwrap_or_default().to_owned();
        self.0.iter().map(|record| (group(record), percent(weight(record), all))).collect()
    }

    /// How long answers may be kept that name servers give now.
    fn ttl(&self) -> Duration {
        let longest = self.0.iter().filter_map(|record| record.ttl().and_then(|ttl| u64::try_from(ttl).ok())).max();
        Duration::from_secs(longest.unwrap_or_default())
    }
}

impl Aws {
    /// The service's weighted records.
    pub(super) async fn weights(&self, spec: &ServiceSpec) -> Result<Weights> {
        Ok(Weights(self.records(spec).await?.into_iter().filter(is_weighted).collect()))
    }

    /// An error if the service's DNS name belongs to something else.
    pub(super) async fn may_divide_name(&self, spec: &ServiceSpec) -> Result<()> {
        match self.records(spec).await?.iter().find(|record| !is_weighted(record)) {
            None => Ok(()),
            Some(other) => bail!(
                "{} has a record of the type {} already, which is not of {}: remove it, or choose another `dns`",
                spec.dns,
                other.r#type().as_str(),
                spec.name
            ),
        }
    }

    /// Divides the traffic: these shares change, all in one batch. When it returns, no answer of before is in use.
    pub(super) async fn divide_name(&self, spec: &ServiceSpec, shares: &BTreeMap<String, u8>) -> Result<()> {
        let present = self.weights(spec).await?;
        let others = present.shares().into_iter().filter(|(group, _)| !shares.contains_key(group));
        let somebody_has_some = others.chain(shares.clone()).any(|(_, share)| share > 0);
        let mut changes = Vec::new();
        for (group, share) in shares {
            match (somebody_has_some, present.of(group)) {
                (true, known) => changes.push((ChangeAction::Upsert, self.weighted(spec, group, *share, known).await?)),
                (false, Some(known)) => changes.push((ChangeAction::Delete, known.clone())),
                (false, None) => {}
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.change_records(spec, changes).await {
            // What was deleted by a call whose answer was lost cannot be deleted again.
            return if somebody_has_some || !self.weights(spec).await?.has_none_of(&spec.name) {
                Err(error)
            } else {
                Ok(())
            };
        }
        run_out(spec, present.ttl()).await
    }

    /// The record that gives a group this share: it points to the group's balancer, or, if that is gone, to where it did.
    async fn weighted(
        &self,
        spec: &ServiceSpec,
        group: &str,
        share: u8,
        known: Option<&ResourceRecordSet>,
    ) -> Result<ResourceRecordSet> {
        let target = match known.and_then(|record| record.resource_records().first()) {
            Some(target) => target.value().to_owned(),
            None => {
                let balancer = self.present_balancer(&names::balancer(&spec.name, Some(group))).await?;
                balancer.dns_name.with_context(|| format!("the balancer of {group} has no DNS name"))?
            }
        };
        let record = ResourceRecordSet::builder().name(&spec.dns).r#type(RrType::Cname).set_identifier(group);
        let record = record.ttl(spec.aws.record_ttl.unwrap_or(TTL).into()).weight(share.into());
        Ok(record.resource_records(ResourceRecord::builder().value(target).build()?).build()?)
    }

    /// Takes a group that weighs nothing off the service's DNS name, once no answer that names it is in use.
    pub(super) async fn take_off_name(&self, spec: &ServiceSpec, group: &str) -> Result<()> {
        let present = self.weights(spec).await?;
        let Some(record) = present.of(group) else { return Ok(()) };
        // What is held weighed nothing when that began. Of any other group nobody knows since when it has.
        if !self.group(group).await?.is_some_and(|group| groups::is_held(&group)) {
            run_out(spec, present.ttl()).await?;
        }
        self.change_records(spec, [(ChangeAction::Delete, record.clone())]).await
    }

    /// Removes the weighted records of all of the service's groups.
    pub(super) async fn remove_weights(&self, spec: &ServiceSpec) -> Result<()> {
        let present = self.weights(spec).await?;
        let ours = present.of_groups(&spec.name).map(|record| (ChangeAction::Delete, record.clone()));
        self.change_records(spec, ours).await
    }
}

fn is_weighted(record: &ResourceRecordSet) -> bool {
    *record.r#type() == RrType::Cname && record.weight().is_some()
}

/// Waits until answers that were given before now have run out.
async fn run_out(spec: &ServiceSpec, ttl: Duration) -> Result<()> {
    if ttl.is_zero() {
        return Ok(());
    }
    narrate::detail(&format!("{}: waiting {} s until no earlier answer is in use", spec.dns, ttl.as_secs()));
    wait::pass(ttl).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights<const N: usize>(weights: [(&str, i64, i64); N]) -> Weights {
        let record = |(group, weight, ttl): (&str, i64, i64)| {
            let record = ResourceRecordSet::builder().name("hello.example.com").r#type(RrType::Cname);
            record.set_identifier(group).weight(weight).ttl(ttl).build().unwrap()
        };
        Weights(weights.map(record).into())
    }

    #[test]
    fn weights_of_any_sum_are_shares() {
        let shares = weights([("hello-v000", 1, 60), ("hello-v001", 2, 60), ("other", 1, 60)]).shares();
        assert_eq!(shares.into_values().collect::<Vec<_>>(), [25, 50, 25]);
        assert_eq!(weights([("hello-v000", 0, 60)]).shares()["hello-v000"], 0);
    }

    #[test]
    fn the_longest_answer_decides() {
        assert_eq!(weights([("hello-v000", 0, 60), ("hello-v001", 100, 5)]).ttl(), Duration::from_secs(60));
        assert_eq!(Weights::default().ttl(), Duration::ZERO);
    }
}
