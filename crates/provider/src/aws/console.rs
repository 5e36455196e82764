//! What an instance wrote to its serial console.

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::Aws;
use super::failure::{Explain, code};

impl Aws {
    /// The last 64 KB of the console: as of now where EC2 has that (Nitro instances), else as of shortly after the last
    /// change of the instance's state (GetConsoleOutput).
    pub(super) async fn console_output(&self, id: &str) -> Result<String> {
        let ask = async |latest| self.ec2.get_console_output().instance_id(id).latest(latest).send().await;
        let mut sent = ask(true).await;
        if sent.as_ref().err().and_then(code) == Some("UnsupportedOperation") {
            sent = ask(false).await;
        }
        let found = sent.doing("ec2:GetConsoleOutput", || format!("reading the console of instance {id}"))?;
        let text: String = found.output().unwrap_or_default().split_whitespace().collect();
        let bytes = BASE64_STANDARD.decode(text).with_context(|| format!("reading the console of instance {id}"))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
