//! When something on the DHT is done again. Pure: randomness is passed in.

use rand::Rng;
use std::time::Duration;

/// The DHT forgets after 20 minutes and its nodes come and go: renewing every 2½ minutes bridges
/// several lost renewals, and costs some 50 datagrams each.
const PERIOD: Duration = Duration::from_secs(150);
/// A node that has just started often does so together with its bootstrap nodes, whose tables are
/// then nearly empty: the first renewals come sooner, so that others find it on better nodes too.
const EARLY: [Duration; 3] = [
    Duration::from_secs(5),
    Duration::from_secs(20),
    Duration::from_secs(60),
];
/// Share of the period by which it varies, so that a fleet started at once does not stay in step.
const JITTER: f64 = 0.2;
/// First and longest pause after a failure. It never stops for good.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// The rhythm of one thing that is renewed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Schedule {
    successes: usize,
    failures: u32,
}

impl Schedule {
    /// How long to wait after this outcome.
    pub(crate) fn next(&mut self, ok: bool, rng: &mut impl Rng) -> Duration {
        if ok {
            self.failures = 0;
            let period = EARLY.get(self.successes).copied().unwrap_or(PERIOD);
            self.successes += 1;
            return period.mul_f64(rng.random_range(1.0 - JITTER..=1.0 + JITTER));
        }
        let longest = RETRY_FIRST
            .saturating_mul(1 << self.failures.min(16))
            .min(RETRY_LONGEST);
        self.failures = self.failures.saturating_add(1);
        // Between half and all of it: full jitter would let the first retry come at once.
        longest.mul_f64(rng.random_range(0.5..=1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    #[test]
    fn renewals_come_soon_at_first_and_then_every_few_minutes() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut schedule = Schedule::default();
        let waits: Vec<_> = (0..6).map(|_| schedule.next(true, &mut rng)).collect();
        assert!(waits[0] <= Duration::from_secs(6));
        for wait in &waits[3..] {
            assert!((120.0..=180.0).contains(&wait.as_secs_f64()), "{wait:?}");
        }
        assert_ne!(waits[4], waits[5], "jitter");
    }

    #[test]
    fn failures_back_off_to_a_bound_and_a_success_forgets_them() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut schedule = Schedule::default();
        let waits: Vec<_> = (0..100).map(|_| schedule.next(false, &mut rng)).collect();
        assert!(waits[0] <= RETRY_FIRST);
        assert!(waits[99] <= RETRY_LONGEST && waits[99] >= RETRY_LONGEST / 2);
        schedule.next(true, &mut rng);
        assert!(schedule.next(false, &mut rng) <= RETRY_FIRST);
    }
}
