//! The program that goes into instances.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;
use elf::ElfBytes;
use elf::abi::PT_INTERP;
use elf::endian::AnyEndian;

const HOW_TO_BUILD: &str = "build it with `RUSTFLAGS=\"-C target-feature=+crt-static\" cargo build --package probe \
--target x86_64-unknown-linux-gnu` (`cargo xtask pipeline` does) and name it with --probe";

/// The probe that was named, or else the one beside this program.
///
/// Bad input if there is none, or if it needs libraries: an image need not have them, or has others.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf> {
    let path = match named {
        Some(path) => path.to_owned(),
        None => std::env::current_exe().context("finding the running program")?.with_file_name("probe"),
    };
    let refuse = |why: &str| BadInput::new("finding the probe", why, HOW_TO_BUILD).in_file(&path);
    let content = match fs::read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(refuse("there is no such file").into());
        }
        Err(error) => return Err(error).with_context(|| format!("reading the probe {}", path.display())),
    };
    match interpreter(&content) {
        Some(false) => Ok(path),
        Some(true) => Err(refuse("it is linked dynamically, and an image need not have its libraries").into()),
        None => Err(refuse("it is not an ELF program").into()),
    }
}

/// Whether the program asks for a dynamic linker (elf(5), `PT_INTERP`); `None` if it is no program.
fn interpreter(content: &[u8]) -> Option<bool> {
    let program = ElfBytes::<AnyEndian>::minimal_parse(content).ok()?;
    Some(program.segments()?.iter().any(|segment| segment.p_type == PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_is_refused_with_the_way_to_build_a_static_one() {
        let this = std::env::current_exe().unwrap();
        let refusal = find(Some(&this)).unwrap_err();
        assert!(refusal.is::<BadInput>());
        let message = refusal.to_string();
        assert!(message.contains("linked dynamically") && message.contains("+crt-static"), "{message}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, "#!/bin/sh\n").unwrap();
        assert!(find(Some(file.path())).unwrap_err().to_string().contains("not an ELF program"));
        assert!(find(Some(Path::new("/nonexistent/probe"))).unwrap_err().to_string().contains("no such file"));
    }

    /// The smallest 64-bit program headers that say it: one segment that is loaded, or one that names a linker.
    #[test]
    fn a_program_without_interpreter_is_static() {
        let program = |segment: u32| {
            let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
            bytes.resize(16, 0);
            // e_type, e_machine, e_version; e_entry, e_phoff, e_shoff (elf(5)).
            bytes.extend([2, 0, 62, 0, 1, 0, 0, 0]);
            bytes.extend([0u64, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
            // e_flags; e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
            bytes.extend(0u32.to_le_bytes());
            bytes.extend([64u16, 56, 1, 0, 0, 0].iter().flat_map(|half| half.to_le_bytes()));
            bytes.extend(segment.to_le_bytes());
            bytes.resize(64 + 56, 0);
            bytes
        };
        let load = 1;
        assert_eq!(interpreter(&program(load)), Some(false));
        assert_eq!(interpreter(&program(PT_INTERP)), Some(true));
    }
}
