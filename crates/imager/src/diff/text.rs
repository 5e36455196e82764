//! A diff for a person to read.

use std::fmt;

use comfy_table::Table;
use comfy_table::presets::NOTHING;

use super::model::{
    Account, Accounts, Change, ChangedFile, Document, File, FileKind, MovedPackage, Package, Packages, Rights, Tally,
};

/// Sections that have something in them, each with its counts; rows are in columns.
impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.difference.is_empty() {
            return f.write_str("no differences");
        }
        let names = |image: &super::ImageName| format!("{} ({})", image.id, image.name);
        write!(f, "{} -> {}", names(&self.from), names(&self.to))?;
        for section in self.sections().iter().filter(|section| !section.rows.is_empty()) {
            write!(f, "\n\n{}{}\n{}", section.title, section.counts, section.table())?;
        }
        Ok(())
    }
}

struct Section {
    title: &'static str,
    counts: String,
    rows: Vec<Vec<String>>,
}

impl Section {
    /// `parts` are the rows of each kind of change, with the word and the sign for it.
    fn new(title: &'static str, parts: Vec<(&str, &str, Vec<Vec<String>>)>) -> Self {
        let counts: Vec<_> = parts
            .iter()
            .filter(|(_, _, rows)| !rows.is_empty())
            .map(|(word, _, rows)| format!("{} {word}", rows.len()))
            .collect();
        let signed = |sign: &str, mut row: Vec<String>| {
            row.insert(0, format!(" {sign}"));
            row
        };
        let rows = parts.into_iter().flat_map(|(_, sign, rows)| rows.into_iter().map(move |row| signed(sign, row)));
        Self { title, counts: format!(": {}", counts.join(", ")), rows: rows.collect() }
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        // The width of a terminal is no reason to break a path in two.
        table.load_style(NOTHING).set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.add_rows(&self.rows);
        table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

impl Document {
    fn sections(&self) -> Vec<Section> {
        let difference = &self.difference;
        let (units, sockets, privileged) = (&difference.units, &difference.sockets, &difference.privileged);
        let enabled = |list: &[super::model::EnabledUnit]| {
            list.iter().map(|it| vec![it.unit.clone(), format!("by {}", it.by)]).collect()
        };
        let named = |list: &[String]| list.iter().map(|name| vec![name.clone()]).collect();
        let listening = |list: &[super::model::Socket]| {
            list.iter().map(|it| vec![it.unit.clone(), it.kind.clone(), it.address.clone()]).collect()
        };
        let powers = |list: &[super::model::PrivilegedFile]| {
            list.iter().map(|it| vec![it.path.clone(), rights(&it.rights)]).collect()
        };
        let powers_changed = privileged.changed.iter().map(|it| {
            let content = if it.content { "content" } else { "" };
            vec![it.path.clone(), arrow(&rights(&it.from), &rights(&it.to)), content.to_owned()]
        });
        let size = &difference.size;
        let files = &difference.files;
        vec![
            Section {
                title: "Size",
                counts: String::new(),
                rows: Change::between(size.from, size.to).iter().map(size_row).collect(),
            },
            packages(&difference.packages),
            Section::new(
                "Setuid, setgid and capabilities",
                vec![
                    ("added", "+", powers(&privileged.added)),
                    ("removed", "-", powers(&privileged.removed)),
                    ("changed", "~", powers_changed.collect()),
                ],
            ),
            accounts("Users", &difference.users),
            accounts("Groups", &difference.groups),
            Section::new(
                "Units",
                vec![
                    ("enabled", "enabled", enabled(&units.enabled)),
                    ("disabled", "disabled", enabled(&units.disabled)),
                    ("masked", "masked", named(&units.masked)),
                    ("unmasked", "unmasked", named(&units.unmasked)),
                ],
            ),
            Section::new(
                "Listening sockets",
                vec![("added", "+", listening(&sockets.added)), ("removed", "-", listening(&sockets.removed))],
            ),
            Section::new(
                "Files",
                vec![
                    ("added", "+", files.added.iter().map(file_row).collect()),
                    ("removed", "-", files.removed.iter().map(file_row).collect()),
                    ("changed", "~", files.changed.iter().map(changed_row).collect()),
                ],
            ),
            Section {
                title: "Other files",
                counts: ": listed by --all-files".to_owned(),
                rows: files.grouped.iter().map(|it| vec![String::new(), it.name.clone(), tally(&it.tally)]).collect(),
            },
        ]
    }
}

fn size_row(size: &Change<u64>) -> Vec<String> {
    let grown = i64::try_from(size.to).unwrap_or(i64::MAX) - i64::try_from(size.from).unwrap_or(i64::MAX);
    vec![String::new(), arrow(&bytes(size.from), &bytes(size.to)), signed(grown)]
}

fn packages(packages: &Packages) -> Section {
    let lone =
        |list: &[Package]| list.iter().map(|it| vec![it.name.clone(), it.version.clone(), tally(&it.files)]).collect();
    let moved = |list: &[MovedPackage]| {
        let row = |it: &MovedPackage| vec![it.name.clone(), arrow(&it.version.from, &it.version.to), tally(&it.files)];
        list.iter().map(row).collect()
    };
    Section::new(
        "Packages",
        vec![
            ("added", "+", lone(&packages.added)),
            ("removed", "-", lone(&packages.removed)),
            ("upgraded", "upgraded", moved(&packages.upgraded)),
            ("downgraded", "downgraded", moved(&packages.downgraded)),
        ],
    )
}

fn accounts(title: &'static str, accounts: &Accounts) -> Section {
    let lone = |list: &[Account]| list.iter().map(|it| vec![it.name.clone(), it.id.clone()]).collect();
    let shown = |it: &super::model::ChangedField| format!("{} {}", it.field, arrow(&it.from, &it.to));
    let changed = accounts
        .changed
        .iter()
        .map(|it| vec![it.name.clone(), it.fields.iter().map(shown).collect::<Vec<_>>().join(", ")]);
    Section::new(
        title,
        vec![
            ("added", "+", lone(&accounts.added)),
            ("removed", "-", lone(&accounts.removed)),
            ("changed", "~", changed.collect()),
        ],
    )
}

fn file_row(file: &File) -> Vec<String> {
    let what = match (&file.contents, file.size, &file.target) {
        (Some(contents), ..) => format!("directory with {}", tally(contents)),
        (_, Some(size), _) => bytes(size),
        (_, _, Some(target)) => format!("-> {target}"),
        _ => kind(file.file_type).to_owned(),
    };
    // Every link has the same mode, which means nothing.
    let what = if file.target.is_some() { what } else { format!("{} {}  {what}", file.mode, file.owner) };
    vec![file.path.clone(), what, of_package(file.package.as_deref())]
}

fn changed_row(file: &ChangedFile) -> Vec<String> {
    let mut what = Vec::new();
    let mut tell = |name: &str, from: &str, to: &str| what.push(format!("{name} {}", arrow(from, to)));
    if let Some(change) = &file.file_type {
        tell("type", kind(change.from), kind(change.to));
    }
    for (name, change) in [("mode", &file.mode), ("owner", &file.owner), ("target", &file.target)] {
        if let Some(change) = change {
            tell(name, &change.from, &change.to);
        }
    }
    if let Some(change) = &file.device {
        tell("device", &change.from.to_string(), &change.to.to_string());
    }
    if let Some(change) = &file.capabilities {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
        tell("capabilities", &shown(&change.from), &shown(&change.to));
    }
    match &file.size {
        Some(change) => tell("content", &bytes(change.from), &bytes(change.to)),
        None if file.content => what.push("content".to_owned()),
        None => {}
    }
    vec![file.path.clone(), what.join(", "), of_package(file.package.as_deref())]
}

fn of_package(package: Option<&str>) -> String {
    package.map(|package| format!("[{package}]")).unwrap_or_default()
}

fn rights(rights: &Rights) -> String {
    let capabilities = rights.capabilities.as_ref().map(|value| format!(" capabilities {value}"));
    format!("{} {}{}", rights.mode, rights.owner, capabilities.unwrap_or_default())
}

fn kind(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Link => "link",
        FileKind::Pipe => "pipe",
        FileKind::Socket => "socket",
        FileKind::BlockDevice => "block device",
        FileKind::CharacterDevice => "character device",
        FileKind::Unknown => "unknown",
    }
}

fn tally(tally: &Tally) -> String {
    let counts = [(tally.added, "added"), (tally.removed, "removed"), (tally.changed, "changed")];
    let mut parts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}")).collect();
    if tally.bytes != 0 {
        parts.push(signed(tally.bytes));
    }
    parts.join(", ")
}

fn arrow(from: &str, to: &str) -> String {
    format!("{from} -> {to}")
}

fn signed(grown: i64) -> String {
    format!("{}{}", if grown < 0 { '-' } else { '+' }, bytes(grown.unsigned_abs()))
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn bytes(count: u64) -> String {
    match count {
        ..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{:.1} KiB", count as f64 / 1024.0),
        _ => format!("{:.1} MiB", count as f64 / 1_048_576.0),
    }
}
