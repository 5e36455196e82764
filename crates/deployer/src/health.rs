//! Waiting for instances: until they are healthy, while they must stay so, until they have no more requests.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cli::narrate;
use manifest::component::Fleet;
use provider::{Fleets, Member, NotHealthy};
use tokio::time::sleep;

use crate::site::Site;
use crate::stability::{Criterion, Stability, identities, is_healthy, wholly_healthy};

/// How often it is looked whether a group still answers requests: an answer takes a few milliseconds.
const POLL: Duration = Duration::from_millis(100);

/// How often it is looked at each of the balancer's answers, so that none is missed.
const LOOKS: u32 = 4;

/// How long a request may take that began before its group lost the traffic.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// Waits until the group counts as healthy.
pub async fn stable<P: Fleets>(site: &Site<'_, P>, group: &str, size: u32, wanted: Criterion) -> Result<()> {
    narrate::step(&format!("{group}: waiting until it is healthy"));
    let interval = site.check_interval().await?;
    let (begin, deadline) = (Instant::now(), Duration::from_secs(wanted.seconds));
    let mut stability = Stability::new(size, wanted.checks, interval);
    loop {
        cli::interrupt::check()?;
        let members = site.members(group).await?;
        if stability.observe(begin.elapsed(), &members) {
            return Ok(());
        }
        if begin.elapsed() >= deadline {
            explain(site, &members).await;
            let healthy = members.iter().filter(|member| is_healthy(member)).count();
            let within = wanted.seconds;
            bail!(NotHealthy(format!(
                "{group} was not stably healthy within {within} s ({healthy} of {size} healthy)"
            )));
        }
        sleep(interval / LOOKS).await;
    }
}

/// Watches the group for a whole step: the same instances stay healthy all the time.
pub async fn gate<P: Fleets>(site: &Site<'_, P>, group: &str, size: u32, fleet: &Fleet) -> Result<()> {
    let look = site.check_interval().await? / LOOKS;
    let (begin, window) = (Instant::now(), Duration::from_millis(fleet.step_millis));
    let mut first = None;
    loop {
        cli::interrupt::check()?;
        let members = site.members(group).await?;
        let same = *first.get_or_insert_with(|| identities(&members)) == identities(&members);
        if !same || !wholly_healthy(&members, usize::try_from(size)?) {
            explain(site, &members).await;
            let what = if same { "did not stay healthy" } else { "had an instance restarted or replaced" };
            bail!(NotHealthy(format!("{group} {what} while it took traffic")));
        }
        if begin.elapsed() >= window {
            return Ok(());
        }
        sleep(look.min(window.saturating_sub(begin.elapsed()))).await;
    }
}

/// Waits until a group without traffic has answered its last request; whether it has within its time. Where requests
/// are not counted there is nothing to wait for: they end by themselves, and a group that is destroyed drains first.
///
/// Also after an interrupt: what goes back must drain as well.
pub async fn drained<P: Fleets>(site: &Site<'_, P>, group: &str) -> Result<bool> {
    let begin = Instant::now();
    loop {
        let open: u64 = site.members(group).await?.iter().filter_map(|member| member.open_requests).sum();
        if open == 0 {
            return Ok(true);
        }
        if begin.elapsed() >= DRAIN_DEADLINE {
            narrate::note(&format!("{group} still answers {open} requests after {} s", DRAIN_DEADLINE.as_secs()));
            return Ok(false);
        }
        sleep(POLL).await;
    }
}

/// Shows what is known of each instance, and the log of the first that is not healthy.
async fn explain<P: Fleets>(site: &Site<'_, P>, members: &[Member]) {
    for member in members {
        let Member { instance, state, starts, health, last_check, .. } = member;
        narrate::detail(&format!(
            "{instance}: {state:?}, {health:?}, started {starts} times, last check: {last_check}"
        ));
    }
    let Some(sick) = members.iter().find(|member| !is_healthy(member)) else { return };
    match site.provider.diagnose(&sick.instance).await {
        Ok(text) => text.lines().for_each(narrate::detail),
        Err(error) => narrate::note(&format!("nothing more is known of {}: {error:#}", sick.instance)),
    }
}
