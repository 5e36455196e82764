//! Requests to a service while something happens to it.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::rig::Ended;

/// Loads a service until it is told to stop; then says how many requests were answered and how many failed.
pub struct Load {
    wrk: Child,
}

impl Load {
    /// Keep-alive connections, or a new one for each request.
    pub fn start(url: &str, keep_alive: bool) -> Self {
        let mut wrk = cli::Command::new("wrk").args(["--threads", "1", "--connections", "8", "--duration", "60s"]);
        if !keep_alive {
            wrk = wrk.args(["--header", "Connection: close"]);
        }
        let wrk = wrk.arg(url).configure(|command| _ = command.stdout(Stdio::piped()));
        Self { wrk: wrk.spawn().unwrap() }
    }

    /// Ends the load. wrk prints its summary when it is interrupted.
    pub fn stop(self) {
        kill_process(Pid::from_raw(self.wrk.id().cast_signed()).unwrap(), Signal::INT).unwrap();
        let summary = Ended::of(self.wrk.wait_with_output().unwrap()).stdout;
        let requests = summary.lines().find_map(|line| line.trim().split_once(" requests in ")?.0.parse::<u64>().ok());
        assert!(requests.unwrap_or(0) > 200, "too little load to say anything:\n{summary}");
        assert!(!summary.contains("Socket errors") && !summary.contains("Non-2xx"), "requests failed:\n{summary}");
    }
}
