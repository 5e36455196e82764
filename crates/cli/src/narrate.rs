//! What is going on, told on stderr.
//!
//! On a terminal the current step is a spinner and finished ones stay as lines;
//! elsewhere each thing is a line. Colour only on a terminal, and never when
//! `NO_COLOR` is set (both are indicatif's console's own rules).
//!
//! For Packer's users there is Packer's own format for machines as well, see
//! [`machine_readable`]; it goes to stdout, as there.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use console::{Color, Style};
use indicatif::{ProgressBar, ProgressStyle};

static CURRENT: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn with_current<T>(use_it: impl FnOnce(&mut Option<ProgressBar>) -> T) -> T {
    use_it(&mut CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

static MACHINE_READABLE: AtomicBool = AtomicBool::new(false);
static WITHOUT_COLOUR: AtomicBool = AtomicBool::new(false);
static VOICES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static SECRETS: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn line(kind: &str, text: &str) {
    if is_machine_readable() {
        return machine("", "ui", &[kind, text]);
    }
    let text = without_secrets(text);
    let text = if WITHOUT_COLOUR.load(Ordering::SeqCst) { plain(&text) } else { in_colour(text) };
    with_current(|current| match current {
        Some(bar) if !bar.is_hidden() => bar.println(text),
        // Nobody may be reading any more; that is no reason to stop working.
        _ => drop(writeln!(std::io::stderr(), "{text}")),
    });
}

/// From here on everything is told on stdout in the format of `packer -machine-readable`.
pub fn machine_readable() {
    MACHINE_READABLE.store(true, Ordering::SeqCst);
}

/// Whether everything is told in Packer's format for machines. Then nothing else may go to stdout.
pub fn is_machine_readable() -> bool {
    MACHINE_READABLE.load(Ordering::SeqCst)
}

/// From here on lines have a colour by who speaks, on a terminal: these begin theirs with their name and a colon.
pub fn voices(names: impl IntoIterator<Item = String>) {
    *VOICES.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = names.into_iter().collect();
}

/// The colours of builders in Packer, in its order (command/build.go).
const COLOURS: [Color; 5] = [Color::Green, Color::Cyan, Color::Magenta, Color::Yellow, Color::Blue];

fn in_colour(text: String) -> String {
    let voices = VOICES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    match voice(&text, &voices) {
        Some(number) => Style::new().for_stderr().fg(COLOURS[number % COLOURS.len()]).apply_to(text).to_string(),
        None => text,
    }
}

/// Whose line it is.
fn voice(text: &str, voices: &[String]) -> Option<usize> {
    let said = text.trim_start_matches("==> ").trim_start();
    let said = said.strip_prefix("note: ").unwrap_or(said);
    voices.iter().position(|name| said.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(':')))
}

/// From here on the colours that programs write into their lines are left out.
pub fn without_colour() {
    WITHOUT_COLOUR.store(true, Ordering::SeqCst);
}

/// A text without the sequences that choose colours (ECMA-48, SGR: ESC `[` … `m`).
fn plain(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| match part.split_once('m') {
        Some((codes, rest)) if codes.chars().all(|c| c.is_ascii_digit() || c == ';') => plain + rest,
        _ => plain + "\x1b[" + part,
    })
}

/// From here on none of these texts is shown: `<sensitive>` stands in its place.
pub fn keep_secret(secrets: impl IntoIterator<Item = String>) {
    let secrets = secrets.into_iter().filter(|secret| !secret.is_empty());
    SECRETS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).extend(secrets);
}

fn without_secrets(text: &str) -> String {
    crate::redact(text.to_owned(), &SECRETS.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// A line for machines, if they are who is told: `timestamp,target,type,data…` as Packer's
/// `packer/ui.go` (MachineReadableUi) writes it. `target` is a builder's name or empty.
pub fn machine(target: &str, kind: &str, data: &[&str]) {
    if is_machine_readable() {
        let data: Vec<_> = data.iter().map(|field| without_secrets(field)).collect();
        drop(writeln!(std::io::stdout(), "{}", machine_line(jiff::Timestamp::now().as_second(), target, kind, &data)));
    }
}

fn machine_line(seconds: i64, target: &str, kind: &str, data: &[String]) -> String {
    let escaped =
        data.iter().map(|field| field.replace(',', "%!(PACKER_COMMA)").replace('\r', "\\r").replace('\n', "\\n"));
    let fields = [seconds.to_string(), target.replace(',', "%!(PACKER_COMMA)"), kind.to_owned()];
    fields.into_iter().chain(escaped).collect::<Vec<_>>().join(",")
}

/// A step begins: `==> hvm: Creating the root volume...`
pub fn step(text: &str) {
    line("say", &format!("==> {text}"));
    if is_machine_readable() {
        return;
    }
    with_current(|current| {
        let bar = current.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        bar.set_message(text.to_owned());
    });
}

/// Something within a step, such as a line of a provisioner's output.
pub fn detail(text: &str) {
    line("message", &format!("    {text}"));
}

/// Something that the user should know and that is not an error.
pub fn note(text: &str) {
    line("message", &format!("    note: {text}"));
}

/// There is nothing to do: what was asked for is there already.
///
/// The last line of a run that says so begins with `unchanged:`, which is how a caller tells such a
/// run from one that did the work.
pub fn unchanged(text: &str) {
    finish();
    line("say", &format!("unchanged: {text}"));
}

/// The message of the error that ends the run.
pub fn error(text: &str) {
    finish();
    line("error", &format!("error: {text}"));
}

/// No step is going on any more: takes the spinner away.
pub fn finish() {
    with_current(|current| {
        if let Some(bar) = current.take() {
            bar.finish_and_clear();
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_colours_are_left_out() {
        assert_eq!(plain("\x1b[0;32mok\x1b[0m: [default] \x1b[2K"), "ok: [default] \x1b[2K");
    }

    #[test]
    fn a_line_is_of_the_builder_that_it_begins_with() {
        let voices = ["one".to_owned(), "one-more".to_owned()];
        let of = |text| voice(text, &voices);
        assert_eq!(of("==> one: Creating the root volume..."), Some(0));
        assert_eq!(of("    one-more: ok: [default]"), Some(1));
        assert_eq!(of("    note: one: left a process running"), Some(0));
        assert_eq!(of("    another: one: x"), None);
    }

    #[test]
    fn a_line_for_machines_is_packers() {
        let line = |target, kind, data: &[&str]| {
            let data: Vec<_> = data.iter().map(|field| (*field).to_owned()).collect();
            machine_line(1_453_293_673, target, kind, &data)
        };
        // The talk's own slide 14.
        assert_eq!(
            line("", "ui", &["say", "==> hvm: Prevalidating AMI Name..."]),
            "1453293673,,ui,say,==> hvm: Prevalidating AMI Name..."
        );
        assert_eq!(
            line("hvm", "artifact", &["0", "string", "AMIs were created:\nlocal: a,b\r\n"]),
            "1453293673,hvm,artifact,0,string,AMIs were created:\\nlocal: a%!(PACKER_COMMA)b\\r\\n"
        );
    }
}
