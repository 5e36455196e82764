//! The DNS name of a service with one balancer: an alias record that points to it.

use anyhow::{Result, bail};
use aws_sdk_route53::types::{AliasTarget, ChangeAction, ResourceRecordSet, RrType};

use super::zone::same;
use crate::ServiceSpec;
use crate::aws::Aws;

/// Where a balancer is: its own name, and the zone that has this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalancerName {
    /// Its own DNS name.
    pub dns: String,
    /// The zone of that.
    pub zone: String,
}

/// Whether the record is an alias of the balancer.
pub fn points_to(record: &ResourceRecordSet, balancer: &BalancerName) -> bool {
    record.alias_target().is_some_and(|alias| same(alias.dns_name(), &balancer.dns))
}

impl Aws {
    /// The address record with the service's DNS name, exactly as it stands.
    pub(super) async fn address_record(&self, spec: &ServiceSpec) -> Result<Option<ResourceRecordSet>> {
        Ok(self.records(spec).await?.into_iter().find(|record| *record.r#type() == RrType::A))
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
        self.change_records(spec, [(ChangeAction::Upsert, record)]).await
    }
}
