//! Users and groups, from the files: static glibc has no name service.

use std::fs;

use super::{Found, unknown};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// A line of passwd(5), and the groups that the user is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    name: String,
    uid: u32,
    gid: u32,
    pub(super) home: String,
    shell: String,
    /// The primary group first.
    groups: Vec<String>,
}

/// A line of group(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

pub(super) fn user(name: &str) -> Result<Option<User>, String> {
    let groups = groups(&read(GROUP)?);
    let found = users(&read(PASSWD)?).into_iter().find(|user| user.name == name);
    Ok(found.map(|user| with_groups(user, &groups)))
}

pub(super) fn group(name: &str) -> Result<Option<Group>, String> {
    Ok(groups(&read(GROUP)?).into_iter().find(|group| group.name == name))
}

/// The name of a file's owner, or the number where no user has it.
pub(super) fn user_name(uid: u32) -> Result<String, String> {
    let user = users(&read(PASSWD)?).into_iter().find(|user| user.uid == uid);
    Ok(user.map_or_else(|| uid.to_string(), |user| user.name))
}

/// The name of a file's group, or the number where no group has it.
pub(super) fn group_name(gid: u32) -> Result<String, String> {
    let group = groups(&read(GROUP)?).into_iter().find(|group| group.gid == gid);
    Ok(group.map_or_else(|| gid.to_string(), |group| group.name))
}

pub(super) fn user_property(user: Option<&User>, property: &str) -> Result<Found, String> {
    let Some(user) = user else { return absent(property, PASSWD) };
    Ok(match property {
        "exists" => true.into(),
        "uid" => user.uid.into(),
        "gid" => user.gid.into(),
        "home" => user.home.as_str().into(),
        "shell" => user.shell.as_str().into(),
        "groups" => user.groups.clone().into(),
        _ => return Err(unknown(property)),
    })
}

pub(super) fn group_property(group: Option<&Group>, property: &str) -> Result<Found, String> {
    let Some(group) = group else { return absent(property, GROUP) };
    Ok(match property {
        "exists" => true.into(),
        "gid" => group.gid.into(),
        _ => return Err(unknown(property)),
    })
}

fn absent(property: &str, file: &str) -> Result<Found, String> {
    if property == "exists" { Ok(false.into()) } else { Err(format!("not in {file}")) }
}

fn read(path: &str) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Lines that are no entry (blank, or for NIS) are passed over, as the C library does.
fn users(passwd: &str) -> Vec<User> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields.as_slice() else { return None };
        Some(User {
            name: (*name).to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: (*home).to_owned(),
            shell: (*shell).to_owned(),
            groups: Vec::new(),
        })
    };
    passwd.lines().filter_map(entry).collect()
}

fn groups(group: &str) -> Vec<Group> {
    let entry = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members] = fields.as_slice() else { return None };
        let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
        Some(Group { name: (*name).to_owned(), gid: gid.parse().ok()?, members })
    };
    group.lines().filter_map(entry).collect()
}

fn with_groups(user: User, groups: &[Group]) -> User {
    let primary = groups.iter().filter(|group| group.gid == user.gid);
    let others = groups.iter().filter(|group| group.gid != user.gid && group.members.contains(&user.name));
    let names = primary.chain(others).map(|group| group.name.clone()).collect();
    User { groups: names, ..user }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\n\
        daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
        +::::::\n\
        \n\
        hello:x:998:997:hello, the service:/var/lib/hello:/bin/sh\n";
    const GROUP: &str = "root:x:0:\ndaemon:x:1:\nadm:x:4:hello,syslog\nssl-cert:x:113:hello\nhello:x:997:\n";

    #[test]
    fn a_user_and_its_groups() {
        let users = users(PASSWD);
        assert_eq!(users.iter().map(|user| user.name.as_str()).collect::<Vec<_>>(), ["root", "daemon", "hello"]);
        let hello = with_groups(users[2].clone(), &groups(GROUP));
        assert_eq!((hello.uid, hello.gid), (998, 997));
        assert_eq!((hello.home.as_str(), hello.shell.as_str()), ("/var/lib/hello", "/bin/sh"));
        assert_eq!(hello.groups, ["hello", "adm", "ssl-cert"]);
    }

    #[test]
    fn an_absent_user_only_does_not_exist() {
        assert_eq!(user_property(None, "exists").map(|found| found.value), Ok(false.into()));
        assert_eq!(user_property(None, "uid").map(|found| found.value), Err("not in /etc/passwd".to_owned()));
    }
}
