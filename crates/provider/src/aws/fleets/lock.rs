//! Who may change a service: one run at a time, on whatever machine it is.
//!
//! A lock is the newest of a service's tickets, `/kiln/services/NAME/lock/000007`. Whoever finds that the newest one
//! holds no longer makes the next: a name can be created once only, so one of those who try has it. Its number is a
//! fencing number: a run that lost touch for so long that its ticket lapsed, and that another has followed, sees a
//! newer one than its own before its next change, and stops. Released tickets are kept for that; the next holder
//! removes them.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use cli::lock::IfHeld;
use cli::narrate;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::parameters::{is_taken, name, path};
use crate::aws::Aws;
use crate::aws::failure::Explain;
use crate::aws::holder::Holder;
use crate::aws::wait;

/// How long a ticket holds that nobody renews: so long is a service locked when its deployer's machine has vanished.
const LEASE: SignedDuration = SignedDuration::from_secs(60);
/// How often it is renewed: two renewals may fail.
const RENEWAL: Duration = Duration::from_secs(20);
/// How long a ticket that has just been made may be unknown to readers.
const KNOWN: Duration = Duration::from_secs(30);
/// For how long another run is waited for: as long as it takes.
const FOR_EVER: Duration = Duration::MAX;

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Ticket {
    holder: Holder,
    /// Until when it holds; it is renewed before that.
    until: Timestamp,
    /// Whether it has been given back.
    released: bool,
}

impl Ticket {
    fn of_this_process() -> Self {
        Self { holder: Holder::this(), until: Timestamp::now() + LEASE, released: false }
    }

    fn holds(&self) -> bool {
        !self.released && self.until > Timestamp::now() && !self.holder.has_ended()
    }

    fn is_ours(&self) -> bool {
        !self.released && self.holder == Holder::this()
    }

    fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)?)
    }
}

/// The lock of a service. It is renewed while this lives.
#[derive(Debug)]
pub struct ServiceLock {
    service: String,
    ticket: String,
    renewal: JoinHandle<()>,
}

impl Drop for ServiceLock {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

/// What Parameter Store has of a service.
struct Remembered {
    /// Its tickets by name, oldest first.
    tickets: Vec<(String, Ticket)>,
    /// Whether it has a journal.
    has_journal: bool,
    /// Whether there is anything beside tickets.
    is_known: bool,
}

impl Remembered {
    /// The name of the ticket after the newest one.
    fn next(&self, service: &str) -> String {
        let number = |name: &String| name.rsplit('/').next().and_then(|number| number.parse::<u32>().ok());
        let newest = self.tickets.iter().filter_map(|(name, _)| number(name)).max().unwrap_or_default();
        name(service, &format!("lock/{:06}", newest + 1))
    }
}

/// The call by which an entry is added to the service's journal, in words.
pub fn recording(service: &str) -> String {
    format!("ssm:PutParameter {}", name(service, "journal"))
}

impl Aws {
    /// The calls by which the service's lock is taken, in words.
    pub(super) async fn locking(&self, service: &str) -> Result<Vec<String>> {
        let remembered = self.remembered(service).await?;
        let older = remembered.tickets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
        let next = format!("ssm:PutParameter {}", remembered.next(service));
        let older = (!older.is_empty()).then(|| format!("ssm:DeleteParameters {older}"));
        Ok([next].into_iter().chain(older).collect())
    }

    /// The call by which it is given back, in words.
    pub(super) async fn unlocking(&self, service: &str) -> Result<String> {
        Ok(format!("ssm:PutParameter {} released", self.remembered(service).await?.next(service)))
    }

    /// Takes the lock of a service.
    pub(super) async fn take_lock(&self, service: &str, if_held: IfHeld) -> Result<ServiceLock> {
        let mut said = false;
        let what = format!("the lock of service {service}");
        let ticket = wait::until(&what, FOR_EVER, async || {
            let remembered = self.remembered(service).await?;
            let held = remembered.tickets.last().filter(|(_, ticket)| ticket.holds() && !ticket.is_ours());
            let Some((_, Ticket { holder, until, .. })) = held else {
                return self.take_ticket(service, &remembered).await;
            };
            let holder = format!("`{}` (pid {}, {})", holder.program, holder.process.pid, holder.machine);
            if if_held == IfHeld::Fail {
                bail!("service {service} is in use by {holder}; run again when it has ended, or without --no-wait");
            }
            if !said {
                narrate::note(&format!("waiting for service {service}, in use by {holder} until {until:.0} at least"));
                said = true;
            }
            Ok(None)
        })
        .await?;
        let known = format!("{what} to be known");
        wait::until(&known, KNOWN, async || Ok(self.is_ours(service).await?.then_some(()))).await?;
        let (aws, name, its_service) = (self.clone(), ticket.clone(), service.to_owned());
        let renewal = tokio::spawn(async move {
            loop {
                tokio::time::sleep(RENEWAL).await;
                // A renewal that fails is made up for by the next; a lock that was lost is noticed before a change.
                if aws.is_ours(&its_service).await.is_ok_and(|ours| ours) {
                    let _ = aws.renew(&name).await;
                }
            }
        });
        Ok(ServiceLock { service: service.to_owned(), ticket, renewal })
    }

    /// Makes the next ticket; `None` if another run was quicker.
    async fn take_ticket(&self, service: &str, remembered: &Remembered) -> Result<Option<String>> {
        let next = remembered.next(service);
        let created = self.create_parameter(service, &next, &Ticket::of_this_process().to_json()?).await;
        match created {
            // It can be our own: of a call whose answer was lost.
            Err(error) if is_taken(&error) && !self.is_ours(service).await? => return Ok(None),
            Err(error) if is_taken(&error) => {}
            created => created.doing("ssm:PutParameter", || format!("locking service {service}"))?,
        }
        let older: Vec<_> = remembered.tickets.iter().map(|(name, _)| name.clone()).collect();
        self.delete_parameters(&older).await?;
        Ok(Some(next))
    }

    /// Gives the lock back. Of a service that is no more it is removed.
    pub(super) async fn release(&self, lock: ServiceLock) -> Result<()> {
        lock.renewal.abort();
        let remembered = self.remembered(&lock.service).await?;
        if remembered.tickets.last().is_none_or(|(_, ticket)| !ticket.is_ours()) {
            return Ok(());
        }
        if !remembered.is_known {
            let all: Vec<_> = remembered.tickets.into_iter().map(|(name, _)| name).collect();
            return self.delete_parameters(&all).await;
        }
        let released = Ticket { released: true, ..Ticket::of_this_process() };
        self.overwrite_parameter(&lock.ticket, &released.to_json()?).await
    }

    /// Adds an entry to the service's journal, if this process has its lock.
    pub(super) async fn add_entry(&self, service: &str, entry: &Value) -> Result<()> {
        let remembered = self.remembered(service).await?;
        match remembered.tickets.last() {
            Some((_, newest)) if newest.is_ours() => {}
            Some((_, newest)) => bail!(
                "service {service} has been taken over by `{}` (pid {}), for this run was out of touch for too long: it \
                 stops here",
                newest.holder.program,
                newest.holder.process.pid
            ),
            None => bail!("service {service} is not locked by this run: somebody removed its lock, so it stops here"),
        }
        let (name, entry) = (name(service, "journal"), entry.to_string());
        if remembered.has_journal {
            return self.overwrite_parameter(&name, &entry).await;
        }
        match self.create_parameter(service, &name, &entry).await {
            // Our own, of a call whose answer was lost: nobody else may write.
            Err(error) if is_taken(&error) => Ok(()),
            created => created.doing("ssm:PutParameter", || format!("writing {name}")),
        }
    }

    async fn is_ours(&self, service: &str) -> Result<bool> {
        Ok(self.remembered(service).await?.tickets.last().is_some_and(|(_, ticket)| ticket.is_ours()))
    }

    async fn renew(&self, ticket: &str) -> Result<()> {
        self.overwrite_parameter(ticket, &Ticket::of_this_process().to_json()?).await
    }

    async fn remembered(&self, service: &str) -> Result<Remembered> {
        let path = path(service);
        let mut remembered = Remembered { tickets: Vec::new(), has_journal: false, is_known: false };
        for parameter in self.parameters_below(&path).await? {
            let (name, value) = (parameter.name.unwrap_or_default(), parameter.value.unwrap_or_default());
            match name.strip_prefix(&path) {
                Some(rest) if rest.starts_with("/lock/") => {
                    let ticket = serde_json::from_str(&value).with_context(|| format!("reading {name}"))?;
                    remembered.tickets.push((name, ticket));
                }
                rest => {
                    remembered.is_known = true;
                    remembered.has_journal |= rest == Some("/journal");
                }
            }
        }
        remembered.tickets.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(remembered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_holds_until_it_lapses_is_given_back_or_its_process_ends() {
        let ours = Ticket::of_this_process();
        assert!(ours.holds() && ours.is_ours());
        assert!(!Ticket { until: Timestamp::now() - LEASE, ..ours.clone() }.holds());
        assert!(!Ticket { released: true, ..ours.clone() }.holds());
        let mut ended = ours.clone();
        ended.holder.process.started += 1;
        assert!(!ended.holds());
        ended.holder.machine = "another".to_owned();
        assert!(ended.holds() && !ended.is_ours(), "of another machine's processes nothing is known");
    }
}
