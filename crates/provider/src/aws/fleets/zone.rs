//! What a Route 53 zone says of a service's DNS name, and how that is changed.

use std::time::Duration;

use anyhow::{Context, Result};
use aws_sdk_route53::types::{Change, ChangeAction, ChangeBatch, ChangeStatus, HostedZone, ResourceRecordSet};
use cli::BadInput;

use crate::ServiceSpec;
use crate::aws::Aws;
use crate::aws::failure::{Explain, is_not_found};
use crate::aws::wait;

/// How long a change may take until all name servers answer with it: 60 seconds as a rule ("GetChange").
const IN_SYNC: Duration = Duration::from_secs(600);

/// A hosted zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone {
    /// Its id.
    pub id: String,
    /// The domain that it is for.
    pub name: String,
}

/// Names are equal whatever their case and whether they end with a dot.
pub fn same(one: &str, other: &str) -> bool {
    one.trim_end_matches('.').eq_ignore_ascii_case(other.trim_end_matches('.'))
}

impl Aws {
    /// The zone that has the service's DNS name.
    pub(super) async fn zone(&self, spec: &ServiceSpec) -> Result<Zone> {
        let wanted = spec.aws.hosted_zone.as_deref().unwrap_or_default();
        let read = |zone: &HostedZone| Zone {
            id: zone.id().trim_start_matches("/hostedzone/").to_owned(),
            name: zone.name().to_owned(),
        };
        let fault = |why: String| {
            let remedy = "name the id or the name of a zone that has `dns` in `hosted_zone` of [deploy.fleet.aws]";
            BadInput::new(format!("looking for the zone of {}", spec.dns), why, remedy)
        };
        if !wanted.contains('.') {
            return match self.names.get_hosted_zone().id(wanted).send().await {
                Ok(found) => Ok(found.hosted_zone.as_ref().map(read).context("GetHostedZone has named no zone")?),
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
            [zone] => Ok(read(zone)),
            [] => Err(fault(format!("there is no hosted zone {wanted}")).into()),
            // A private and a public one, for example.
            _ => Err(fault(format!("{} hosted zones are called {wanted}", zones.len())).into()),
        }
    }

    /// All records with the service's DNS name, of any type, exactly as they stand.
    pub(super) async fn records(&self, spec: &ServiceSpec) -> Result<Vec<ResourceRecordSet>> {
        let zone = self.zone(spec).await?.id;
        // They begin with those of the name; a name has a handful.
        let list = self.names.list_resource_record_sets().hosted_zone_id(&zone).start_record_name(&spec.dns);
        let what = || format!("looking for {} in the zone {zone}", spec.dns);
        let found = list.max_items(100).send().await.doing("route53:ListResourceRecordSets", what)?;
        Ok(found.resource_record_sets.into_iter().filter(|record| same(record.name(), &spec.dns)).collect())
    }

    /// Changes records with the service's DNS name, all in one batch, and waits until all name servers say so.
    pub(super) async fn change_records(
        &self,
        spec: &ServiceSpec,
        changes: impl IntoIterator<Item = (ChangeAction, ResourceRecordSet)>,
    ) -> Result<()> {
        let zone = self.zone(spec).await?.id;
        let mut batch = ChangeBatch::builder().comment(format!("kiln: {}", spec.name));
        for (action, record) in changes {
            batch = batch.changes(Change::builder().action(action).resource_record_set(record).build()?);
        }
        let change = self.names.change_resource_record_sets().hosted_zone_id(&zone).change_batch(batch.build()?);
        let what = || format!("changing {} in the zone {zone}", spec.dns);
        let changed = change.send().await.doing("route53:ChangeResourceRecordSets", what)?;
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
