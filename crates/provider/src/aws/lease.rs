//! Until when something is kept that nobody has completed, and who may delete it.

use jiff::{SignedDuration, Timestamp};

use super::holder::Holder;
use super::tags::{LAYER, Tags};

/// When the lease is over, in RFC 3339 and UTC. What does not have it is kept.
pub(super) const EXPIRES: &str = "kiln:expires";
/// The process that works on it, as JSON. Once it holds a layer, it is nobody's.
pub(super) const HOLDER: &str = "kiln:holder";
/// Every stage puts it on what it makes, so it tells our things from those of others.
pub(super) const STAGE: &str = "kiln:stage";

/// What a process is working on. No build takes a day, and what it leaves costs some cents until then.
pub(super) const AT_WORK: SignedDuration = SignedDuration::from_hours(24);

/// The end of a lease that begins now.
pub(super) fn ending(lease: SignedDuration) -> String {
    format!("{:.0}", Timestamp::now() + lease)
}

/// Whether a thing with these tags is ours, and its lease is over: its time is past, or the process that worked on it is
/// known to have ended.
pub(super) fn is_over(tags: &Tags) -> bool {
    let expires = tags.get(EXPIRES).and_then(|text| text.parse::<Timestamp>().ok());
    let is_left = || !tags.contains_key(LAYER) && holder(tags).is_some_and(|holder| holder.has_ended());
    tags.contains_key(STAGE) && expires.is_some_and(|expires| expires < Timestamp::now() || is_left())
}

fn holder(tags: &Tags) -> Option<Holder> {
    serde_json::from_str(tags.get(HOLDER)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_ours_has_a_lease_and_is_not_worked_on_can_be_over() {
        let over = |tags: &[(&str, &str)]| is_over(&tags.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect());
        assert!(over(&[(STAGE, "imager"), (EXPIRES, "2020-01-01T00:00:00Z")]));
        assert!(!over(&[(EXPIRES, "2020-01-01T00:00:00Z")]), "somebody else's");
        assert!(!over(&[(STAGE, "imager")]), "kept");
        assert!(!over(&[(STAGE, "imager"), (EXPIRES, "soon")]), "what nobody understands is kept");
        assert!(!over(&[(STAGE, "imager"), (EXPIRES, &ending(AT_WORK))]));
        assert!(ending(AT_WORK).ends_with('Z'));

        let held = |holder: &Holder, more: &[(&str, &str)]| {
            let (holder, expires) = (serde_json::to_string(holder).unwrap(), ending(AT_WORK));
            assert!(holder.chars().count() <= 256);
            over(&[&[(STAGE, "imager"), (EXPIRES, &expires), (HOLDER, &holder)], more].concat())
        };
        let ours = Holder::this();
        let mut ended = ours.clone();
        ended.process.started += 1;
        assert!(!held(&ours, &[]), "it is at work");
        assert!(held(&ended, &[]));
        assert!(!held(&ended, &[(LAYER, "1")]), "it was completed");
        ended.machine = "another".to_owned();
        assert!(!held(&ended, &[]), "of another machine's processes nothing is known");
    }
}
