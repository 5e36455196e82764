//! The options of an amazon-chroot builder that mean something on AWS only: one template serves both providers.

use std::collections::BTreeMap;

use anyhow::Result;
use jiff::Timestamp;
use manifest::{Account, BlockDevice, Medium, Protection, Publication, Role, Sharing};
use provider::{Access, AccessKeys};

use super::{Options, Values};

/// What such a builder says of its volume and its image.
#[derive(Debug, Clone, Default)]
pub(crate) struct Amazon {
    /// Names of the options that are written and mean something only while it is built on AWS.
    pub(crate) of_build: Vec<&'static str>,
    /// Names of those that are written and mean something wherever its image is on AWS.
    pub(crate) of_image: Vec<&'static str>,
    /// What the volume is kept on.
    pub(crate) medium: Medium,
    /// What it is attached as, if not as what is free.
    pub(crate) device: Option<String>,
    /// Tags of the volume.
    pub(crate) volume_tags: BTreeMap<String, String>,
    /// What the image is, beside its name and tags.
    pub(crate) publication: Publication,
}

/// Those that are of no use to an image which is built elsewhere and published: its manifest has no keys, and nothing is
/// attached.
const OF_BUILD: &[&str] =
    &["access_key", "secret_key", "token", "skip_region_validation", "device_path", "root_volume_tags"];
/// All others but `region`, which a template is told on either provider.
const OF_IMAGE: &[&str] = &[
    "profile",
    "assume_role",
    "custom_endpoint_ec2",
    "ami_regions",
    "ami_users",
    "ami_groups",
    "ami_org_arns",
    "ami_ou_arns",
    "ami_product_codes",
    "snapshot_users",
    "snapshot_groups",
    "snapshot_tags",
    "root_device_name",
    "ami_block_device_mappings",
    "root_volume_type",
    "root_volume_encrypt_boot",
    "root_volume_kms_key_id",
    "encrypt_boot",
    "kms_key_id",
    "region_kms_key_ids",
    "force_delete_snapshot",
    "ena_support",
    "sriov_support",
    "boot_mode",
    "imds_support",
    "uefi_data",
    "tpm_support",
    "deprecate_at",
    "deregistration_protection",
];

/// In whose name the builder works, and where. It decides where its source is looked for.
pub(super) fn access(reading: &mut Reading) -> Result<Access> {
    let line = reading.options.line_of("access_key");
    let (id, secret) = (reading.text("access_key")?, reading.text("secret_key")?);
    let token = reading.text("token")?;
    let keys = match (id, secret) {
        (Some(id), Some(secret)) => Some(AccessKeys { id, secret, token }),
        (None, None) if token.is_none() => None,
        _ => {
            let why = "'access_key' and 'secret_key' belong together, and 'token' to both";
            return Err(reading.options.fault(line, why, "write both, or none of them").into());
        }
    };
    // There is no list of regions here that a region could be missing from.
    reading.options.bool("skip_region_validation")?;
    let account = Account {
        region: reading.text("region")?,
        profile: reading.text("profile")?,
        endpoint: reading.text("custom_endpoint_ec2")?,
        role: role(reading)?,
    };
    Ok(Access { account, keys })
}

fn role(reading: &mut Reading) -> Result<Option<Role>> {
    let Some(mut written) = reading.object("assume_role")? else { return Ok(None) };
    let mut inner = Reading { options: &mut written, values: reading.values };
    let Some(arn) = inner.text("role_arn")? else {
        let why = "'assume_role' needs the option 'role_arn'";
        return Err(inner.options.fault(inner.options.line(), why, "add \"role_arn\": …").into());
    };
    inner.options.refuse("transitive_tag_keys", "remove it: the role takes no other role from here")?;
    let role = Role {
        arn,
        session: inner.text("session_name")?,
        external_id: inner.text("external_id")?,
        seconds: inner.options.number("duration_seconds")?.map(u64::from),
        policy: inner.text("policy")?,
        policies: inner.texts("policy_arns")?,
        tags: inner.tags("tags")?,
    };
    written.finish()?;
    Ok(Some(role))
}

impl Amazon {
    /// Reads them.
    pub(super) fn read(reading: &mut Reading) -> Result<Self> {
        let written = |names: &[&'static str]| names.iter().copied().filter(|name| reading.options.has(name)).collect();
        let (of_build, of_image) = (written(OF_BUILD), written(OF_IMAGE));
        let (encrypted, key) = key(reading, "encrypt_boot", "kms_key_id")?;
        let (volume_encrypted, volume_key) = key_of_volume(reading)?;
        let medium = Medium {
            kind: reading.text("root_volume_type")?,
            // An encrypted volume makes an encrypted image, without the copy that Packer makes for it.
            encrypted: encrypted || volume_encrypted,
            key: key.or(volume_key),
        };
        Ok(Self {
            of_build,
            of_image,
            medium,
            device: reading.text("device_path")?,
            volume_tags: reading.tags("root_volume_tags")?,
            publication: publication(reading, encrypted)?,
        })
    }
}

fn key_of_volume(reading: &mut Reading) -> Result<(bool, Option<String>)> {
    key(reading, "root_volume_encrypt_boot", "root_volume_kms_key_id")
}

/// Whether something is encrypted, and with which key.
fn key(reading: &mut Reading, whether: &'static str, with: &'static str) -> Result<(bool, Option<String>)> {
    let encrypted = reading.options.bool(whether)?.unwrap_or(false);
    let line = reading.options.line_of(with);
    let key = reading.text(with)?;
    if key.is_some() && !encrypted {
        let why = format!("'{with}' is a key for nothing without '{whether}'");
        return Err(reading.options.fault(line, why, format!("add \"{whether}\": true, or remove it")).into());
    }
    Ok((encrypted, key))
}

fn publication(reading: &mut Reading, encrypted: bool) -> Result<Publication> {
    let imds = reading.one_of("imds_support", &["v2.0", ""])?;
    Ok(Publication {
        root_device: reading.text("root_device_name")?,
        devices: devices(reading)?,
        ena: reading.options.bool("ena_support")?,
        sriov: reading.options.bool("sriov_support")?,
        boot_mode: reading.one_of("boot_mode", &["legacy-bios", "uefi", "uefi-preferred"])?,
        uefi_data: reading.text("uefi_data")?,
        tpm: reading.one_of("tpm_support", &["v2.0"])?,
        metadata_without_token: imds.as_deref() == Some(""),
        regions: regions(reading, encrypted)?,
        encrypted,
        snapshot_tags: reading.tags("snapshot_tags")?,
        sharing: Sharing {
            users: reading.texts("ami_users")?,
            groups: reading.texts("ami_groups")?,
            organizations: reading.texts("ami_org_arns")?,
            units: reading.texts("ami_ou_arns")?,
            product_codes: reading.texts("ami_product_codes")?,
            snapshot_users: reading.texts("snapshot_users")?,
            snapshot_groups: reading.texts("snapshot_groups")?,
        },
        deprecate_at: moment(reading, "deprecate_at")?,
        protection: protection(reading)?,
        delete_replaced_snapshots: reading.options.bool("force_delete_snapshot")?.unwrap_or(false),
        // It has another name with each type of builder.
        description: None,
    })
}

fn regions(reading: &mut Reading, encrypted: bool) -> Result<BTreeMap<String, Option<String>>> {
    let mut regions: BTreeMap<_, _> = reading.texts("ami_regions")?.into_iter().map(|region| (region, None)).collect();
    let line = reading.options.line_of("region_kms_key_ids");
    for (region, key) in reading.tags("region_kms_key_ids")? {
        let known = regions.get_mut(&region).filter(|_| encrypted);
        let Some(known) = known else {
            let why = if encrypted {
                format!("'region_kms_key_ids' has a key for {region}, which 'ami_regions' does not name")
            } else {
                "'region_kms_key_ids' has keys for nothing without 'encrypt_boot'".to_owned()
            };
            return Err(reading.options.fault(line, why, "add what is missing, or remove the key").into());
        };
        *known = Some(key).filter(|key| !key.is_empty());
    }
    Ok(regions)
}

fn devices(reading: &mut Reading) -> Result<Vec<BlockDevice>> {
    let mut devices = Vec::new();
    for node in reading.options.objects("ami_block_device_mappings")? {
        let mut written = Options::of(reading.options.file(), "a block device mapping", node)?;
        let mut inner = Reading { options: &mut written, values: reading.values };
        let device = BlockDevice {
            name: inner.options.required("device_name")?,
            virtual_name: inner.text("virtual_name")?,
            absent: inner.options.bool("no_device")?.unwrap_or(false),
            snapshot: inner.text("snapshot_id")?,
            size: inner.options.number("volume_size")?,
            kind: inner.text("volume_type")?,
            iops: inner.options.number("iops")?,
            throughput: inner.options.number("throughput")?,
            encrypted: inner.options.bool("encrypted")?,
            key: inner.text("kms_key_id")?,
            delete_on_termination: inner.options.bool("delete_on_termination")?.unwrap_or(false),
        };
        written.finish()?;
        devices.push(device);
    }
    Ok(devices)
}

fn protection(reading: &mut Reading) -> Result<Option<Protection>> {
    let Some(mut written) = reading.object("deregistration_protection")? else { return Ok(None) };
    let enabled = written.bool("enabled")?.unwrap_or(false);
    let cooldown = written.bool("with_cooldown")?.unwrap_or(false);
    written.finish()?;
    Ok(enabled.then_some(if cooldown { Protection::AfterCooldown } else { Protection::Lifted }))
}

fn moment(reading: &mut Reading, name: &'static str) -> Result<Option<Timestamp>> {
    let line = reading.options.line_of(name);
    let Some(text) = reading.text(name)? else { return Ok(None) };
    let moment = text.parse();
    let fault = |_| reading.options.fault(line, format!("'{text}' is not a time"), "write it as 2030-01-31T12:00:00Z");
    Ok(Some(moment.map_err(fault)?))
}

/// Options, and what is filled in for the braces in them.
pub(super) struct Reading<'a> {
    pub(super) options: &'a mut Options,
    pub(super) values: &'a Values,
}

impl Reading<'_> {
    /// A text; an empty one is as none.
    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>> {
        let line = self.options.line_of(name);
        let text = self.options.string(name)?.map(|text| self.fill(line, name, &text)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    fn texts(&mut self, name: &'static str) -> Result<Vec<String>> {
        let line = self.options.line_of(name);
        self.options.strings(name)?.iter().map(|text| self.fill(line, name, text)).collect()
    }

    /// An object of texts, whose names are filled in as well.
    pub(super) fn tags(&mut self, name: &'static str) -> Result<BTreeMap<String, String>> {
        let line = self.options.line_of(name);
        let written = self.options.string_map(name)?;
        let filled =
            written.iter().map(|(key, value)| Ok((self.fill(line, name, key)?, self.fill(line, name, value)?)));
        filled.collect()
    }

    fn object(&mut self, name: &'static str) -> Result<Option<Options>> {
        let node = self.options.node(name);
        node.map(|node| Options::of(self.options.file(), format!("'{name}'"), node)).transpose()
    }

    fn one_of(&mut self, name: &'static str, allowed: &[&str]) -> Result<Option<String>> {
        let line = self.options.line_of(name);
        let text = self.options.string(name)?.map(|text| self.fill(line, name, &text)).transpose()?;
        match text {
            Some(other) if !allowed.contains(&other.as_str()) => {
                let allowed = allowed.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" or ");
                let why = format!("'{name}' cannot be '{other}'");
                Err(self.options.fault(line, why, format!("use {allowed}")).into())
            }
            text => Ok(text),
        }
    }

    fn fill(&self, line: usize, name: &str, text: &str) -> Result<String> {
        let filled = self.values.interpolate(text);
        filled.map_err(|why| self.options.fault(line, format!("{name}: {why}"), "mend it").into())
    }
}
