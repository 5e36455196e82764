//! What an image on AWS is kept on and registered with, who may use it, and in whose name that is done.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a volume, or the snapshot of an image, is kept on at AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Medium {
    /// The type of volume, such as `gp3`, if not the source's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Whether it is encrypted even where its source is not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// The key that it is encrypted with, if not the account's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

impl Medium {
    /// Whether it is what AWS takes by itself.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What an image on AWS is beside its name and its tags. On the local provider none of it means anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Publication {
    /// A description for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Name of the device that has the root, if not the source's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root_device: Option<String>,
    /// The devices that an instance is given, in place of the source's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<BlockDevice>,
    /// Whether it knows the Elastic Network Adapter, if not as the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ena: Option<bool>,
    /// Whether it knows the Intel 82599 virtual function, if not as the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sriov: Option<bool>,
    /// `legacy-bios`, `uefi` or `uefi-preferred`, if not the source's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_mode: Option<String>,
    /// The non-volatile UEFI variable store, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uefi_data: Option<String>,
    /// `v2.0` if it has a trusted platform module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tpm: Option<String>,
    /// Whether its instances answer metadata requests without a token, unless they are told otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub metadata_without_token: bool,
    /// Regions that it is copied to, and the key that each copy is encrypted with, if it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub regions: BTreeMap<String, Option<String>>,
    /// Whether copies are encrypted even without a key of their own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub encrypted: bool,
    /// Tags of its snapshots, beside its own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshot_tags: BTreeMap<String, String>,
    /// Who may use it, beside its owner.
    #[serde(skip_serializing_if = "Sharing::is_none")]
    pub sharing: Sharing,
    /// When it stops being shown to others than its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub deprecate_at: Option<Timestamp>,
    /// Whether it cannot be deregistered; `after_cooldown` means also not for a day after that was lifted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
    /// Whether the snapshots of an image whose name it takes over are deleted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delete_replaced_snapshots: bool,
}

/// A device of an image that is not its root, or the root with other properties than its volume's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BlockDevice {
    /// Such as `/dev/sdb`.
    pub name: String,
    /// Such as `ephemeral0`: an instance's own disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub virtual_name: Option<String>,
    /// The source has such a device, and this image does not.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub absent: bool,
    /// The snapshot that it is made from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<String>,
    /// Its size in GiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u32>,
    /// Such as `gp3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Operations a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iops: Option<u32>,
    /// MiB a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throughput: Option<u32>,
    /// Whether it is encrypted, where it has no snapshot that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encrypted: Option<bool>,
    /// The key that it is encrypted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Whether it goes when its instance goes.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub delete_on_termination: bool,
}

/// Who may use an image, beside its owner.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sharing {
    /// Accounts that may launch it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// `all`: everybody may launch it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// ARNs of organizations whose accounts may launch it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub organizations: Vec<String>,
    /// ARNs of organizational units whose accounts may launch it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<String>,
    /// Codes under which it is sold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub product_codes: Vec<String>,
    /// Accounts that may make volumes of its snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshot_users: Vec<String>,
    /// `all`: everybody may make volumes of its snapshots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub snapshot_groups: Vec<String>,
}

impl Sharing {
    /// Whether nobody else may use it.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// What keeps an image from being deregistered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Protection {
    /// Until that is lifted.
    Lifted,
    /// Until a day after that is lifted.
    AfterCooldown,
}

/// In whose name a builder works on AWS, and where, as far as that differs from the environment. It holds no secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Account {
    /// The region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// A profile of the shared configuration files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// Where EC2 answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// A role that is taken first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
}

impl Account {
    /// Whether all is as the environment has it.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A role that is taken with AssumeRole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Role {
    /// Its ARN.
    pub arn: String,
    /// What the session is called in its account's logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// What the role's account demands to be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// How many seconds the credentials are valid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
    /// A policy, as JSON, that takes permissions away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// ARNs of policies that take permissions away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Tags of the session.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}
