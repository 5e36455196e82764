//! Errors in what a user wrote.

use std::fmt;
use std::path::{Path, PathBuf};

use manifest::component::NotAService;

/// Something that a user wrote is wrong: exit code 2, and nothing was created.
///
/// Reads `reading the image template: image.json:12: unknown option 'playbook'; did you mean 'playbook_file'?`
#[derive(Debug)]
pub struct BadInput {
    doing: String,
    file: Option<PathBuf>,
    line: Option<usize>,
    why: String,
    remedy: String,
}

impl BadInput {
    /// `doing` is what was being done, `why` what is wrong, `remedy` what to do about it.
    pub fn new(doing: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { doing: doing.into(), file: None, line: None, why: why.into(), remedy: remedy.into() }
    }

    /// Names the file.
    pub fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Names the line, counted from 1, where it is known.
    pub fn at_line(mut self, line: impl Into<Option<usize>>) -> Self {
        self.line = line.into();
        self
    }
}

impl From<NotAService> for BadInput {
    fn from(error: NotAService) -> Self {
        Self::new(
            "reading the manifest",
            error.to_string(),
            "add them and build again, or install it by another's image",
        )
    }
}

impl fmt::Display for BadInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.doing)?;
        if let Some(file) = &self.file {
            write!(f, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        write!(f, "{}; {}", self.why, self.remedy)
    }
}

impl std::error::Error for BadInput {}
