//! What changed between two images.

mod accounts;
mod changes;
mod configuration;
mod model;
mod owners;
mod packages;
mod privileged;
mod sockets;
mod sorting;
mod text;
mod tree;
mod units;

use std::path::Path;
use std::thread;

use anyhow::{Result, anyhow};
use provider::{Images, RegisteredImage};

pub(crate) use model::Document;
use model::{Change, Difference, ImageName, SCHEMA_VERSION};
use tree::Tree;

/// Compares the root file systems of two images.
///
/// With `all_files`, files of packages that came or went and what always changes are listed one by one as well.
pub(crate) async fn between(
    provider: &impl Images,
    from: &RegisteredImage,
    to: &RegisteredImage,
    all_files: bool,
) -> Result<Document> {
    let difference = provider.with_roots([&from.id, &to.id], |[old, new]| compare(old, new, all_files)).await?;
    let named = |image: &RegisteredImage| ImageName { id: image.id.clone(), name: image.name.clone() };
    Ok(Document { schema_version: SCHEMA_VERSION, from: named(from), to: named(to), difference })
}

/// Compares two mounted root file systems.
fn compare(old: &Path, new: &Path, all_files: bool) -> Result<Difference> {
    let (old, new) = load(old, new)?;
    let changes = changes::between(&old, &new)?;
    let mut packages = packages::between(&packages::installed(&old)?, &packages::installed(&new)?);
    let owners = owners::of(&changes, &old, &new)?;
    let altered = configuration::altered(&changes, &new)?;
    let files = sorting::sort(&changes, &owners, &altered, &mut packages, all_files);
    Ok(Difference {
        size: Change { from: old.used, to: new.used },
        packages,
        files,
        units: units::between(&units::State::of(&old)?, &units::State::of(&new)?),
        users: accounts::between(&accounts::users(&old)?, &accounts::users(&new)?),
        groups: accounts::between(&accounts::groups(&old)?, &accounts::groups(&new)?),
        sockets: sockets::between(&sockets::listening(&old)?, &sockets::listening(&new)?),
        privileged: privileged::between(&changes),
    })
}

/// Reads both trees at once.
fn load(old: &Path, new: &Path) -> Result<(Tree, Tree)> {
    thread::scope(|scope| {
        let old = scope.spawn(|| Tree::load(old));
        let new = Tree::load(new)?;
        let old = old.join().unwrap_or_else(|_| Err(anyhow!("the thread that read the older image ended early")))?;
        Ok((old, new))
    })
}

#[cfg(test)]
mod tests;
