//! How fast this worker was of late: what its heartbeats and its times to come again are made of.

use std::collections::VecDeque;

/// Answers that are looked back at.
const WINDOW: usize = 32;

/// One answer that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Tokens that were drawn.
    pub tokens: u32,
    /// Milliseconds from its turn in the engine to its first token.
    pub first_token_ms: u64,
    /// Unix milliseconds at which its turn came.
    pub began_ms: u64,
    /// Unix milliseconds at which it ended.
    pub ended_ms: u64,
}

impl Finished {
    fn took_ms(&self) -> u64 {
        self.ended_ms.saturating_sub(self.began_ms)
    }
}

/// The last answers.
#[derive(Debug, Default)]
pub struct Pace {
    last: VecDeque<Finished>,
}

impl Pace {
    /// An answer came to its end.
    pub fn finished(&mut self, answer: Finished) {
        if self.last.len() >= WINDOW {
            self.last.pop_front();
        }
        self.last.push_back(answer);
    }

    /// Tokens in a second over all requests, while there were any; 0 before the first answer.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a pace, not an account")]
    pub fn tokens_per_s(&self) -> f32 {
        let tokens: u64 = self.last.iter().map(|a| u64::from(a.tokens)).sum();
        let mut spans: Vec<(u64, u64)> =
            self.last.iter().map(|a| (a.began_ms, a.ended_ms)).collect();
        spans.sort_unstable();
        let (mut busy_ms, mut until) = (0_u64, 0_u64);
        for (began, ended) in spans {
            busy_ms += ended.saturating_sub(began.max(until));
            until = until.max(ended);
        }
        if busy_ms == 0 {
            return 0.0;
        }
        tokens as f32 * 1_000.0 / busy_ms as f32
    }

    /// Median milliseconds to the first token; 0 before the first answer.
    #[must_use]
    pub fn first_token_ms(&self) -> u64 {
        median(self.last.iter().map(|a| a.first_token_ms).collect())
    }

    /// Median milliseconds of an answer; 0 before the first one.
    #[must_use]
    pub fn answer_ms(&self) -> u64 {
        median(self.last.iter().map(Finished::took_ms).collect())
    }
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answers_count_and_older_ones_do_not() {
        let mut pace = Pace::default();
        assert_eq!((pace.answer_ms(), pace.first_token_ms()), (0, 0));
        assert!(pace.tokens_per_s() == 0.0);
        let answer = |first_token_ms, at: u64| Finished {
            tokens: 10,
            first_token_ms,
            began_ms: at,
            ended_ms: at + 1_000,
        };
        for _ in 0..100 {
            pace.finished(answer(9_999, 0));
        }
        // Two at a time, with an idle hour in the middle.
        for n in 0..WINDOW as u64 {
            let idle = if n < 16 { 0 } else { 3_600_000 };
            pace.finished(answer(n, n / 2 * 1_000 + idle));
        }
        assert_eq!(pace.last.len(), WINDOW);
        assert_eq!(pace.first_token_ms(), WINDOW as u64 / 2);
        assert_eq!(pace.answer_ms(), 1_000);
        assert!((pace.tokens_per_s() - 20.0).abs() < 0.01);
    }
}
