//! What a builder starts from: an image by its name or by what it is like, or nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::narrate;
use provider::ImageFilter;

use super::builder::Names;
use super::{Options, Values};

/// What a builder starts from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// An image by id, name or alias.
    Named(String),
    /// The image that is like this; the newest of several if `most_recent`.
    Filtered { filter: ImageFilter, most_recent: bool },
    /// An empty volume, which the builder's own commands fill.
    Scratch,
}

/// Options that a volume from scratch needs, beside those that are each builder's own.
const FOR_SCRATCH: &[&str] = &["root_volume_size", "pre_mount_commands"];
const FOR_SCRATCH_ON_AMAZON: &[&str] = &["root_device_name", "ami_block_device_mappings"];

impl Source {
    /// Reads it, with the line that says so: the rest of the builder may ask for what the image is.
    pub(crate) fn read(options: &mut Options, values: &Values) -> Result<(Self, usize)> {
        let names = Names::of(options);
        let scratch_line = options.line_of("from_scratch");
        let scratch = options.bool("from_scratch")?.unwrap_or(false);
        let line = options.line_of(names.source);
        let named = options.string(names.source)?.filter(|name| !name.is_empty());
        let filter_line = options.line_of(names.source_filter);
        let filter = options.node(names.source_filter);
        match (scratch, named, filter) {
            (true, None, None) => {
                let amazon = if names.is_amazon() { FOR_SCRATCH_ON_AMAZON } else { &[] };
                let needed = FOR_SCRATCH.iter().chain(amazon).chain([&names.virtualization_type]);
                match needed.into_iter().find(|name| !options.has(name)) {
                    None if options.clone().number("root_volume_size")? == Some(0) => {
                        let line = options.line_of("root_volume_size");
                        let why =
                            "a volume of 0 GiB holds nothing, and from scratch there is no source to be as large as";
                        Err(options.fault(line, why, "write how many GiB it is to have").into())
                    }
                    None => Ok((Self::Scratch, scratch_line)),
                    Some(missing) => {
                        let why = format!("a builder with 'from_scratch' needs the option '{missing}'");
                        Err(options.fault(scratch_line, why, format!("add \"{missing}\": …")).into())
                    }
                }
            }
            (false, Some(name), None) => match values.interpolate(&name) {
                Ok(name) => Ok((Self::Named(name), line)),
                Err(why) => Err(options.fault(line, format!("{}: {why}", names.source), "mend it").into()),
            },
            (false, None, Some(filter)) => {
                let mut filter = Options::of(options.file(), names.source_filter, filter)?;
                Ok((Self::read_filter(&mut filter, values)?, filter_line))
            }
            (false, None, None) => {
                let why = format!("{} needs the option '{}'", options.what(), names.source);
                Err(options.fault(options.line(), why, format!("add \"{}\": …", names.source)).into())
            }
            _ => {
                let why =
                    format!("'{}', '{}' and 'from_scratch' exclude each other", names.source, names.source_filter);
                Err(options.fault(options.line(), why, "keep one of them").into())
            }
        }
    }

    fn read_filter(options: &mut Options, values: &Values) -> Result<Self> {
        let line = options.line_of("filters");
        let mut filters = BTreeMap::new();
        let Some(node) = options.node("filters") else {
            let why = format!("{} needs 'filters'", options.what());
            return Err(options.fault(options.line(), why, "add \"filters\": {\"name\": \"…\"}").into());
        };
        let mut written = Options::of(options.file(), "'filters'", node)?;
        for (name, line, node) in written.rest() {
            let texts = written.texts_of(&name, node)?.into_iter().map(|text| values.interpolate(&text));
            let texts: Result<Vec<_>, _> = texts.collect();
            filters.insert(name, texts.map_err(|why| written.fault(line, why, "mend it"))?);
        }
        if filters.is_empty() {
            let why = "'filters' has no filter: every image would do";
            return Err(options.fault(line, why, "add one, such as \"name\"").into());
        }
        let owners = options.strings("owners")?;
        if owners.iter().any(|owner| owner != "self") {
            narrate::note("owners: only used with --provider aws");
        }
        let most_recent = options.bool("most_recent")?.unwrap_or(false);
        options.clone().finish()?;
        Ok(Self::Filtered { filter: ImageFilter { filters, owners }, most_recent })
    }
}
