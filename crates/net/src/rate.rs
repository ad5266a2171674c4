//! A token bucket. Pure.

/// Lets `per_second` through on average and `burst` at once.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_second: u32,
    burst: u32,
    /// Thousandths of a token, so that no time is lost to rounding.
    milli_tokens: u64,
    last_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        Self {
            per_second,
            burst,
            milli_tokens: u64::from(burst) * 1_000,
            last_ms: now_ms,
        }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now_ms: u64) -> bool {
        self.fill(now_ms);
        let there = self.milli_tokens >= 1_000;
        if there {
            self.milli_tokens -= 1_000;
        }
        there
    }

    /// How many tokens there are.
    pub fn left(&mut self, now_ms: u64) -> u32 {
        self.fill(now_ms);
        u32::try_from(self.milli_tokens / 1_000).unwrap_or(u32::MAX)
    }

    /// Whether nothing was taken for so long that it may be forgotten.
    pub fn is_full(&mut self, now_ms: u64) -> bool {
        self.fill(now_ms);
        self.milli_tokens == u64::from(self.burst) * 1_000
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(now_ms);
        self.milli_tokens = passed
            .saturating_mul(u64::from(self.per_second))
            .saturating_add(self.milli_tokens)
            .min(u64::from(self.burst) * 1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = TokenBucket::new(2, 3, 0);
        assert_eq!((0..10).filter(|_| bucket.take(0)).count(), 3);
        assert!(!bucket.take(499) && bucket.left(499) == 0);
        assert!(bucket.take(500) && !bucket.is_full(1_000) && bucket.is_full(2_000));
        assert_eq!((0..10).filter(|_| bucket.take(60_000)).count(), 3);
    }

    #[test]
    fn a_clock_that_goes_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1, 1, 10_000);
        assert!(bucket.take(10_000));
        assert!(!bucket.take(0));
        assert!(!bucket.take(10_500), "not counted twice");
    }
}
