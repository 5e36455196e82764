//! Contents of disks in memory.
//!
//! A build looks at its volume and at what it was made from several times, and builders of one run start from the
//! same image. To map half a gigabyte takes as long as to compare it, so each file is mapped once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{Advice, Mmap};

/// How much is read at a time.
const PART: usize = 1 << 20;

/// The files that are mapped.
#[derive(Debug, Clone, Default)]
pub struct Contents(Arc<Mutex<BTreeMap<PathBuf, Arc<Mapped>>>>);

impl Contents {
    /// The content of the disk of an image, of a layer, or of a volume that nobody writes to while it is looked at.
    pub fn of(&self, path: &Path) -> io::Result<Arc<Mapped>> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(path).filter(|known| known.content.len() as u64 == length) {
            return Ok(known.clone());
        }
        // SAFETY: nobody makes these files shorter, or writes to them while they are looked at: the disks of images,
        // layers and complete volumes never change, and another volume's is this process's own, and is looked at
        // while it is not mounted.
        let mapped = Arc::new(Mapped::new(unsafe { Mmap::map(&file) }?));
        files.insert(path.to_owned(), mapped.clone());
        Ok(mapped)
    }

    /// Gives back the memory of files that nobody looks at any more: those below `directory`.
    pub fn forget(&self, directory: &Path) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.retain(|path, _| !path.starts_with(directory));
    }
}

/// A file's content, read as far as it is looked at.
#[derive(Debug)]
pub struct Mapped {
    content: Mmap,
    /// For each [`PART`], whether its pages are there.
    populated: Box<[AtomicBool]>,
}

impl Mapped {
    fn new(content: Mmap) -> Self {
        let parts = content.len().div_ceil(PART);
        Self { content, populated: (0..parts).map(|_| AtomicBool::new(false)).collect() }
    }

    /// A part of it.
    pub fn bytes(&self, range: Range<u64>) -> io::Result<&[u8]> {
        let [start, end] = [range.start, range.end].map(usize::try_from);
        let (start, end) = (start.map_err(io::Error::other)?, end.map_err(io::Error::other)?);
        let bytes = self.content.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        for part in start / PART..end.div_ceil(PART) {
            if !self.populated[part].swap(true, Ordering::Relaxed) {
                let at = part * PART;
                // One call for all pages of it; where the kernel cannot, each is a fault of its own.
                let _ = self.content.advise_range(Advice::PopulateRead, at, PART.min(self.content.len() - at));
            }
        }
        Ok(bytes)
    }
}
