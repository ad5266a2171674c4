//! Clocks that are wrong, as those of real hosts are.

use crate::queue::{MS, Us};
use crate::random::Random;

/// Unix milliseconds at which every run starts.
const START_UNIX_MS: i64 = 1_800_000_000_000;

/// The clocks of a host: the wall clock is off by a skew and runs too fast or slow by a drift; the
/// monotonic one has the same drift and starts anywhere.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    skew_ms: i64,
    drift_ppm: i64,
    booted_ms: u64,
}

impl Clock {
    /// A clock whose skew and drift are anywhere within these, either way.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "validated to be minutes at most"
    )]
    pub fn draw(random: &mut Random, skew_ms: f64, drift_ppm: f64) -> Self {
        Self {
            skew_ms: random.between(-skew_ms, skew_ms).round() as i64,
            drift_ppm: random.between(-drift_ppm, drift_ppm).round() as i64,
            booted_ms: random.any() % 1_000_000_000,
        }
    }

    /// Milliseconds since the start of the run, as this host counts them.
    fn elapsed_ms(self, now: Us) -> i64 {
        let us = i64::try_from(now).unwrap_or(i64::MAX / 2);
        (us + us / 1_000_000 * self.drift_ppm) / 1_000
    }

    /// What the wall clock shows.
    #[must_use]
    pub fn unix_ms(self, now: Us) -> u64 {
        u64::try_from(START_UNIX_MS + self.skew_ms + self.elapsed_ms(now)).unwrap_or(0)
    }

    /// What the monotonic clock shows.
    #[must_use]
    pub fn mono_ms(self, now: Us) -> u64 {
        self.booted_ms + u64::try_from(self.elapsed_ms(now)).unwrap_or(0)
    }

    /// How long a wait by this clock takes in truth.
    #[must_use]
    pub fn wait(self, ms: u64) -> Us {
        let us = i64::try_from(ms * MS).unwrap_or(i64::MAX / 2);
        u64::try_from(us - us / 1_000_000 * self.drift_ppm).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::SECOND;

    #[test]
    fn a_drifting_clock_gains_what_its_drift_says() {
        let clock = Clock {
            skew_ms: -2_000,
            drift_ppm: 1_000,
            booted_ms: 7,
        };
        let hour = 3_600 * SECOND;
        assert_eq!(clock.unix_ms(hour) - clock.unix_ms(0), 3_603_600);
        assert_eq!(clock.mono_ms(hour), 7 + 3_603_600);
        assert_eq!(clock.wait(10_000), 9_990_000);
    }
}
