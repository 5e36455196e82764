//! What HAProxy says of its servers: the CSV of `show stat`
//! (management guide, 9.1 "CSV format").

use anyhow::{Context, Result, ensure};
use provider::MemberHealth;
use serde::Deserialize;

use super::BACKEND;

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Row {
    #[serde(rename = "# pxname")]
    proxy: String,
    /// Its name: the id of the instance.
    #[serde(rename = "svname")]
    pub server: String,
    /// `UP`, `DOWN`, `DRAIN` (no weight), `MAINT`, with `1/2` and the like behind it on the way to another.
    status: String,
    /// Its weight.
    pub weight: Option<u32>,
    /// Requests that it is answering.
    #[serde(rename = "scur")]
    pub open_requests: Option<u64>,
    /// Code of the last check, such as `L7OK`; with `* ` before it while the next one runs.
    check_status: String,
    check_code: String,
    last_chk: String,
}

impl Row {
    /// Whether it answers its checks. Not yet having been checked is not healthy, although HAProxy
    /// calls that `UP`.
    pub fn health(&self) -> MemberHealth {
        let stands = matches!(self.status.split(' ').next(), Some("UP" | "DRAIN"));
        let answered = matches!(self.check_status.trim_start_matches("* "), "L7OK" | "L7OKC");
        if stands && answered { MemberHealth::Healthy } else { MemberHealth::Unhealthy }
    }

    /// What the last check said.
    pub fn last_check(&self) -> String {
        let words = [self.status.as_str(), &self.check_status, &self.check_code, &self.last_chk];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Reads what `show stat` prints: the servers of our backend.
pub fn parse(text: &str) -> Result<Vec<Row>> {
    ensure!(text.starts_with("# pxname,"), "HAProxy answered `show stat` with: {}", text.trim());
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let rows: Vec<Row> = reader.deserialize().collect::<Result<_, _>>().context("reading HAProxy's statistics")?;
    let is_server = |row: &Row| row.proxy == BACKEND && row.server != "BACKEND";
    Ok(rows.into_iter().filter(is_server).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded from HAProxy 2.6.12: servers that answer, with weight and without, one that was
    /// ended, and one that was not checked yet.
    const RECORDED: &str = include_str!("stat.recorded.csv");

    #[test]
    fn the_servers_of_our_backend_are_read() {
        let rows = parse(RECORDED).unwrap();
        let seen = rows.iter().map(|row| (row.health(), row.weight, row.open_requests, row.last_check()));
        insta::assert_debug_snapshot!(seen.collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_a_table_is_quoted() {
        let error = parse("Permission denied\n").unwrap_err().to_string();
        assert_eq!(error, "HAProxy answered `show stat` with: Permission denied");
    }
}
