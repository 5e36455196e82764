//! What a component must say of a service on AWS, and what it may not ask for.

use cli::BadInput;
use manifest::BalancerKind;

use super::balancer_subnets;
use super::layout::Layout;
use super::zone::{Zone, same};
use crate::ServiceSpec;

/// What a service on AWS must have said of it.
pub fn accept(spec: &ServiceSpec, size: u32, steps: &[u8]) -> Result<(), BadInput> {
    let aws = &spec.aws;
    let refuse = |why: String, remedy: String| Err(BadInput::new("reading the deploy section", why, remedy));
    let missing = [
        ("vpc", aws.vpc.is_none() && Layout::of(spec) != Layout::Attachment),
        ("hosted_zone", aws.hosted_zone.is_none()),
        ("instances.instance_type", aws.instances.instance_type.is_none()),
        ("instances.subnets", aws.instances.subnets.is_empty()),
    ];
    let missing: Vec<_> =
        missing.into_iter().filter(|(_, missing)| *missing).map(|(key, _)| format!("`{key}`")).collect();
    if !missing.is_empty() {
        let why = format!("on AWS the service {} needs {}", spec.name, missing.join(", "));
        let remedy = "add that to [deploy.fleet.aws] in component.toml, or to the environment's own, and build again";
        return refuse(why, remedy.to_owned());
    }
    let per_group = aws.balancer.per_group == Some(true);
    if per_group && aws.balancer.kind == Some(BalancerKind::Classic) {
        let why = "`per_group` of [deploy.fleet.aws.balancer] is for application balancers, and `kind` is \"classic\"";
        return refuse(why.to_owned(), "leave out the one or the other in component.toml and build again".to_owned());
    }
    if aws.record_ttl.is_some() && !per_group {
        let why = "`record_ttl` of [deploy.fleet.aws] is for weighted records, and the service has an alias, which \
                   says 60 seconds";
        let remedy = "leave it out, or set `per_group` of [deploy.fleet.aws.balancer] to true, and build again";
        return refuse(why.to_owned(), remedy.to_owned());
    }
    if Layout::of(spec) == Layout::Attachment && steps != [100] {
        let why = format!("`steps` is {steps:?}, and a classic balancer knows no shares of the traffic");
        let remedy =
            "set `steps` to [100], or `kind` of [deploy.fleet.aws.balancer] to \"application\", and build again";
        return refuse(why, remedy.to_owned());
    }
    match aws.max_size {
        Some(most) if most < size => refuse(
            format!("`max_size` of [deploy.fleet.aws] is {most}, and `instances` is {size}"),
            "raise the one or lower the other in component.toml and build again".to_owned(),
        ),
        _ => Ok(()),
    }
}

/// A zone's own name has records that no CNAME may stand beside (RFC 1034, section 3.6.2).
pub fn divisible(spec: &ServiceSpec, zone: &Zone) -> Result<(), BadInput> {
    if Layout::of(spec) != Layout::Records || !same(&zone.name, &spec.dns) {
        return Ok(());
    }
    let why = format!("`dns` {} is the zone's own name, which weighted records cannot divide", spec.dns);
    let remedy = "choose a name below it, or leave out `per_group` of [deploy.fleet.aws.balancer], and build again";
    Err(BadInput::new("reading the deploy section", why, remedy))
}

/// What all groups of a service share stays as it is while the service is there.
pub fn same_place(asked: &ServiceSpec, present: &ServiceSpec) -> Result<(), BadInput> {
    let (new, old) = (&asked.aws, &present.aws);
    let differs = [
        ("vpc", new.vpc != old.vpc),
        ("hosted_zone", new.hosted_zone != old.hosted_zone),
        ("balancer", new.balancer != old.balancer || balancer_subnets(asked) != balancer_subnets(present)),
    ];
    let differs: Vec<_> =
        differs.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| format!("`{key}`")).collect();
    if differs.is_empty() {
        return Ok(());
    }
    let why = format!("the service {} stands with another {} of [deploy.fleet.aws]", asked.name, differs.join(", "));
    let remedy = "keep what it has, or run `deployer destroy` first, which interrupts the service";
    Err(BadInput::new("reading the deploy section", why, remedy))
}
