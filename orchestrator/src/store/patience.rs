//! How long a store that failed is asked again: one that is restarted, or holds a row for somebody who
//! was cut off, is there again a moment later.

use super::StoreError;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// First pause before it is asked again; it doubles.
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_millis(400);

/// What is left of it for one operation.
#[derive(Debug)]
pub(crate) struct Patience {
    by: Instant,
    pause: Duration,
}

impl Patience {
    /// For so many milliseconds from now on.
    pub(crate) fn of(ms: u64) -> Self {
        Self {
            by: Instant::now() + Duration::from_millis(ms),
            pause: PAUSE_MIN,
        }
    }

    /// Waits before the operation is asked for again; false where it would fail again, or too late.
    pub(crate) async fn again(&mut self, error: &StoreError) -> bool {
        if !error.may_pass() || Instant::now() + self.pause > self.by {
            return false;
        }
        tracing::warn!(%error, "the store is waited for");
        sleep(self.pause).await;
        self.pause = (2 * self.pause).min(PAUSE_MAX);
        true
    }
}

/// Asks for what may be done twice until it is done, for so many milliseconds.
pub(crate) async fn patiently<T, F>(ms: u64, ask: impl Fn() -> F) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut patience = Patience::of(ms);
    loop {
        match ask().await {
            Err(error) if patience.again(&error).await => {}
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Asks a store that fails so often; how often it was asked, and what came of it.
    async fn asked(fails: u32, error: StoreError) -> (u32, Result<(), StoreError>) {
        let count = Cell::new(0);
        let done = patiently(4_000, || {
            count.set(count.get() + 1);
            let fails = count.get() <= fails;
            let error = error.clone();
            async move { if fails { Err(error) } else { Ok(()) } }
        });
        let done = done.await;
        (count.get(), done)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_asked_again_until_the_time_is_over_and_nothing_else() {
        let away = StoreError::Disk("lock timeout".to_owned());
        assert_eq!(asked(3, away.clone()).await, (4, Ok(())));
        let began = Instant::now();
        let (count, failed) = asked(u32::MAX, away.clone()).await;
        assert_eq!(failed, Err(away));
        assert!((5..20).contains(&count), "{count}");
        assert!(began.elapsed() <= Duration::from_secs(4));
        let newer = StoreError::Newer { found: 9, known: 3 };
        assert_eq!(asked(3, newer.clone()).await, (1, Err(newer)));
    }
}
