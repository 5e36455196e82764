//! Until when something is kept that nobody has completed, and who may delete it.

use jiff::{SignedDuration, Timestamp};

use super::tags::Tags;

/// When the lease is over, in RFC 3339 and UTC. What does not have it is kept.
pub(super) const EXPIRES: &str = "kiln:expires";
/// Every stage puts it on what it makes, so it tells our things from those of others.
pub(super) const STAGE: &str = "kiln:stage";

/// What a process is working on. No build takes a day, and what it leaves costs some cents until then.
pub(super) const AT_WORK: SignedDuration = SignedDuration::from_hours(24);
/// A complete volume: for as long as a build would take it up (imager's `--max-age`).
pub(super) const COMPLETE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A layer: longer than builds take it up by themselves, for those who let them.
pub(super) const LAYER: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The end of a lease that begins now.
pub(super) fn ending(lease: SignedDuration) -> String {
    format!("{:.0}", Timestamp::now() + lease)
}

/// Whether a thing with these tags is ours, and its lease is over.
pub(super) fn is_over(tags: &Tags) -> bool {
    let expires = tags.get(EXPIRES).and_then(|text| text.parse::<Timestamp>().ok());
    tags.contains_key(STAGE) && expires.is_some_and(|expires| expires < Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_and_has_a_lease_can_be_over() {
        let over = |tags: &[(&str, &str)]| is_over(&tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        assert!(over(&[(STAGE, "imager"), (EXPIRES, "2020-01-01T00:00:00Z")]));
        assert!(!over(&[(EXPIRES, "2020-01-01T00:00:00Z")]), "somebody else's");
        assert!(!over(&[(STAGE, "imager")]), "kept");
        assert!(!over(&[(STAGE, "imager"), (EXPIRES, "soon")]), "what nobody understands is kept");
        assert!(!over(&[(STAGE, "imager"), (EXPIRES, &ending(AT_WORK))]));
        assert!(ending(AT_WORK).ends_with('Z'));
    }
}
