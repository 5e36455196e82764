//! Which files are made from a key.

use std::collections::HashMap;

use super::batch::Batch;
use crate::managed_file::ManagedFile;

/// The files by the texts of their selectors. A key is looked up once for each of its parts, so a change costs the
/// same however many files there are.
#[derive(Debug)]
pub struct Readers {
    by_selector: HashMap<String, Vec<(usize, usize)>>,
}

impl Readers {
    /// The readers of all keys.
    pub fn of_all(batches: &[Batch], files: &[ManagedFile]) -> Self {
        let mut by_selector: HashMap<String, Vec<_>> = HashMap::new();
        for (at, batch) in batches.iter().enumerate() {
            for &file in &batch.files {
                for selector in files[file].selectors() {
                    by_selector.entry(selector.text().to_owned()).or_default().push((at, file));
                }
            }
        }
        Self { by_selector }
    }

    /// The files that are made from `key`, each with its batch.
    pub fn of(&self, key: &str) -> Vec<(usize, usize)> {
        // A prefix ends with a slash, and a key does not: they cannot be mistaken for one another.
        let prefixes = key.match_indices('/').map(|(at, _)| &key[..=at]);
        prefixes.chain([key]).filter_map(|text| self.by_selector.get(text)).flatten().copied().collect()
    }
}
