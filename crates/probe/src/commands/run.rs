//! `probe run`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use probe::report::{Report, frame, is_nonce, listing};
use probe::{checks, system};
use rustix::fs::OFlags;

use super::{FAILED, load};

/// A getty that starts on the console hangs it up and discards what was written and not yet read
/// (agetty(8), vhangup(2)): a copy at another moment is not lost with the first.
const BETWEEN_COPIES: Duration = Duration::from_secs(1);

/// Check this machine and report.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The gossfile.
    #[arg(long, value_name = "PATH")]
    gossfile: PathBuf,
    /// Report as lines for a machine to read from a console, marked with this word
    /// of letters, digits and dashes.
    #[arg(long, value_parser = nonce)]
    nonce: Option<String>,
    /// Where to report, such as /dev/console, instead of standard output.
    #[arg(long, value_name = "PATH")]
    console: Option<PathBuf>,
    /// Wait until systemd has booted the machine, at most so long. Not from a unit
    /// that the boot itself waits for, such as one of `Type=oneshot`.
    #[arg(long, value_name = "SECONDS")]
    wait_system: Option<u32>,
    /// How often to print the marked report, a second apart on a console: where that
    /// loses lines, copies repair each other.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, requires = "nonce")]
    copies: u8,
}

fn nonce(text: &str) -> Result<String, &'static str> {
    if is_nonce(text) { Ok(text.to_owned()) } else { Err("use 1 to 64 letters, digits and dashes") }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let gossfile = match load(&arguments.gossfile) {
        Ok(gossfile) => gossfile,
        Err(error) => {
            // Whoever reads the console would wait for a report in vain.
            if arguments.nonce.is_some() {
                write(&Report::broken(error.to_string()), arguments)?;
            }
            return Err(error.into());
        }
    };
    let state = arguments.wait_system.map(|seconds| system::wait(Duration::from_secs(seconds.into())));
    let (date, started) = (SystemTime::now(), Instant::now());
    let results = checks::run(&gossfile);
    let report = Report::new(date, started.elapsed(), state, results);
    write(&report, arguments)?;
    Ok(if report.is_good() { ExitCode::SUCCESS } else { FAILED.into() })
}

fn write(report: &Report, arguments: &Arguments) -> Result<()> {
    let text = match &arguments.nonce {
        Some(nonce) => frame(report, nonce),
        None => listing(report),
    };
    let Some(path) = &arguments.console else {
        let copies = text.repeat(arguments.copies.into());
        return io::stdout().write_all(copies.as_bytes()).context("cannot write the report to standard output");
    };
    let mut written = write_to(path, &text);
    for _ in 1..arguments.copies {
        thread::sleep(BETWEEN_COPIES);
        // One that arrives is enough.
        written = write_to(path, &text).or(written);
    }
    written.with_context(|| format!("cannot write the report to {}", path.display()))
}

fn write_to(console: &Path, text: &str) -> io::Result<()> {
    let mut console = OpenOptions::new()
        .append(true)
        .create(true)
        // A console must not become the terminal that this process answers to.
        .custom_flags(OFlags::NOCTTY.bits().cast_signed())
        .open(console)?;
    console.write_all(text.as_bytes())?;
    console.flush()
}
