//! A token bucket. Pure.

/// Parts of a token, so that no time is lost to rounding: what a rate of one in a minute gives in a
/// millisecond.
const PARTS: i64 = 60_000;

/// Lets a rate through on average and `burst` at once.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    per_minute: u64,
    burst: u32,
    /// In parts of a token; below zero is a debt.
    parts: i64,
    last_ms: u64,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        Self {
            per_minute: u64::from(per_second) * 60,
            ..Self::per_minute(0, burst, now_ms)
        }
    }

    /// A full bucket with a rate of so many in a minute.
    #[must_use]
    pub fn per_minute(per_minute: u32, burst: u32, now_ms: u64) -> Self {
        Self {
            per_minute: u64::from(per_minute),
            burst,
            parts: i64::from(burst) * PARTS,
            last_ms: now_ms,
        }
    }

    /// Takes one token, if there is one.
    pub fn take(&mut self, now_ms: u64) -> bool {
        self.fill(now_ms);
        let there = self.parts >= PARTS;
        if there {
            self.parts -= PARTS;
        }
        there
    }

    /// Takes so many, also where there are fewer: the rest is a debt.
    pub fn charge(&mut self, tokens: u32, now_ms: u64) {
        self.fill(now_ms);
        self.parts = self.parts.saturating_sub(i64::from(tokens) * PARTS);
    }

    /// Milliseconds until there is a token; the largest number when there never is.
    pub fn wait_ms(&mut self, now_ms: u64) -> u64 {
        self.fill(now_ms);
        let missing = u64::try_from(PARTS.saturating_sub(self.parts)).unwrap_or(0);
        match (missing, self.per_minute) {
            (0, _) => 0,
            (_, 0) => u64::MAX,
            (missing, rate) => missing.div_ceil(rate),
        }
    }

    /// How many tokens there are.
    pub fn left(&mut self, now_ms: u64) -> u32 {
        self.fill(now_ms);
        u32::try_from(self.parts.max(0) / PARTS).unwrap_or(u32::MAX)
    }

    /// Whether nothing was taken for so long that it may be forgotten.
    pub fn is_full(&mut self, now_ms: u64) -> bool {
        self.fill(now_ms);
        self.parts == i64::from(self.burst) * PARTS
    }

    fn fill(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.last_ms);
        self.last_ms = self.last_ms.max(now_ms);
        let more = i64::try_from(passed.saturating_mul(self.per_minute)).unwrap_or(i64::MAX);
        self.parts = more
            .saturating_add(self.parts)
            .min(i64::from(self.burst) * PARTS);
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

    #[test]
    fn a_debt_is_paid_at_the_rate_and_the_wait_is_exact() {
        let mut bucket = TokenBucket::per_minute(7, 2, 0);
        assert_eq!(bucket.wait_ms(0), 0);
        bucket.charge(9, 0);
        assert_eq!(bucket.left(0), 0);
        let wait = bucket.wait_ms(0);
        assert_eq!(wait, (8 * 60_000_u64).div_ceil(7));
        assert!(bucket.wait_ms(wait - 1) > 0);
        assert!(bucket.take(wait));
        let mut never = TokenBucket::new(0, 1, 0);
        assert!(never.take(0));
        assert_eq!(never.wait_ms(9), u64::MAX);
        never.charge(u32::MAX, 9);
        assert!(!never.is_full(u64::MAX));
    }
}
