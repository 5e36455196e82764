//! HAProxy's runtime API (management guide, 9.3 "Unix Socket commands").

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use super::{BACKEND, Row, Server, stat};

/// HAProxy answers within a millisecond.
const ANSWER: Duration = Duration::from_secs(5);
/// How long connections to a server in maintenance may stay: idle ones are purged every second.
const FREE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// The runtime API of one HAProxy.
pub struct Runtime {
    socket: PathBuf,
}

impl Runtime {
    /// The one that has this socket.
    pub fn new(socket: &Path) -> Self {
        Self { socket: socket.to_owned() }
    }

    /// What it says of its servers now.
    pub async fn servers(&self) -> Result<Vec<Row>> {
        stat::parse(&self.ask("show stat").await?)
    }

    /// Makes its servers what `wanted` says: adds those that it lacks, in one step gives all their
    /// weights, and takes the rest off, for good once their connections are closed.
    pub async fn converge(&self, wanted: &[Server]) -> Result<()> {
        let present = self.servers().await?;
        for command in additions(wanted, &present) {
            self.tell(&command).await?;
        }
        let changes = weight_changes(wanted, &present);
        if !changes.is_empty() {
            self.tell(&changes.join("; ")).await?;
        }
        for id in extra(wanted, &present) {
            self.tell(&format!("set server {BACKEND}/{id} state maint")).await?;
        }
        Ok(())
    }

    /// Forgets servers that are in maintenance and whose instances are gone. A connection to one of them that was not
    /// told so is closed.
    pub async fn forget(&self, wanted: &[Server]) -> Result<()> {
        let deadline = Instant::now() + FREE;
        for id in extra(wanted, &self.servers().await?) {
            self.tell(&format!("shutdown sessions server {BACKEND}/{id}")).await?;
            let command = format!("del server {BACKEND}/{id}");
            while let Err(error) = self.tell(&command).await {
                if Instant::now() > deadline {
                    return Err(error);
                }
                sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// Gives a command whose answer is nothing, or that it was done.
    async fn tell(&self, command: &str) -> Result<()> {
        let answer = self.ask(command).await?;
        match answer.trim() {
            "" | "New server registered." | "Server deleted." => Ok(()),
            other => bail!("HAProxy answered `{command}` with: {other}"),
        }
    }

    async fn ask(&self, command: &str) -> Result<String> {
        tracing::debug!(command, "HAProxy");
        let exchange = async {
            let mut stream = UnixStream::connect(&self.socket).await?;
            stream.write_all(format!("{command}\n").as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            std::io::Result::Ok(answer)
        };
        let answer = timeout(ANSWER, exchange).await.context("HAProxy does not answer")?;
        answer.with_context(|| format!("asking HAProxy at {}", self.socket.display()))
    }
}

/// A dynamic server starts in maintenance with its checks off.
fn additions(wanted: &[Server], present: &[Row]) -> Vec<String> {
    let is_new = |server: &&Server| !present.iter().any(|row| row.server == server.id);
    let commands = wanted.iter().filter(is_new).flat_map(|server| {
        let name = format!("{BACKEND}/{}", server.id);
        [
            format!("add server {name} {}", server.keywords()),
            format!("enable health {name}"),
            format!("set server {name} state ready"),
        ]
    });
    commands.collect()
}

/// Increases come first: at no moment is there less weight than before or after.
fn weight_changes(wanted: &[Server], present: &[Row]) -> Vec<String> {
    let mut changes: Vec<_> = wanted
        .iter()
        .filter_map(|server| {
            let row = present.iter().find(|row| row.server == server.id)?;
            let now = row.weight.unwrap_or_default();
            (now != server.weight).then_some((server.weight < now, server))
        })
        .collect();
    changes.sort_by_key(|(decreases, _)| *decreases);
    let command = |server: &Server| format!("set server {BACKEND}/{} weight {}", server.id, server.weight);
    changes.into_iter().map(|(_, server)| command(server)).collect()
}

fn extra(wanted: &[Server], present: &[Row]) -> Vec<String> {
    let is_extra = |row: &&Row| !wanted.iter().any(|server| server.id == row.server);
    present.iter().filter(is_extra).map(|row| row.server.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(id: &str, weight: u32) -> Server {
        Server { id: id.to_owned(), address: [10, 77, 0, 16].into(), port: 80, weight }
    }

    #[test]
    fn commands_lead_from_what_is_to_what_is_wanted() {
        let present = stat::parse(include_str!("stat.recorded.csv")).unwrap();
        let (first, second) = (present[0].server.as_str(), present[2].server.as_str());
        let wanted = [server(first, 0), server(second, 256), server("i-new", 0)];
        let weight = |id, weight| format!("set server instances/{id} weight {weight}");
        assert_eq!(weight_changes(&wanted, &present), [weight(second, 256), weight(first, 0)]);
        assert_eq!(extra(&wanted, &present).len(), present.len() - 2);
        let added = additions(&wanted, &present);
        assert!(added[0].starts_with("add server instances/i-new 10.77.0.16:80 weight 0 check "));
        assert_eq!(added[1..], ["enable health instances/i-new", "set server instances/i-new state ready"]);
    }
}
