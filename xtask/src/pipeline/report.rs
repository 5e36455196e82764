//! What became of each stage, in one table or one document.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use cli::{ExitCode, narrate};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::line::Stage;
use super::log::Ended;

/// What became of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum StageResult {
    Done,
    Unchanged,
    Failed,
    Skipped,
}

/// A line of the table.
#[derive(Debug, Serialize)]
struct Row {
    stage: &'static str,
    result: StageResult,
    /// Rounded to tenths.
    seconds: f64,
}

/// What became of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where the service answers, if this run deployed it or found it deployed.
    url: Option<String>,
    manifest: String,
    stages: Vec<Row>,
}

impl Report {
    /// A run of these stages of which nothing has happened yet.
    pub fn new(manifest: &Path, stages: impl Iterator<Item = Stage>) -> Self {
        let stages = std::iter::once("setup").chain(stages.map(Stage::name));
        let row = |stage| Row { stage, result: StageResult::Skipped, seconds: 0.0 };
        Self { url: None, manifest: manifest.display().to_string(), stages: stages.map(row).collect() }
    }

    /// Runs a stage, and writes down what became of it.
    pub fn stage(&mut self, stage: &'static str, run: impl FnOnce() -> Result<Ended>) -> Result<ExitCode> {
        let begin = Instant::now();
        let ended = run();
        let seconds = (begin.elapsed().as_secs_f64() * 10.0).round() / 10.0;
        let result = match &ended {
            Ok(ended) if ended.unchanged => StageResult::Unchanged,
            Ok(ended) if ended.is_success() => StageResult::Done,
            _ => StageResult::Failed,
        };
        narrate::detail(&format!("{stage}: {} ({seconds:.1} s)", word(result)));
        if let Some(row) = self.stages.iter_mut().find(|row| row.stage == stage) {
            *row = Row { stage, result, seconds };
        }
        let ended = ended?;
        if stage == Stage::Deploy.name() && ended.is_success() {
            self.url = ended.data().map(str::to_owned);
        }
        Ok(ended.exit_code())
    }

    /// Prints the document, or else the table and the URL.
    pub fn show(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        if self.stages.iter().all(|row| row.result == StageResult::Skipped) {
            return Ok(());
        }
        narrate::detail(&format!("manifest: {}", self.manifest));
        eprintln!("{}", self.table());
        if let Some(url) = &self.url {
            println!("{url}");
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(["stage", "result", "seconds"]);
        for Row { stage, result, seconds } in &self.stages {
            table.add_row([*stage, word(*result), &format!("{seconds:.1}")]);
        }
        if let Some(seconds) = table.column_mut(2) {
            seconds.set_cell_alignment(CellAlignment::Right);
        }
        table
    }
}

fn word(result: StageResult) -> &'static str {
    match result {
        StageResult::Done => "done",
        StageResult::Unchanged => "unchanged",
        StageResult::Failed => "failed",
        StageResult::Skipped => "skipped",
    }
}
