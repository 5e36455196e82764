//! What is going on, told on stderr.
//!
//! On a terminal the current step is a spinner and finished ones stay as lines;
//! elsewhere each thing is a line. Colour only on a terminal, and never when
//! `NO_COLOR` is set (both are indicatif's console's own rules).

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

static CURRENT: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn with_current<T>(use_it: impl FnOnce(&mut Option<ProgressBar>) -> T) -> T {
    use_it(&mut CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn line(text: &str) {
    with_current(|current| match current {
        Some(bar) if !bar.is_hidden() => bar.println(text),
        // Nobody may be reading any more; that is no reason to stop working.
        _ => drop(writeln!(std::io::stderr(), "{text}")),
    });
}

/// A step begins: `==> hvm: Creating the root volume...`
pub fn step(text: &str) {
    line(&format!("==> {text}"));
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
    line(&format!("    {text}"));
}

/// Something that the user should know and that is not an error.
pub fn note(text: &str) {
    line(&format!("    note: {text}"));
}

/// There is nothing to do: what was asked for is there already.
///
/// The last line of a run that says so begins with `unchanged:`, which is how a caller tells such a
/// run from one that did the work.
pub fn unchanged(text: &str) {
    finish();
    line(&format!("unchanged: {text}"));
}

/// The message of the error that ends the run.
pub fn error(text: &str) {
    finish();
    line(&format!("error: {text}"));
}

/// No step is going on any more: takes the spinner away.
pub fn finish() {
    with_current(|current| {
        if let Some(bar) = current.take() {
            bar.finish_and_clear();
        }
    });
}
