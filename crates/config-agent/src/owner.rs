//! Users and groups by name.
//!
//! The C library would load name service modules, which a static program cannot rely on; files of the system's own
//! users are in `/etc/passwd` and `/etc/group`.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

/// Who a file belongs to: `web`, `web:www-data`, or numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    user: String,
    group: Option<String>,
}

/// Numbers of a user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

impl Owner {
    /// Looks it up. The group of a user without one named is the user's own. The error says who is not known.
    pub fn ids(&self) -> Result<Ids, String> {
        self.ids_in(&read("/etc/passwd")?, &read("/etc/group")?)
    }

    fn ids_in(&self, passwd: &str, group: &str) -> Result<Ids, String> {
        let fields = |text: &str, name: &str| -> Option<Vec<String>> {
            let line = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
            line.into_iter().find(|fields| fields.first().is_some_and(|first| first == name))
        };
        let number = |fields: &[String], at: usize| fields.get(at).and_then(|field| field.parse().ok());
        let account = fields(passwd, &self.user);
        let user = match &account {
            Some(account) => number(account, 2),
            None => self.user.parse().ok(),
        };
        let user = user.ok_or_else(|| format!("there is no user '{}' in /etc/passwd", self.user))?;
        let group = match &self.group {
            Some(name) => match fields(group, name) {
                Some(fields) => number(&fields, 2),
                None => name.parse().ok(),
            }
            .ok_or_else(|| format!("there is no group '{name}' in /etc/group"))?,
            None => account.as_deref().and_then(|account| number(account, 3)).unwrap_or(user),
        };
        Ok(Ids { user, group })
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text.as_str(), None),
        };
        if user.is_empty() || group.is_some_and(|group| group.is_empty() || group.contains(':')) {
            return Err(D::Error::custom(format!("'{text}' is no owner: write \"user\" or \"user:group\"")));
        }
        Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) })
    }
}

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(Path::new(path)).map_err(|error| format!("{path} cannot be read ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:105:110::/nonexistent:/usr/sbin/nologin\n";
        let group = "root:x:0:\nwww-data:x:33:web\n";
        let ids = |user: &str, of: Option<&str>| {
            Owner { user: user.to_owned(), group: of.map(str::to_owned) }.ids_in(passwd, group)
        };
        assert_eq!(ids("web", None), Ok(Ids { user: 105, group: 110 }));
        assert_eq!(ids("web", Some("www-data")), Ok(Ids { user: 105, group: 33 }));
        assert_eq!(ids("12", Some("34")), Ok(Ids { user: 12, group: 34 }));
        assert_eq!(ids("12", None), Ok(Ids { user: 12, group: 12 }));
        assert_eq!(ids("wbe", None).unwrap_err(), "there is no user 'wbe' in /etc/passwd");
        assert_eq!(ids("web", Some("wheel")).unwrap_err(), "there is no group 'wheel' in /etc/group");
    }
}
