//! Lines that strangers can cause are logged at a bounded rate. Pure: the time is passed in.

use std::time::{Duration, Instant};

/// Lines that may come at once, and the time in which one more becomes free.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_millis(500);

/// What is left for now.
#[derive(Debug)]
pub(crate) struct LogBudget {
    left: u32,
    refilled: Instant,
    suppressed: u64,
}

impl LogBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            refilled: now,
            suppressed: 0,
        }
    }

    /// Whether a line may be logged; if so, how many were not since the last.
    pub(crate) fn spend(&mut self, now: Instant) -> Option<u64> {
        let since = now.saturating_duration_since(self.refilled);
        let more = u32::try_from(since.as_millis() / REFILL.as_millis()).unwrap_or(BURST);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(BURST);
            self.refilled = now;
        }
        if self.left == 0 {
            self.suppressed += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_does_not_flood_the_log() {
        let start = Instant::now();
        let mut budget = LogBudget::new(start);
        let logged = (0..1000).filter(|_| budget.spend(start).is_some()).count();
        assert_eq!(logged, BURST as usize);
        assert_eq!(
            budget.spend(start + REFILL),
            Some(980),
            "later lines say how many are missing"
        );
        assert_eq!(budget.spend(start + REFILL), None);
    }
}
