//! What a diff says: the JSON document.

use serde::{Deserialize, Serialize};

/// Version of the document's form. It goes up when a reader of the old form would read something wrong.
pub(crate) const SCHEMA_VERSION: u32 = 1;

/// What changed from one image to another. All lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) schema_version: u32,
    /// The older image.
    pub(crate) from: ImageName,
    /// The newer one.
    pub(crate) to: ImageName,
    #[serde(flatten)]
    pub(crate) difference: Difference,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageName {
    pub(crate) id: String,
    pub(crate) name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// Bytes in use on the root file system.
    pub(crate) size: Change<u64>,
    pub(crate) packages: Packages,
    pub(crate) files: Files,
    pub(crate) units: Units,
    pub(crate) users: Accounts,
    pub(crate) groups: Accounts,
    pub(crate) sockets: Listed<Socket>,
    /// Files that give rights to who runs them: setuid, setgid, capabilities.
    pub(crate) privileged: Privileged,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change<T> {
    pub(crate) from: T,
    pub(crate) to: T,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed<T> {
    pub(crate) added: Vec<T>,
    pub(crate) removed: Vec<T>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Packages {
    pub(crate) added: Vec<Package>,
    pub(crate) removed: Vec<Package>,
    pub(crate) upgraded: Vec<MovedPackage>,
    pub(crate) downgraded: Vec<MovedPackage>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Package {
    /// As dpkg names it: with the architecture where several can be installed side by side.
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) version: String,
    /// Its files that came or went, which are not listed one by one.
    pub(crate) files: Tally,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MovedPackage {
    pub(crate) name: String,
    pub(crate) architecture: String,
    pub(crate) version: Change<String>,
    pub(crate) files: Tally,
}

/// How many things changed where they are not listed one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    pub(crate) added: u64,
    pub(crate) removed: u64,
    pub(crate) changed: u64,
    /// By how many bytes the regular files among them grew, all together.
    pub(crate) bytes: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    pub(crate) added: Vec<File>,
    pub(crate) removed: Vec<File>,
    pub(crate) changed: Vec<ChangedFile>,
    /// What changes whenever an image is provisioned, counted by kind.
    pub(crate) grouped: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct File {
    pub(crate) path: String,
    #[serde(rename = "type")]
    pub(crate) file_type: FileKind,
    /// Four octal digits.
    pub(crate) mode: String,
    /// Numbers of user and group, as in `0:0`.
    pub(crate) owner: String,
    /// In bytes; of regular files only.
    pub(crate) size: Option<u64>,
    /// Where a symbolic link leads.
    pub(crate) target: Option<String>,
    /// The package that has it.
    pub(crate) package: Option<String>,
    /// What came or went with this directory, where that is too much to be listed.
    pub(crate) contents: Option<Tally>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FileKind {
    File,
    Directory,
    Link,
    Pipe,
    Socket,
    BlockDevice,
    CharacterDevice,
    Unknown,
}

/// A file that is in both; what is `null` is the same in both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedFile {
    pub(crate) path: String,
    pub(crate) package: Option<String>,
    #[serde(rename = "type")]
    pub(crate) file_type: Option<Change<FileKind>>,
    pub(crate) mode: Option<Change<String>>,
    pub(crate) owner: Option<Change<String>>,
    pub(crate) size: Option<Change<u64>>,
    /// Whether the content differs; so it does where the size does.
    pub(crate) content: bool,
    pub(crate) target: Option<Change<String>>,
    /// Capabilities as the kernel stores them, in hexadecimal.
    pub(crate) capabilities: Option<Change<Option<String>>>,
    /// Number of a device node.
    pub(crate) device: Option<Change<u64>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) tally: Tally,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Units {
    pub(crate) enabled: Vec<EnabledUnit>,
    pub(crate) disabled: Vec<EnabledUnit>,
    pub(crate) masked: Vec<String>,
    pub(crate) unmasked: Vec<String>,
}

/// A unit, and what pulls it in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct EnabledUnit {
    pub(crate) unit: String,
    /// Such as `multi-user.target`.
    pub(crate) by: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Accounts {
    pub(crate) added: Vec<Account>,
    pub(crate) removed: Vec<Account>,
    pub(crate) changed: Vec<ChangedAccount>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Account {
    pub(crate) name: String,
    /// Its number.
    pub(crate) id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedAccount {
    pub(crate) name: String,
    /// The fields that differ. Of a password nothing is said but whether there is one.
    pub(crate) fields: Vec<ChangedField>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangedField {
    pub(crate) field: String,
    pub(crate) from: String,
    pub(crate) to: String,
}

/// An address that an enabled socket unit listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Socket {
    pub(crate) unit: String,
    /// The setting, such as `ListenStream`.
    pub(crate) kind: String,
    pub(crate) address: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Privileged {
    pub(crate) added: Vec<PrivilegedFile>,
    pub(crate) removed: Vec<PrivilegedFile>,
    pub(crate) changed: Vec<PrivilegedChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivilegedFile {
    pub(crate) path: String,
    #[serde(flatten)]
    pub(crate) rights: Rights,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rights {
    pub(crate) mode: String,
    pub(crate) owner: String,
    /// As the kernel stores them, in hexadecimal.
    pub(crate) capabilities: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PrivilegedChange {
    pub(crate) path: String,
    pub(crate) from: Rights,
    pub(crate) to: Rights,
    /// Whether the program itself is another one.
    pub(crate) content: bool,
}

impl<T> Default for Listed<T> {
    fn default() -> Self {
        Self { added: Vec::new(), removed: Vec::new() }
    }
}

impl<T: PartialEq> Change<T> {
    /// `None` if both are the same.
    pub(crate) fn between(from: T, to: T) -> Option<Self> {
        (from != to).then_some(Self { from, to })
    }
}

impl Difference {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self { size: Change { from: self.size.to, to: self.size.to }, ..Self::default() }
    }
}
