//! Users and groups.

use std::collections::BTreeMap;

use anyhow::Result;

use super::model::{Account, Accounts, ChangedAccount, ChangedField};
use super::tree::Tree;

/// What of an account is compared, by name; the name of the account is before.
type Fields = BTreeMap<&'static str, String>;
pub(super) type Names = BTreeMap<String, Fields>;

/// The field that holds the account's number.
const ID: &str = "id";
/// The field that is never shown.
const PASSWORD: &str = "password";

/// The users, from passwd(5) and shadow(5).
pub(super) fn users(tree: &Tree) -> Result<Names> {
    Ok(parse_users(&tree.text("/etc/passwd")?, &tree.text("/etc/shadow")?))
}

/// The groups, from group(5).
pub(super) fn groups(tree: &Tree) -> Result<Names> {
    Ok(parse(&tree.text("/etc/group")?, &[(2, ID), (3, "members")]))
}

fn parse_users(passwd: &str, shadow: &str) -> Names {
    let mut users = parse(passwd, &[(1, PASSWORD), (2, ID), (3, "group"), (4, "comment"), (5, "home"), (6, "shell")]);
    for (name, fields) in parse(shadow, &[(1, PASSWORD)]) {
        // A password in passwd(5) itself counts before that of shadow(5), to which `x` refers.
        if let Some(user) = users.get_mut(&name).filter(|user| user[PASSWORD] == "x") {
            user.extend(fields);
        }
    }
    users
}

/// Reads the fields with these numbers of each line.
fn parse(text: &str, wanted: &[(usize, &'static str)]) -> Names {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let read = |line: &str| {
        let parts: Vec<_> = line.split(':').collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
        (part(0), wanted.iter().map(|(at, name)| (*name, part(*at))).collect())
    };
    lines.map(read).collect()
}

/// Which accounts came, went, or are another's.
pub(super) fn between(old: &Names, new: &Names) -> Accounts {
    let only = |these: &Names, those: &Names| -> Vec<Account> {
        let lone = these.iter().filter(|(name, _)| !those.contains_key(*name));
        lone.map(|(name, fields)| Account { name: name.clone(), id: fields[ID].clone() }).collect()
    };
    let changed = new.iter().filter_map(|(name, fields)| {
        let fields = changed_fields(old.get(name)?, fields);
        (!fields.is_empty()).then(|| ChangedAccount { name: name.clone(), fields })
    });
    Accounts { added: only(new, old), removed: only(old, new), changed: changed.collect() }
}

fn changed_fields(old: &Fields, new: &Fields) -> Vec<ChangedField> {
    let differing = new.iter().filter(|(field, value)| old[*field] != **value);
    differing
        .map(|(field, to)| {
            let from = &old[field];
            let (from, to) = match *field {
                PASSWORD => match (password(from), password(to)) {
                    ("set", "set") => ("set", "set to another"),
                    differing => differing,
                },
                _ => (from.as_str(), to.as_str()),
            };
            ChangedField { field: (*field).to_owned(), from: from.to_owned(), to: to.to_owned() }
        })
        .collect()
}

/// What holds nothing but `!` and `*` is no password's hash (shadow(5)).
fn password(field: &str) -> &'static str {
    match field {
        "" => "empty",
        field if field.starts_with('!') => "locked",
        field if field.bytes().all(|byte| byte == b'*') => "none",
        _ => "set",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\ngone:x:7:7::/:/bin/sh\n";

    #[test]
    fn a_password_is_never_shown() {
        let old = parse_users(PASSWD, "root:*:19000:0:99999:7:::\ngone:!:1::::::\n");
        let new = parse_users(
            "root:x:0:0:root:/root:/bin/sh\nnew:x:999:999::/:/usr/sbin/nologin\n",
            "root:$y$j9T$secret:19001:0:99999:7:::\n",
        );
        let found = between(&old, &new);
        assert_eq!(found.added, [Account { name: "new".into(), id: "999".into() }]);
        assert_eq!(found.removed, [Account { name: "gone".into(), id: "7".into() }]);
        let fields: Vec<_> =
            found.changed[0].fields.iter().map(|it| format!("{} {} {}", it.field, it.from, it.to)).collect();
        assert_eq!(fields, ["password none set", "shell /bin/bash /bin/sh"]);
    }

    #[test]
    fn another_password_is_a_change_and_another_day_of_it_is_none() {
        let users = |shadow: &str| parse_users(PASSWD, shadow);
        let one = users("root:$y$one:19000:0:99999:7:::\n");
        assert_eq!(between(&one, &users("root:$y$one:20000:0:99999:7:::\n")), Accounts::default());
        let changed = between(&one, &users("root:$y$two:20000:0:99999:7:::\n")).changed;
        assert_eq!(changed[0].fields[0].to, "set to another");
    }
}
