//! The agent's socket: it writes its report, as JSON, to whoever connects, and closes.

use std::fs::{self, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};

use super::Report;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// Listens, for root alone: what a check printed may be in the report. One that an agent left behind is taken over;
/// that no other agent runs is known by the state directory.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let doing = || format!("listening on {}", path.display());
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error).with_context(doing),
        _ => (),
    }
    let listener = UnixListener::bind(path).with_context(doing)?;
    fs::set_permissions(path, Permissions::from_mode(0o600)).with_context(doing)?;
    Ok(listener)
}

/// Removes the socket.
pub fn remove(path: &Path) {
    // If it is gone already, that is as good.
    let _ = fs::remove_file(path);
}

/// Writes the report, beside everything else.
pub fn answer(mut stream: UnixStream, report: &Report) {
    let document = serde_json::to_vec(report).unwrap_or_default();
    tokio::spawn(async move {
        // Who asks and does not listen gets nothing, and holds up nobody.
        let _ = tokio::time::timeout(PATIENCE, stream.write_all(&document)).await;
    });
}

/// Asks the agent that listens at `path`.
pub fn ask(path: &Path) -> Result<Report> {
    let doing = || format!("asking the agent at {}", path.display());
    let mut stream = BlockingStream::connect(path)
        .context("nothing answers: start the agent with `systemctl start config-agent`")
        .with_context(doing)?;
    stream.set_read_timeout(Some(PATIENCE)).with_context(doing)?;
    let mut document = Vec::new();
    stream.read_to_end(&mut document).with_context(doing)?;
    serde_json::from_slice(&document).context("the answer is not that of this version of the agent").with_context(doing)
}
