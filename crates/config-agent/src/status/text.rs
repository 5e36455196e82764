//! The report for people.

use std::fmt::Write as _;

use jiff::{Timestamp, Unit};

use super::{FileReport, FileState, Report};

/// The report as text, in lines.
pub fn text(report: &Report) -> String {
    let store = &report.store;
    let mut text = String::new();
    let connected = if store.connected { "connected" } else { "lost" };
    let since = time(store.since);
    let _ = writeln!(text, "store    {} at {}: {connected} since {since}", store.kind, store.address);
    if let Some(problem) = &store.problem {
        let _ = writeln!(text, "         {problem}");
    }
    let _ = writeln!(text, "revision {}", store.revision.as_deref().unwrap_or("none yet"));
    let _ = writeln!(text, "agent    {} with pid {}, since {}", report.version, report.pid, time(report.started));
    for file in &report.files {
        describe(&mut text, file);
    }
    text
}

fn describe(text: &mut String, file: &FileReport) {
    let state = match file.state {
        FileState::Current => "current",
        FileState::Waiting => "waiting",
        FileState::Failed => "failed",
        FileState::Unknown => "unknown",
    };
    let _ = write!(text, "\n{}: {state}\n  {}", file.name, file.destination.display());
    if let Some(revision) = &file.revision {
        let _ = write!(text, ", from revision {revision}");
    }
    if let Some(since) = file.since {
        let _ = write!(text, ", written {}", time(since));
    }
    text.push('\n');
    if let Some(problem) = &file.problem {
        let _ = writeln!(text, "  {problem}");
    }
    if file.reload_pending {
        let _ = writeln!(text, "  the reload is still to be done");
    }
}

fn time(time: Timestamp) -> String {
    time.round(Unit::Second).unwrap_or(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_reads_well() {
        let expected = "\
store    etcd at http://127.0.0.1:2379: lost since 2026-01-02T03:05:00Z
         no answer within 10s
revision 42
agent    0.1.0 with pid 7, since 2026-01-02T03:04:05Z

hello: current
  /etc/hello.conf, from revision 41, written 2026-01-02T03:04:06Z

web: failed
  /etc/web.conf
  the store has no /web/port, which is required
  the reload is still to be done
";
        assert_eq!(text(&super::super::example()), expected);
    }
}
