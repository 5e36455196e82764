//! Bounds on a semantic version, in the language of the library that goss uses
//! (github.com/blang/semver, `range.go`): comparisons side by side must all
//! hold, `||` separates alternatives, `x` stands for any minor or patch number.
//!
//! Cargo's own language, though it looks alike, reads `1.2.3` as "compatible with".

use std::cmp::Ordering;
use std::fmt;

use semver::Version;

/// Bounds on a semantic version.
#[derive(Debug, Clone)]
pub struct Constraint {
    written: String,
    alternatives: Vec<Vec<Bound>>,
}

#[derive(Debug, Clone)]
struct Bound {
    operator: Operator,
    low: Version,
    /// The first version above those that `x` stands for.
    above: Option<Version>,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    Lt,
    Le,
    Gt,
    Ge,
    Eq,
    Ne,
}

/// Longest first, so that `>=` is not read as `>`.
const OPERATORS: [(&str, Operator); 8] = [
    ("<=", Operator::Le),
    (">=", Operator::Ge),
    ("!=", Operator::Ne),
    ("==", Operator::Eq),
    ("<", Operator::Lt),
    (">", Operator::Gt),
    ("!", Operator::Ne),
    ("=", Operator::Eq),
];

impl Constraint {
    /// Reads a constraint; `None` if it is not one.
    pub fn parse(written: &str) -> Option<Self> {
        let alternatives = written.split("||").map(bounds).collect::<Option<_>>()?;
        Some(Self { written: written.to_owned(), alternatives })
    }

    /// Whether `version` is within the bounds.
    ///
    /// # Errors
    ///
    /// It is not a semantic version: three numbers and what may follow them.
    pub fn admits(&self, version: &str) -> Result<bool, String> {
        let version = Version::parse(version.trim())
            .map_err(|error| format!("expected a semantic version, found {version:?} ({error})"))?;
        Ok(self.alternatives.iter().any(|bounds| bounds.iter().all(|bound| bound.admits(&version))))
    }
}

fn bounds(text: &str) -> Option<Vec<Bound>> {
    let mut bounds = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let operator = OPERATORS.iter().find(|(sign, _)| rest.starts_with(sign));
        let (sign, operator) = operator.map_or(("", Operator::Eq), |found| *found);
        let unsigned = rest[sign.len()..].trim_start();
        let end = unsigned.find(|letter: char| letter.is_whitespace() || "<>=!".contains(letter));
        let (version, next) = unsigned.split_at(end.unwrap_or(unsigned.len()));
        bounds.push(Bound::parse(operator, version)?);
        rest = next.trim_start();
    }
    (!bounds.is_empty()).then_some(bounds)
}

impl Bound {
    fn parse(operator: Operator, text: &str) -> Option<Self> {
        if let Ok(low) = Version::parse(text) {
            return Some(Self { operator, low, above: None });
        }
        let parts: Vec<&str> = text.split('.').collect();
        let (low, above) = match parts.as_slice() {
            [major, "x"] | [major, "x", "x"] => {
                let major = major.parse().ok()?;
                (Version::new(major, 0, 0), Version::new(major.checked_add(1)?, 0, 0))
            }
            [major, minor, "x"] => {
                let (major, minor) = (major.parse().ok()?, minor.parse::<u64>().ok()?);
                (Version::new(major, minor, 0), Version::new(major, minor.checked_add(1)?, 0))
            }
            _ => return None,
        };
        Some(Self { operator, low, above: Some(above) })
    }

    fn admits(&self, version: &Version) -> bool {
        let order = match (version.cmp_precedence(&self.low), &self.above) {
            (Ordering::Greater, Some(above)) if version.cmp_precedence(above).is_lt() => Ordering::Equal,
            (order, _) => order,
        };
        match self.operator {
            Operator::Lt => order.is_lt(),
            Operator::Le => order.is_le(),
            Operator::Gt => order.is_gt(),
            Operator::Ge => order.is_ge(),
            Operator::Eq => order.is_eq(),
            Operator::Ne => order.is_ne(),
        }
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_as_goss_reads_them() {
        for (constraint, version, admits) in [
            ("1.2.3", "1.2.3", true),
            ("1.2.3", "1.2.4", false),
            (">1.0.0 <2.0.0", "1.5.0", true),
            (">1.0.0 <2.0.0", "2.0.0", false),
            (">= 1.0.0", "1.0.0", true),
            (">1.0.0<2.0.0", "1.0.1", true),
            ("<1.0.0 || >=2.0.0", "2.1.0", true),
            ("<1.0.0 || >=2.0.0", "1.1.0", false),
            ("!=1.5.0 >=1.0.0", "1.5.0", false),
            ("1.x", "1.9.9", true),
            ("1.2.x", "1.3.0", false),
            (">1.2.x", "1.2.9", false),
            (">1.2.x", "1.3.0", true),
            ("<=1.2.x", "1.2.9", true),
            ("<1.2.x", "1.2.0", false),
            (">=1.0.0", "1.0.0-rc1", false),
        ] {
            let parsed = Constraint::parse(constraint).unwrap();
            assert_eq!(parsed.admits(version), Ok(admits), "{constraint} {version}");
        }
        assert!(Constraint::parse("1.0.0").unwrap().admits("2.36-9+deb12u4").is_err());
    }

    #[test]
    fn what_is_no_constraint() {
        for text in ["", "||", "^1.0.0", ">", "1.2", "one", ">=1.0.0 ||"] {
            assert!(Constraint::parse(text).is_none(), "{text}");
        }
    }
}
