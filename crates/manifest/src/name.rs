//! The rule for names that become part of names of services, groups and hosts.

use crate::Component;
use crate::component::Deploy;

/// A text that cannot be a name; says what can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write at most {longest} lower-case letters, digits and dashes, with a letter first and no dash last")]
pub struct NotAName {
    longest: usize,
}

impl Component {
    /// Longest name of a component. `COMPONENT-ENVIRONMENT-v000` has to be a label of a DNS name, of at most 63
    /// characters (RFC 1123, section 2.1).
    const LONGEST_NAME: usize = 32;

    /// Whether a component can have this name.
    pub fn check_name(name: &str) -> Result<(), NotAName> {
        check(name, Self::LONGEST_NAME)
    }
}

impl Deploy {
    /// Longest name of an environment: what a component's name leaves of a label.
    const LONGEST_ENVIRONMENT: usize = 24;

    /// Whether an environment can have this name.
    pub fn check_environment(name: &str) -> Result<(), NotAName> {
        check(name, Self::LONGEST_ENVIRONMENT)
    }
}

fn check(name: &str, longest: usize) -> Result<(), NotAName> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let begins = name.starts_with(|first: char| first.is_ascii_lowercase());
    if begins && name.len() <= longest && name.bytes().all(allowed) && !name.ends_with('-') {
        Ok(())
    } else {
        Err(NotAName { longest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_begin_with_a_letter() {
        for good in ["a", "live", "eu-west-1", &"e".repeat(24)] {
            assert_eq!(Deploy::check_environment(good), Ok(()), "{good}");
        }
        for bad in ["", "2nd", "-a", "a-", "Live", "a_b", "a.b", &"e".repeat(25)] {
            assert!(Deploy::check_environment(bad).is_err(), "{bad}");
        }
        assert_eq!(Component::check_name(&"c".repeat(32)), Ok(()));
        assert!(Component::check_name(&"c".repeat(33)).is_err());
    }

    #[test]
    fn the_longest_name_of_a_group_is_a_label() {
        assert!(Component::LONGEST_NAME + "-".len() + Deploy::LONGEST_ENVIRONMENT + "-v000".len() <= 63);
    }
}
