//! The report for Prometheus.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

use super::{FileReport, FileState, Report};

/// The report in Prometheus' text format.
pub fn metrics(report: &Report) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, f64)>| {
        let _ = writeln!(text, "# HELP config_agent_{name} {help}\n# TYPE config_agent_{name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "config_agent_{name}{labels} {value}");
        }
    };
    let alone = |value: f64| vec![(String::new(), value)];
    let of_files = |value: &dyn Fn(&FileReport) -> Option<f64>| -> Vec<(String, f64)> {
        report.files.iter().filter_map(|file| Some((label(file), value(file)?))).collect()
    };
    let truth = |it: bool| f64::from(u8::from(it));

    family("store_connected", "gauge", "Whether the store is followed now.", alone(truth(report.store.connected)));
    let current = |file: &FileReport| Some(truth(matches!(file.state, FileState::Current | FileState::Waiting)));
    family("file_good", "gauge", "Whether the file is what the store says, or will be soon.", of_files(&current));
    let pending = |file: &FileReport| Some(truth(file.reload_pending));
    family("reload_pending", "gauge", "Whether a service has yet to be told of the file.", of_files(&pending));
    let written = |file: &FileReport| file.since.map(|since| since.as_millisecond() as f64 / 1000.0);
    family("file_written_seconds", "gauge", "When the file's content was written, since 1970.", of_files(&written));
    let counters = &report.counters;
    for (name, help, value) in [
        ("updates_total", "Messages of the store.", counters.updates),
        ("replacements_total", "Files replaced.", counters.replacements),
        ("failures_total", "Times that a file could not be replaced.", counters.failures),
        ("reloads_total", "Reloads tried.", counters.reloads),
        ("reload_failures_total", "Reloads that failed.", counters.reload_failures),
        ("put_back_total", "Times that the files before were put back.", counters.put_back),
    ] {
        family(name, "counter", help, alone(value as f64));
    }
    text
}

fn label(file: &FileReport) -> String {
    let name = file.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{{file=\"{name}\"}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_help_and_type() {
        let text = metrics(&super::super::example());
        for line in [
            "# TYPE config_agent_store_connected gauge",
            "config_agent_store_connected 0",
            "config_agent_file_good{file=\"hello\"} 1",
            "config_agent_file_good{file=\"web\"} 0",
            "config_agent_reload_pending{file=\"web\"} 1",
            "config_agent_file_written_seconds{file=\"hello\"} 1767323046",
            "config_agent_updates_total 3",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
