//! When requests come: as often as is asked on average, each at a time of its own (a Poisson process).
//! Pure.

use rand::Rng;
use rand::rngs::StdRng;
use std::time::Duration;

/// Times from the beginning, in order, until a time is over.
pub(super) struct Arrivals {
    per_s: f64,
    lasts_s: f64,
    at_s: f64,
    rng: StdRng,
}

impl Arrivals {
    pub(super) fn new(per_s: f64, lasts: Duration, rng: StdRng) -> Self {
        Self {
            per_s,
            lasts_s: lasts.as_secs_f64(),
            at_s: 0.0,
            rng,
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // Never the logarithm of nothing: what is drawn is below one.
        let drawn: f64 = self.rng.random();
        self.at_s += -(1.0 - drawn).ln() / self.per_s;
        // A rate of nothing never comes.
        let is_over = self.at_s.is_nan() || self.at_s >= self.lasts_s;
        (!is_over).then(|| Duration::from_secs_f64(self.at_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn as_many_come_as_were_asked_for_and_none_after_the_end() {
        let lasts = Duration::from_secs(1_000);
        let all: Vec<_> = Arrivals::new(20.0, lasts, StdRng::seed_from_u64(1)).collect();
        assert!((19_400..20_600).contains(&all.len()), "{}", all.len());
        assert!(all.windows(2).all(|pair| pair[0] <= pair[1]));
        assert!(all.last().is_some_and(|last| *last < lasts));
        let nobody = Arrivals::new(0.0, lasts, StdRng::seed_from_u64(1));
        assert_eq!(nobody.count(), 0);
    }
}
