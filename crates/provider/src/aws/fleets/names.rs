//! What things of a service are called at AWS, such that they are found again.
//!
//! Load balancers and target groups have at most 32 characters, a service's name may have more. Where it has, their
//! names have its beginning and a digest of it; the whole name is in the tag [`SERVICE`].

use sha2::{Digest, Sha256};

/// Tag: the service that something belongs to.
pub const SERVICE: &str = "kiln:service";
/// Tag: the group that something belongs to.
pub const GROUP: &str = "kiln:group";

/// So that `-v000` and `-none` still fit ("CreateTargetGroup", Name: 32 characters).
const LONGEST: usize = 27;
const DIGITS: usize = 6;

/// The name of the service's load balancer, and the beginning of those of its target groups.
pub fn short(service: &str) -> String {
    if service.len() <= LONGEST {
        return service.to_owned();
    }
    let digest = hex::encode(Sha256::digest(service));
    let begin = service[..LONGEST - DIGITS - 1].trim_end_matches('-');
    format!("{begin}-{}", &digest[..DIGITS])
}

/// The name of the group's target group; or of the one that never has targets: what is forwarded to it is answered
/// with 503.
pub fn target_group(service: &str, group: Option<&str>) -> String {
    let end = group.map_or("-none", |group| group.strip_prefix(service).unwrap_or(group));
    format!("{}{end}", short(service))
}

/// Whether a group of the service is called this: its name, a dash, `v` and a number.
pub fn is_group(service: &str, name: &str) -> bool {
    let number = name.strip_prefix(service).and_then(|end| end.strip_prefix("-v"));
    number.is_some_and(|number| number.parse::<u16>().is_ok())
}

/// The name of the service's balancer, or of the group's own.
pub fn balancer(service: &str, group: Option<&str>) -> String {
    group.map_or_else(|| short(service), |_| target_group(service, group))
}

/// The name of the target group with this ARN, `arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID`.
pub fn of_target_group(arn: &str) -> &str {
    arn.rsplit('/').nth(1).unwrap_or(arn)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_stays_as_it_is() {
        assert_eq!(target_group("hello-live", Some("hello-live-v003")), "hello-live-v003");
        assert_eq!(target_group("hello-live", None), "hello-live-none");
        assert_eq!(balancer("hello-live", None), "hello-live");
    }

    #[test]
    fn longer_names_are_shortened_and_stay_apart() {
        let of = |end: &str| short(&format!("a-component-with-a-rather-long-name-{end}"));
        assert_ne!(of("live"), of("stage"));
        let group = format!("{}-live-v003", "a".repeat(40));
        let group = target_group(&format!("{}-live", "a".repeat(40)), Some(&group));
        assert!(group.len() <= 32 && group.ends_with("-v003"), "{group}");
    }

    #[test]
    fn another_services_groups_are_none_of_its() {
        assert!(is_group("hello", "hello-v003"));
        for other in ["hello-live-v003", "hello-none", "hello-v", "hello-v3a", "other-v003"] {
            assert!(!is_group("hello", other), "{other}");
        }
    }

    #[test]
    fn an_arn_tells_the_name() {
        let arn = "arn:aws:elasticloadbalancing:us-east-1:123456789012:targetgroup/hello-live-v003/50dc6c495c0c9188";
        assert_eq!(of_target_group(arn), "hello-live-v003");
    }
}
