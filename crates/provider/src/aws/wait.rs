//! Waiting for something at AWS.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use cli::interrupt;

/// How long what has just been made may be unknown to the next call ("Eventual consistency in the Amazon EC2 API").
pub(super) const KNOWN_EVERYWHERE: Duration = Duration::from_secs(120);
/// The first pause. What is quick there is ready within a second.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause: one call in ten seconds is far below any limit.
const LONGEST: Duration = Duration::from_secs(10);
/// How soon an interrupt is noticed.
const SLICE: Duration = Duration::from_millis(100);

/// Asks until there is an answer, often at first and then more and more seldom, for at most `patience`.
///
/// `what` is waited for, such as `snapshot snap-1 to be complete`. `ask` returns `None` while it has to be asked again.
pub(super) async fn until<T>(what: &str, patience: Duration, ask: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    asking(what, patience, interrupt::check, ask).await
}

/// The same for what is cleaned up, which goes on after an interrupt.
pub(super) async fn until_in_any_case<T>(
    what: &str,
    patience: Duration,
    ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    asking(what, patience, || Ok(()), ask).await
}

async fn asking<T>(
    what: &str,
    patience: Duration,
    check: impl Fn() -> Result<()>,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let started = Instant::now();
    let mut pause = FIRST;
    loop {
        check()?;
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if started.elapsed() >= patience {
            bail!("waited {} s for {what}, in vain: look at it in the console, and run again", patience.as_secs());
        }
        // Two runs that began at once should not go on asking at once.
        sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0), &check).await?;
        pause = (pause * 3 / 2).min(LONGEST);
    }
}

/// Waits for as long as a protocol says that something remains in force, unless interrupted.
pub(super) async fn pass(duration: Duration) -> Result<()> {
    sleep(duration, interrupt::check).await
}

/// Does something that takes a while. If the process is asked to end, that is dropped where it stands.
pub(super) async fn unless_interrupted<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = std::pin::pin!(work);
    loop {
        interrupt::check()?;
        if let Ok(done) = tokio::time::timeout(SLICE, &mut work).await {
            return done;
        }
    }
}

/// Sleeps, unless `check` has an error.
async fn sleep(duration: Duration, check: impl Fn() -> Result<()>) -> Result<()> {
    let until = Instant::now() + duration;
    while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        check()?;
        tokio::time::sleep(left.min(SLICE)).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = until("an answer", Duration::from_secs(5), async || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test]
    async fn what_does_not_come_is_named() {
        let error = until::<()>("a miracle", Duration::ZERO, async || Ok(None)).await.unwrap_err();
        assert!(error.to_string().contains("for a miracle, in vain"), "{error}");
    }
}
