//! The numbers, in one table and one document.

use std::time::Duration;

use anyhow::Result;
use cli::interrupt;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::agent::{Agent, QUIESCENCE};
use super::latency::Latency;
use super::lost::Lost;

/// What was measured; the document is this.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// One template with all keys.
    pub one_template: Latency,
    /// A thousand templates that share them.
    pub thousand_templates: Latency,
    /// Random changes while the store is killed.
    pub lost: Lost,
    /// A time without a change, with a thousand templates.
    pub rest: Rest,
    /// Resident memory with one template, after its changes.
    pub rss_one_template_kib: u64,
    /// Resident memory with a thousand templates, after their changes.
    pub rss_thousand_templates_kib: u64,
    /// The stripped program.
    pub size_bytes: u64,
}

/// What the agent uses when nothing happens.
#[derive(Debug, Default, Serialize)]
pub struct Rest {
    /// How long it was left alone.
    pub seconds: f64,
    /// How much CPU time it took meanwhile.
    pub cpu_seconds: f64,
}

impl Rest {
    /// Leaves the agent alone.
    pub fn measure(agent: &Agent, time: Duration) -> Result<Self> {
        // What the last change left to do is done.
        std::thread::sleep(Duration::from_secs(2));
        let before = agent.cpu_nanos()?;
        let seconds = time.as_secs();
        for _ in 0..seconds {
            interrupt::check()?;
            std::thread::sleep(Duration::from_secs(1));
        }
        let used = agent.cpu_nanos()? - before;
        Ok(Self { seconds: seconds as f64, cpu_seconds: Duration::from_nanos(used).as_secs_f64() })
    }
}

impl Report {
    /// Prints the table, and the document if `json`.
    pub fn show(&self, json: bool) -> Result<()> {
        eprintln!("{}", self.table());
        let lost = if self.lost.equal { "none lost" } else { "UPDATES LOST" };
        eprintln!(" {} changes, the store killed {} times: {lost}", self.lost.changes, self.lost.kills);
        eprintln!(" at rest: {:.6} s of CPU in {:.0} s", self.rest.cpu_seconds, self.rest.seconds);
        let mib = |kib: u64| kib as f64 / 1024.0;
        eprintln!(
            " resident: {:.1} MiB with 1 template, {:.1} MiB with 1000; program: {:.1} MB",
            mib(self.rss_one_template_kib),
            mib(self.rss_thousand_templates_kib),
            self.size_bytes as f64 / 1e6
        );
        if json {
            println!("{}", serde_json::to_string(self)?);
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        let head = format!("ms above {} ms of quiescence", QUIESCENCE.as_millis());
        table.load_style(NOTHING).set_header([head.as_str(), "median", "99th percentile"]);
        for (name, latency) in [("1 template", &self.one_template), ("1000 templates", &self.thousand_templates)] {
            for (from, spread) in [("answer", &latency.from_answer), ("request", &latency.from_request)] {
                let number = |millis: f64| format!("{millis:.2}");
                table.add_row([format!("{name}, from the {from}"), number(spread.median_ms), number(spread.p99_ms)]);
            }
        }
        for number in 1..=2 {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_form_that_was_promised() {
        let document = serde_json::to_value(Report::default()).unwrap();
        for path in [
            "/one_template/from_answer/median_ms",
            "/thousand_templates/from_request/p99_ms",
            "/lost/equal",
            "/rest/cpu_seconds",
            "/rss_thousand_templates_kib",
            "/size_bytes",
        ] {
            assert!(document.pointer(path).is_some(), "{path}");
        }
    }
}
