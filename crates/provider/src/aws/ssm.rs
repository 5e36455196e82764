//! The way into an instance whose profile lets Systems Manager in.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_ssm::types::CommandInvocationStatus as Status;

use super::Aws;
use super::failure::{Explain, code};
use super::wait::until;

/// The document that runs a shell script, which every account has.
const RUN: &str = "AWS-RunShellScript";
/// How long a command that prints a file may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How much of its output is passed on, in characters (GetCommandInvocation, `StandardOutputContent`).
const LONGEST: usize = 24_000;

impl Aws {
    /// Prints a file in the instance. `None` while the agent there has not reported, or there is no such file.
    pub(super) async fn print_file(&self, id: &str, path: &str) -> Result<Option<String>> {
        let sent = self
            .ssm
            .send_command()
            .document_name(RUN)
            .instance_ids(id)
            .parameters("commands", vec![format!("cat -- '{path}'")])
            .send()
            .await;
        if sent.as_ref().err().and_then(code) == Some("InvalidInstanceId") {
            return Ok(None);
        }
        let doing = || format!("reading {path} in the instance {id}");
        let sent = sent.doing("ssm:SendCommand", doing)?;
        let command = sent.command().and_then(|it| it.command_id()).with_context(doing)?;
        until(&format!("{path} in the instance {id} to be printed"), PATIENCE, async || {
            let asked = self.ssm.get_command_invocation().command_id(command).instance_id(id).send().await;
            if asked.as_ref().err().and_then(code) == Some("InvocationDoesNotExist") {
                return Ok(None);
            }
            let found = asked.doing("ssm:GetCommandInvocation", doing)?;
            match found.status() {
                Some(Status::Pending | Status::InProgress | Status::Delayed) | None => Ok(None),
                Some(Status::Success) => {
                    let text = found.standard_output_content().unwrap_or_default();
                    ensure!(
                        text.len() < LONGEST,
                        "{path} in the instance {id} is longer than the {LONGEST} characters that SSM passes on: use \
                         --via console"
                    );
                    Ok(Some(Some(text.to_owned())))
                }
                Some(_) => Ok(Some(None)),
            }
        })
        .await
    }
}
