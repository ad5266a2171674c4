//! When a worker that died is started again. Pure: how long it ran goes in, the pause comes out.

use std::time::Duration;

/// Pause before the first restart. Short: a request may be waiting for this very worker.
const FIRST: Duration = Duration::from_millis(250);
/// Longest pause: a worker that cannot start costs one attempt in this time and no more.
const LONGEST: Duration = Duration::from_secs(5);
/// A worker that ran for this time was healthy; what happened before is forgotten.
const HEALTHY: Duration = Duration::from_secs(10);

/// How often a worker died in a row, soon after its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Backoff {
    early_deaths: u32,
}

impl Backoff {
    /// A worker died that had run for this time: the pause before its next start.
    pub(crate) fn died(&mut self, ran_for: Duration) -> Duration {
        if ran_for >= HEALTHY {
            self.early_deaths = 0;
        }
        let pause = FIRST.saturating_mul(2_u32.saturating_pow(self.early_deaths));
        self.early_deaths = self.early_deaths.saturating_add(1);
        pause.min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_comes_within_a_second_and_none_waits_longer_than_five() {
        let mut backoff = Backoff::default();
        let pauses: Vec<Duration> = (0..100).map(|_| backoff.died(Duration::ZERO)).collect();
        assert!(pauses[0] < Duration::from_secs(1));
        assert!(pauses.windows(2).all(|pair| pair[0] <= pair[1]));
        assert_eq!(pauses[99], LONGEST);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
    }

    #[test]
    fn ten_seconds_of_health_are_a_new_beginning() {
        let mut backoff = Backoff::default();
        for _ in 0..10 {
            backoff.died(Duration::from_secs(9));
        }
        assert_eq!(backoff.died(HEALTHY), FIRST);
        assert_eq!(backoff.died(Duration::from_secs(1)), FIRST * 2);
    }
}
