//! How long a request pauses before its next attempt. Pure.
//!
//! When a worker dies, many requests look for another one at once. Full jitter spreads them over
//! the whole pause (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), and
//! the pauses are short: somebody waits for the first token.

use rand::Rng;
use std::time::Duration;

/// Longest pause before the second attempt; it doubles with each further one.
const BASE_MS: u64 = 50;
/// Longest pause before any attempt.
const CAP_MS: u64 = 250;

/// The pause after so many attempts (from 1) that failed, never longer than the time that is left.
pub(super) fn pause(failed: u32, left: Duration, rng: &mut impl Rng) -> Duration {
    let doubled = 2_u64.saturating_pow(failed.saturating_sub(1));
    let longest = BASE_MS.saturating_mul(doubled).min(CAP_MS);
    Duration::from_millis(rng.random_range(0..=longest)).min(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn pauses(failed: u32, left: Duration) -> Vec<u128> {
        let mut rng = StdRng::seed_from_u64(u64::from(failed));
        let mut draw = || pause(failed, left, &mut rng).as_millis();
        (0..5_000).map(|_| draw()).collect()
    }

    #[test]
    fn pauses_are_spread_from_nothing_to_a_bound_that_doubles_up_to_the_cap() {
        let day = Duration::from_secs(86_400);
        for (failed, longest) in [(1, 50), (2, 100), (3, 200), (4, 250), (u32::MAX, 250)] {
            let drawn = pauses(failed, day);
            assert_eq!(drawn.iter().max(), Some(&longest), "after {failed}");
            assert_eq!(drawn.iter().min(), Some(&0), "after {failed}");
        }
    }

    #[test]
    fn a_pause_never_outlasts_the_callers_time() {
        let drawn = pauses(3, Duration::from_millis(7));
        assert_eq!(drawn.iter().max(), Some(&7));
    }
}
