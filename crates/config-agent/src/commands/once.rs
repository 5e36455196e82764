//! `config-agent once`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use similar::TextDiff;

use super::{block_on, load};
use crate::agent::{Agent, store_of};
use crate::exit::{EXIT_CODES, ExitCode, say};
use crate::managed_file::ManagedFile;
use crate::replace::current_access;
use crate::settings::{PATH, Span};
use crate::template::Templates;
use crate::values::Values;

/// Read the store, make every file once, reload who uses them, and exit.
#[derive(Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    /// The settings.
    #[arg(long, value_name = "FILE", default_value = PATH)]
    settings: PathBuf,

    /// Change nothing: print what would change as a diff, and exit with 1 if anything would. Values appear in it.
    #[arg(long)]
    noop: bool,

    /// How long the store may take.
    #[arg(long, value_name = "TIME", default_value = "30s")]
    timeout: Span,
}

/// Makes all files, or shows what would change.
pub fn run(args: &Args) -> Result<ExitCode> {
    let (settings, files, templates) = load(&args.settings)?;
    let store = store_of(&settings, &files);
    let timeout = Duration::from(args.timeout);
    let read = async || {
        let read = tokio::time::timeout(timeout, store.read()).await;
        read.with_context(|| format!("reading the store at {}: no answer within {timeout:?}", store.address()))?
    };
    if args.noop {
        let values = block_on(read())?;
        return show(&files, &templates, &values);
    }
    let agent = Agent::new(settings, files, templates)?;
    let problems = block_on(async { Ok(agent.once(read().await?).await) })?;
    if problems.is_empty() {
        return Ok(ExitCode::Done);
    }
    say(&format!("not everything is as it should be:\n  {}", problems.join("\n  ")));
    Ok(ExitCode::Verdict)
}

fn show(files: &[ManagedFile], templates: &Templates, values: &Values) -> Result<ExitCode> {
    let (mut differs, mut fails) = (false, false);
    for file in files {
        let used = file.used(values).map_err(|problem| problem.to_string());
        match used.and_then(|used| templates.render(&file.template, used.variables)) {
            Ok(content) => {
                let difference = difference(file, &content)?;
                differs |= !difference.is_empty();
                print!("{difference}");
            }
            Err(why) => {
                fails = true;
                say(&format!("{}: {why}", file.name));
            }
        }
    }
    Ok(if differs || fails { ExitCode::Verdict } else { ExitCode::Done })
}

/// A unified diff from what is there to what would be; empty if nothing would change.
fn difference(file: &ManagedFile, content: &str) -> Result<String> {
    let destination = &file.destination;
    let doing = || format!("reading {}", destination.display());
    let shown = destination.display().to_string();
    let (old, mut text) = match fs::read(destination) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => (String::new(), String::new()),
        old => {
            let mut text = String::new();
            let (wanted, access) = (file.access, current_access(destination).with_context(doing)?);
            if wanted.mode != access.mode {
                text += &format!("{shown}: mode {:04o} -> {:04o}\n", access.mode, wanted.mode);
            }
            if let (Some(wanted), Some(owner)) = (wanted.owner, access.owner)
                && wanted != owner
            {
                text += &format!("{shown}: owner {}:{} -> {}:{}\n", owner.user, owner.group, wanted.user, wanted.group);
            }
            (String::from_utf8_lossy(&old.with_context(doing)?).into_owned(), text)
        }
    };
    let diff = TextDiff::from_lines(old.as_str(), content);
    text += &diff.unified_diff().header(&shown, &format!("{shown} (new)")).to_string();
    Ok(text)
}
