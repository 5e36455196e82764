//! Medians and ratios, in one table and one document.

use std::collections::BTreeMap;

use anyhow::Result;
use cli::narrate;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::timing::Scenario;

/// Who is measured, in the order of [`Report::add`]'s numbers.
const CONTESTANTS: usize = 3;
const KILN: usize = 0;
const PACKER: usize = 1;
const BOOT: usize = 2;

/// What has been measured so far.
#[derive(Debug, Default)]
pub struct Report {
    seconds: BTreeMap<&'static str, [Vec<f64>; CONTESTANTS]>,
    /// What is left of a build whose provisioner leaves a process.
    pub left_behind: LeftBehind,
}

/// Processes, mounts and loop devices.
#[derive(Debug, Default, Clone, Serialize)]
pub struct LeftBehind {
    /// Of imager.
    pub kiln: Vec<String>,
    /// Of Packer.
    pub packer: Vec<String>,
}

/// Medians of one scenario. Both isolate by chroot.
#[derive(Debug, Serialize)]
struct Medians {
    kiln_s: f64,
    packer_s: f64,
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Document {
    cold: Medians,
    last_changed: Medians,
    nothing_changed: Medians,
    two_builders: Medians,
    left_behind: LeftBehind,
}

impl Report {
    /// Notes what a run of a contestant took.
    pub fn add(&mut self, contestant: usize, scenario: Scenario, seconds: f64) {
        self.seconds.entry(scenario.name()).or_default()[contestant].push(seconds);
    }

    /// Prints the table, and the document if `json`.
    pub fn show(&self, json: bool) -> Result<()> {
        eprintln!("{}", self.table());
        let alone = self.median(Scenario::Cold, KILN);
        eprintln!(
            " two builders at once: {:.2} times one (Packer: {:.2} times)",
            self.median(Scenario::TwoBuilders, KILN) / alone,
            self.median(Scenario::TwoBuilders, PACKER) / self.median(Scenario::Cold, PACKER),
        );
        for (name, left) in [("kiln", &self.left_behind.kiln), ("packer", &self.left_behind.packer)] {
            let left = if left.is_empty() { "nothing".to_owned() } else { left.join("\n    ") };
            eprintln!(" left behind by {name}:\n    {left}");
        }
        if json {
            let document = Document {
                cold: self.medians(Scenario::Cold),
                last_changed: self.medians(Scenario::LastChanged),
                nothing_changed: self.medians(Scenario::NothingChanged),
                two_builders: self.medians(Scenario::TwoBuilders),
                left_behind: self.left_behind.clone(),
            };
            println!("{}", serde_json::to_string(&document)?);
        }
        Ok(())
    }

    fn medians(&self, scenario: Scenario) -> Medians {
        let [kiln, packer] = [KILN, PACKER].map(|contestant| self.median(scenario, contestant));
        Medians { kiln_s: thousandths(kiln), packer_s: thousandths(packer), ratio: thousandths(kiln / packer) }
    }

    fn median(&self, scenario: Scenario, contestant: usize) -> f64 {
        median(&self.seconds[scenario.name()][contestant])
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header([
            "seconds, median (range)",
            "kiln",
            "packer",
            "kiln / packer",
            "kiln, boot",
        ]);
        for scenario in Scenario::ALL {
            let [kiln, packer, boot] =
                [KILN, PACKER, BOOT].map(|contestant| shown(&self.seconds[scenario.name()][contestant]));
            let ratio = format!("{:.2}", self.medians(scenario).ratio);
            table.add_row([scenario.name().replace('_', " "), kiln, packer, ratio, boot]);
        }
        for number in 1..=4 {
            if let Some(column) = table.column_mut(number) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table
    }
}

/// Says so if others keep the machine busy: the numbers are worth less then.
pub fn note_load() {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    narrate::detail(&format!("load {load} on {cores} cores"));
}

fn shown(seconds: &[f64]) -> String {
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = seconds.iter().copied().fold(0.0, f64::max);
    format!("{:.2} ({least:.2}-{most:.2})", median(seconds))
}

/// The middle one, or the mean of the two in the middle; 0 of none.
fn median(seconds: &[f64]) -> f64 {
    let mut sorted = seconds.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

fn thousandths(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_run_does_not_move_the_median() {
        assert_eq!(median(&[6.0, 60.0, 5.0]), 6.0);
        assert_eq!(median(&[4.0, 6.0]), 5.0);
    }

    #[test]
    fn the_document_has_the_form_that_was_promised() {
        let mut report = Report::default();
        for scenario in Scenario::ALL {
            report.add(KILN, scenario, 3.0);
            report.add(PACKER, scenario, 6.0);
        }
        let medians = serde_json::to_value(report.medians(Scenario::Cold)).unwrap();
        assert_eq!(medians, serde_json::json!({"kiln_s": 3.0, "packer_s": 6.0, "ratio": 0.5}));
    }
}
