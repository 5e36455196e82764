//! Session tokens of the metadata service: IMDSv2 as EC2 has it.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// The longest life of a token: six hours.
const LONGEST: u64 = 21_600;

/// The tokens that were given out.
#[derive(Default)]
pub struct Tokens(HashMap<String, (Ipv4Addr, Instant)>);

impl Tokens {
    /// Gives `instance` a token for as many seconds as it asks in `ttl`; `None` if that is no number from 1 to 21600.
    pub fn give(&mut self, instance: Ipv4Addr, ttl: Option<&str>, now: Instant) -> Option<(String, u64)> {
        let seconds = ttl?.trim().parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds))?;
        self.0.retain(|_, (_, end)| *end > now);
        let token = uuid::Uuid::new_v4().simple().to_string();
        self.0.insert(token.clone(), (instance, now + Duration::from_secs(seconds)));
        Some((token, seconds))
    }

    /// Whether `token` is one of this instance's and still valid.
    pub fn allows(&self, instance: Ipv4Addr, token: Option<&str>, now: Instant) -> bool {
        let known = token.and_then(|token| self.0.get(token));
        known.is_some_and(|(owner, end)| *owner == instance && *end > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 16);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 17);

    #[test]
    fn a_token_is_valid_for_its_instance_and_its_time() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        let (token, seconds) = tokens.give(ONE, Some("60"), now).unwrap();
        assert_eq!(seconds, 60);
        assert!(tokens.allows(ONE, Some(&token), now + Duration::from_secs(59)));
        assert!(!tokens.allows(ONE, Some(&token), now + Duration::from_secs(60)));
        assert!(!tokens.allows(OTHER, Some(&token), now));
        assert!(!tokens.allows(ONE, Some("another"), now));
        assert!(!tokens.allows(ONE, None, now));
    }

    #[test]
    fn a_token_lives_from_one_second_to_six_hours() {
        let (mut tokens, now) = (Tokens::default(), Instant::now());
        for ttl in [None, Some("0"), Some("21601"), Some("-1"), Some("soon")] {
            assert!(tokens.give(ONE, ttl, now).is_none(), "{ttl:?}");
        }
        assert!(tokens.give(ONE, Some("1"), now).is_some() && tokens.give(ONE, Some("21600"), now).is_some());
    }
}
