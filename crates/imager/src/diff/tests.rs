//! Two trees in a temporary directory, compared.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use tempfile::TempDir;

use super::model::{Change, Difference, Document, ImageName, SCHEMA_VERSION};

/// An older and a newer root, the same to begin with.
struct Roots(TempDir);

impl Roots {
    fn new() -> Self {
        let roots = Self(tempfile::tempdir().unwrap());
        for side in ["old", "new"] {
            roots.write(side, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n");
            roots.write(side, "etc/group", "root:x:0:\n");
            roots.write(side, "etc/hosts", "127.0.0.1 localhost\n");
            roots.write(side, "var/lib/dpkg/status", &stanza("base", "1.0"));
            roots.write(side, "var/lib/dpkg/info/base.list", "/.\n/etc\n/etc/hosts\n");
            fs::create_dir_all(roots.path(side).join("usr/bin")).unwrap();
            symlink("usr/bin", roots.path(side).join("bin")).unwrap();
        }
        roots
    }

    fn path(&self, side: &str) -> std::path::PathBuf {
        self.0.path().join(side)
    }

    fn write(&self, side: &str, path: &str, content: &str) {
        let path = self.path(side).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn link(&self, side: &str, path: &str, target: &str) {
        let path = self.path(side).join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn mode(&self, side: &str, path: &str, mode: u32) {
        fs::set_permissions(self.path(side).join(path), Permissions::from_mode(mode)).unwrap();
    }

    /// The difference without the size, which is that of the whole file system here.
    fn compare(&self, all_files: bool) -> Difference {
        let found = super::compare(&self.path("old"), &self.path("new"), all_files).unwrap();
        Difference { size: Change { from: 1 << 20, to: 1 << 20 }, ..found }
    }
}

fn stanza(name: &str, version: &str) -> String {
    format!("Package: {name}\nStatus: install ok installed\nArchitecture: all\nVersion: {version}\n\n")
}

fn text(difference: Difference) -> String {
    let image = |id: &str| ImageName { id: id.to_owned(), name: format!("name of {id}") };
    Document { schema_version: SCHEMA_VERSION, from: image("a"), to: image("b"), difference }.to_string()
}

fn paths(files: &[super::model::File]) -> Vec<&str> {
    files.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn what_is_the_same_is_no_difference() {
    let roots = Roots::new();
    let found = roots.compare(true);
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(text(found), "no differences");
}

#[test]
fn a_change_says_what_of_a_file_it_is() {
    let roots = Roots::new();
    roots.write("new", "etc/hosts", "127.0.0.2 localhost\n");
    roots.write("old", "srv/longer", "1");
    roots.write("new", "srv/longer", "12");
    roots.write("old", "srv/kind", "file");
    roots.link("new", "srv/kind", "/nowhere");
    roots.link("old", "srv/link", "one");
    roots.link("new", "srv/link", "other");
    roots.mode("new", "srv", 0o700);
    let found = roots.compare(false);
    let [srv, hosts, kind, link, longer] = {
        let mut changed = found.files.changed.clone();
        changed.sort_by_key(|it| (it.path != "/srv", it.path.clone()));
        <[_; 5]>::try_from(changed).unwrap()
    };
    assert_eq!(srv.mode, Change::between("0755".to_owned(), "0700".to_owned()));
    assert!(hosts.content && hosts.size.is_none());
    assert_eq!(hosts.package.as_deref(), Some("base"));
    assert!(kind.file_type.is_some() && !kind.content);
    assert_eq!(link.target, Change::between("one".to_owned(), "other".to_owned()));
    assert_eq!(longer.size, Some(Change { from: 1, to: 2 }));
    let shown = text(found);
    assert!(shown.contains("Files: 5 changed\n"), "{shown}");
    assert!(shown.contains("content 1 B -> 2 B"), "{shown}");
}

#[test]
fn files_of_a_package_are_counted_under_it_unless_all_are_asked_for() {
    let roots = Roots::new();
    roots.write("old", "var/lib/dpkg/status", &(stanza("base", "1.0") + &stanza("gone", "1")));
    roots.write("old", "var/lib/dpkg/info/gone.list", "/.\n/usr\n/usr/share\n/usr/share/gone\n");
    roots.write("old", "usr/share/gone", "12345");
    roots.write("new", "var/lib/dpkg/status", &(stanza("base", "1.1") + &stanza("web", "2.0")));
    // The list says /bin, where the file is in /usr/bin.
    roots.write("new", "var/lib/dpkg/info/web.list", "/.\n/bin\n/bin/web\n/etc/web.conf\n");
    roots.write("new", "usr/bin/web", "#!/bin/sh\n");
    roots.write("new", "etc/web.conf", "");
    roots.write("new", "etc/hosts", "another\n");
    roots.write("new", "opt/mine", "x");

    let found = roots.compare(false);
    let web = &found.packages.added[0];
    assert_eq!((web.name.as_str(), web.files.added, web.files.bytes), ("web", 2, 10));
    assert_eq!((found.packages.removed[0].files.removed, found.packages.removed[0].files.bytes), (2, -5));
    assert_eq!((found.packages.upgraded[0].version.to.as_str(), found.packages.upgraded[0].files.changed), ("1.1", 1));
    assert_eq!(paths(&found.files.added), ["/opt", "/opt/mine"]);
    assert_eq!(found.files.grouped[0].name, "package database");
    assert!(found.files.changed.is_empty(), "{:?}", found.files.changed);
    let shown = text(found);
    assert!(shown.contains("Packages: 1 added, 1 removed, 1 upgraded\n"), "{shown}");

    let all = roots.compare(true);
    assert!(paths(&all.files.added).contains(&"/usr/bin/web"));
    assert_eq!(all.files.changed[0].path, "/etc/hosts");
}

#[test]
fn configuration_that_is_not_its_packages_own_is_listed() {
    let roots = Roots::new();
    let web = stanza("web", "2.0").trim_end().to_owned()
        // The digest of "listen 80\n".
        + "\nConffiles:\n /etc/web.conf 7e197530fc990e0189b96e734f61baa1\n /etc/web.d d41d8cd98f00b204e9800998ecf8427e\n\n";
    roots.write("new", "var/lib/dpkg/status", &(stanza("base", "1.0") + &web));
    roots.write("new", "var/lib/dpkg/info/web.list", "/etc/web.conf\n/etc/web.d\n");
    roots.write("new", "etc/web.conf", "listen 81\n");
    roots.write("new", "etc/web.d", "");
    let found = roots.compare(false);
    assert_eq!(paths(&found.files.added), ["/etc/web.conf"]);
    assert_eq!(found.files.added[0].package.as_deref(), Some("web"));
    assert_eq!(found.packages.added[0].files.added, 1);
}

#[test]
fn a_large_new_directory_is_one_line() {
    let roots = Roots::new();
    for number in 0..30 {
        roots.write("new", &format!("opt/app/lib/{number}"), "four");
    }
    roots.write("new", "optional", "");
    let found = roots.compare(false);
    assert_eq!(paths(&found.files.added), ["/opt", "/optional"]);
    let contents = found.files.added[0].contents.unwrap();
    assert_eq!((contents.added, contents.bytes), (32, 120));
    assert_eq!(roots.compare(true).files.added.len(), 34);
}

#[test]
fn what_gives_rights_is_shown_even_in_a_package() {
    let roots = Roots::new();
    roots.write("new", "var/lib/dpkg/status", &(stanza("base", "1.0") + &stanza("su", "1")));
    roots.write("new", "var/lib/dpkg/info/su.list", "/usr/bin/su\n");
    roots.write("new", "usr/bin/su", "");
    roots.mode("new", "usr/bin/su", 0o4755);
    for (side, mode) in [("old", 0o2755), ("new", 0o755)] {
        roots.write(side, "usr/bin/write", "");
        roots.mode(side, "usr/bin/write", mode);
    }
    // The group of a directory's files is no right.
    fs::create_dir(roots.path("new").join("mail")).unwrap();
    roots.mode("new", "mail", 0o2775);
    let found = roots.compare(false).privileged;
    assert_eq!((found.added.len(), found.removed.len()), (1, 1));
    assert_eq!((found.added[0].path.as_str(), found.added[0].rights.mode.as_str()), ("/usr/bin/su", "4755"));
    assert_eq!(found.removed[0].path, "/usr/bin/write");
}

#[test]
fn units_are_enabled_and_masked_by_links_and_sockets_say_where_they_listen() {
    let roots = Roots::new();
    let units = "etc/systemd/system";
    roots.link("old", &format!("{units}/multi-user.target.wants/old.service"), "/lib/systemd/system/old.service");
    roots.link("new", &format!("{units}/multi-user.target.wants/new.service"), "/lib/systemd/system/new.service");
    roots.link("new", &format!("{units}/sockets.target.wants/web.socket"), "/usr/lib/systemd/system/web.socket");
    roots.write("new", "usr/lib/systemd/system/web.socket", "[Socket]\nListenStream=80\n");
    roots.write("new", &format!("{units}/web.socket.d/more.conf"), "[Socket]\nListenStream=443\n");
    roots.write("new", "usr/lib/systemd/system/idle.socket", "[Socket]\nListenStream=1\n");
    roots.link("new", &format!("{units}/cron.service"), "/dev/null");
    let found = roots.compare(false);
    let enabled: Vec<_> = found.units.enabled.iter().map(|it| (it.unit.as_str(), it.by.as_str())).collect();
    assert_eq!(enabled, [("new.service", "multi-user.target"), ("web.socket", "sockets.target")]);
    assert_eq!(found.units.disabled[0].unit, "old.service");
    assert_eq!(found.units.masked, ["cron.service"]);
    let addresses: Vec<_> = found.sockets.added.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(addresses, ["443", "80"]);
    let shown = text(found);
    assert!(shown.contains("Units: 2 enabled, 1 disabled, 1 masked\n"), "{shown}");
}

#[test]
fn an_absolute_link_leads_to_the_image_and_not_to_the_host() {
    let roots = Roots::new();
    fs::remove_file(roots.path("new").join("etc/passwd")).unwrap();
    roots.link("new", "etc/passwd", "/etc/users");
    roots.write("new", "etc/users", "root:x:0:0:root:/root:/bin/bash\nweb:x:33:33::/:/bin/sh\n");
    let users = roots.compare(false).users;
    assert_eq!(users.added.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["web"]);
}

#[test]
fn the_document_can_be_read_back() {
    let roots = Roots::new();
    roots.write("new", "etc/hosts", "another\n");
    roots.write("new", "etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    let image = |id: &str| ImageName { id: id.to_owned(), name: id.to_owned() };
    let document =
        Document { schema_version: SCHEMA_VERSION, from: image("a"), to: image("b"), difference: roots.compare(false) };
    let json = serde_json::to_string(&document).unwrap();
    assert!(json.starts_with(r#"{"schema_version":1,"from":{"id":"a""#), "{json}");
    assert_eq!(serde_json::from_str::<Document>(&json).unwrap(), document);
    assert!(Path::new(&document.difference.files.changed[0].path).is_absolute());
}
