//! The service's DNS name: an alias record in a Route 53 zone that points to its balancer.

use std::time::Duration;

use anyhow::{Result, bail};
use aws_sdk_route53::types::{
    AliasTarget, Change, ChangeAction, ChangeBatch, ChangeStatus, HostedZone, ResourceRecordSet, RrType,
};
use cli::BadInput;

use crate::ServiceSpec;
use crate::aws::Aws;
use crate::aws::failure::{Explain, is_not_found};
use crate::aws::wait;

/// How long a change may take until all name servers answer with it: 60 seconds as a rule ("GetChange").
const IN_SYNC: Duration = Duration::from_secs(600);

/// Where a balancer is: its own name, and the zone that has this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerName {
    /// Its own DNS name.
    pub dns: String,
    /// The zone of that.
    pub zone: String,
}

/// Names are equal whatever their case and whether they end with a dot.
fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

/// Whether the record is an alias of the balancer.
pub fn points_to(record: &ResourceRecordSet, balancer: &BalancerName) -> bool {
    record.alias_target().is_some_and(|alias| same(alias.dns_name(), &balancer.dns))
}

impl Aws {
    /// The id of the zone that has the service's DNS name.
    pub(super) async fn zone(&self, spec: &ServiceSpec) -> Result<String> {
        let wanted = spec.aws.hosted_zone.as_deref().unwrap_or_default();
        let id = |zone: &HostedZone| zone.id().trim_start_matches("/hostedzone/").to_owned();
        let fault = |why: String| {
            let remedy = "name the id or the name of a zone that has `dns` in `hosted_zone` of [deploy.fleet.aws]";
            BadInput::new(format!("looking for the zone of {}", spec.dns), why, remedy)
        };
        if !wanted.contains('.') {
            return match self.names.get_hosted_zone().id(wanted).send().await {
                Ok(found) => Ok(found.hosted_zone.as_ref().map(id).unwrap_or_default()),
                Err(error) if is_not_found(&error) => Err(fault(format!("there is no hosted zone {wanted}")).into()),
                Err(error) => {
                    Err(error).doing("route53:GetHostedZone", || format!("looking for the hosted zone {wanted}"))
                }
            };
        }
        let found = self.names.list_hosted_zones_by_name().dns_name(wanted).send().await;
        let found = found.doing("route53:ListHostedZonesByName", || format!("looking for the hosted zone {wanted}"))?;
        let zones: Vec<_> = found.hosted_zones().iter().filter(|zone| same(zone.name(), wanted)).collect();
        match zones[..] {
            [zone] => Ok(id(zone)),
            [] => Err(fault(format!("there is no hosted zone {wanted}")).into()),
            // A private and a public one, for example.
            _ => Err(fault(format!("{} hosted zones are called {wanted}", zones.len())).into()),
        }
    }

    /// The address record with the service's DNS name, exactly as it stands.
    pub(super) async fn address_record(&self, spec: &ServiceSpec) -> Result<Option<ResourceRecordSet>> {
        let zone = self.zone(spec).await?;
        let list = self.names.list_resource_record_sets().hosted_zone_id(&zone);
        let found = list.start_record_name(&spec.dns).start_record_type(RrType::A).max_items(1).send().await;
        let what = || format!("looking for {} in the zone {zone}", spec.dns);
        let found = found.doing("route53:ListResourceRecordSets", what)?;
        let is_its = |record: &ResourceRecordSet| same(record.name(), &spec.dns) && *record.r#type() == RrType::A;
        Ok(found.resource_record_sets.into_iter().find(is_its))
    }

    /// Whether the service's DNS name points to its balancer. An error if it points elsewhere.
    pub(super) async fn is_named(&self, spec: &ServiceSpec, balancer: &BalancerName) -> Result<bool> {
        match self.address_record(spec).await? {
            None => Ok(false),
            Some(record) if points_to(&record, balancer) => Ok(true),
            Some(record) => {
                let target = record.alias_target().map_or("addresses", |alias| alias.dns_name());
                bail!(
                    "{} points to {target} already, and that is not the balancer of {}: remove that record, or choose \
                     another `dns`",
                    spec.dns,
                    spec.name
                )
            }
        }
    }

    /// Has the service's DNS name point to its balancer, and waits until all name servers say so.
    pub(super) async fn point_name(&self, spec: &ServiceSpec, balancer: &BalancerName) -> Result<()> {
        let alias = AliasTarget::builder().dns_name(&balancer.dns).hosted_zone_id(&balancer.zone);
        let record = ResourceRecordSet::builder().name(&spec.dns).r#type(RrType::A);
        let record = record.alias_target(alias.evaluate_target_health(false).build()?).build()?;
        self.change_record(spec, ChangeAction::Upsert, record).await
    }

    /// Removes a record exactly as it stands.
    pub(super) async fn remove_record(&self, spec: &ServiceSpec, record: ResourceRecordSet) -> Result<()> {
        self.change_record(spec, ChangeAction::Delete, record).await
    }

    async fn change_record(&self, spec: &ServiceSpec, action: ChangeAction, record: ResourceRecordSet) -> Result<()> {
        let zone = self.zone(spec).await?;
        let change = Change::builder().action(action).resource_record_set(record).build()?;
        let batch = ChangeBatch::builder().comment(format!("kiln: {}", spec.name)).changes(change).build()?;
        let changed = self.names.change_resource_record_sets().hosted_zone_id(&zone).change_batch(batch).send().await;
        let what = || format!("changing {} in the zone {zone}", spec.dns);
        let changed = changed.doing("route53:ChangeResourceRecordSets", what)?;
        let id = changed.change_info().map(|info| info.id().to_owned()).unwrap_or_default();
        wait::until(&format!("all name servers to know of {}", spec.dns), IN_SYNC, async || {
            let asked = self.names.get_change().id(&id).send().await;
            let asked = asked.doing("route53:GetChange", || format!("asking for the change of {}", spec.dns))?;
            let status = asked.change_info().map(|info| info.status().clone());
            Ok((status == Some(ChangeStatus::Insync)).then_some(()))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_equal_whatever_their_case_and_last_dot() {
        assert!(same("Hello-1.us-east-1.elb.amazonaws.com", "hello-1.us-east-1.elb.amazonaws.com."));
        assert!(!same("hello.example.com", "hello.example.org"));
    }
}
