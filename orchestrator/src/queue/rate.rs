//! How fast a queue goes on, seen from the turns that it gave while somebody waited. Pure.
//!
//! Only then: while nobody waits, turns are as frequent as requests, however fast the workers are.

/// What was seen counts half after so long.
const HALF_LIFE_MS: f64 = 5_000.0;
/// Turns that must have been seen before a rate is formed.
const LEAST_TURNS: u32 = 8;

/// Work and the time that it took, older parts of both counting less.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    work: f64,
    time_ms: f64,
    turns: u32,
    /// The last turn, while others wait.
    last_ms: Option<u64>,
}

impl Rate {
    /// Somebody waits: from now on time counts, if it did not.
    pub(super) fn waits(&mut self, now_ms: u64) {
        self.last_ms = self.last_ms.or(Some(now_ms));
    }

    /// A turn was given, and whether others wait still.
    pub(super) fn turn(&mut self, work: u32, more: bool, now_ms: u64) {
        let (mut then, time_ms) = self.until(now_ms);
        then += f64::from(work);
        (self.work, self.time_ms) = (then, time_ms);
        self.turns = self.turns.saturating_add(1);
        self.last_ms = more.then_some(now_ms);
    }

    /// Nobody waits any more, and there was no turn.
    pub(super) fn idle(&mut self, now_ms: u64) {
        (self.work, self.time_ms) = self.until(now_ms);
        self.last_ms = None;
    }

    /// Work in a millisecond; nothing while too little was seen.
    pub(super) fn per_ms(&self, now_ms: u64) -> Option<f64> {
        let (work, time_ms) = self.until(now_ms);
        let is_known = self.turns >= LEAST_TURNS && time_ms > 0.0 && work > 0.0;
        is_known.then(|| work / time_ms)
    }

    fn until(&self, now_ms: u64) -> (f64, f64) {
        let Some(last_ms) = self.last_ms else {
            return (self.work, self.time_ms);
        };
        #[expect(
            clippy::cast_precision_loss,
            reason = "times of less than a day are exact"
        )]
        let passed_ms = now_ms.saturating_sub(last_ms) as f64;
        let kept = (-passed_ms / HALF_LIFE_MS).exp2();
        (self.work * kept, self.time_ms * kept + passed_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A turn each so many milliseconds, for so long.
    fn steady(rate: &mut Rate, from_ms: u64, gap_ms: u64, for_ms: u64) -> u64 {
        let mut now_ms = from_ms;
        rate.waits(now_ms);
        while now_ms < from_ms + for_ms {
            now_ms += gap_ms;
            rate.turn(3, true, now_ms);
        }
        now_ms
    }

    fn per_s(rate: &Rate, now_ms: u64) -> f64 {
        rate.per_ms(now_ms).expect("known") * 1_000.0
    }

    #[test]
    fn the_rate_is_that_of_turns_while_others_wait() {
        let mut rate = Rate::default();
        assert_eq!(rate.per_ms(0), None);
        let now_ms = steady(&mut rate, 0, 10, 2_000);
        assert!((per_s(&rate, now_ms) - 300.0).abs() < 3.0);
        rate.idle(now_ms);
        assert!((per_s(&rate, now_ms + 60_000) - 300.0).abs() < 3.0, "idle");
        let now_ms = steady(&mut rate, now_ms + 60_000, 20, 20_000);
        let slower = per_s(&rate, now_ms);
        assert!((slower - 150.0).abs() < 12.0, "{slower}");
    }

    #[test]
    fn workers_that_are_gone_show_before_the_next_turn() {
        let mut rate = Rate::default();
        let now_ms = steady(&mut rate, 0, 10, 10_000);
        assert!(per_s(&rate, now_ms + 5_000) < 170.0);
        assert!(per_s(&rate, now_ms + 30_000) < 5.0);
    }

    #[test]
    fn a_clock_that_goes_back_counts_as_no_time() {
        let mut rate = Rate::default();
        let now_ms = steady(&mut rate, 50_000, 10, 2_000);
        rate.turn(3, true, 10);
        let seen = per_s(&rate, 10);
        assert!((250.0..350.0).contains(&seen), "{seen} {now_ms}");
    }
}
