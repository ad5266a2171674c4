//! How long answers take from their turn to their end, for the work that they were said to be. Pure.
//!
//! As a timer of retransmissions is learnt (V. Jacobson, "Congestion Avoidance and Control", 1988): the
//! mean and its deviation, newer answers counting more.

/// Answers that must have been seen before anything is foretold.
const LEAST_ANSWERS: u32 = 8;
/// Each new answer counts for a 32nd of mean and deviation.
const MEMORY: u32 = 32;
/// Deviations beyond the mean that are allowed for.
const DEVIATIONS: f64 = 2.0;

/// How long an answer is to be expected to take, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foretold {
    /// As likely less as more.
    pub mean_ms: u64,
    /// Seldom more.
    pub most_ms: u64,
}

/// Milliseconds for each unit of work.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lasting {
    answers: u32,
    mean: f64,
    deviation: f64,
}

impl Lasting {
    /// An answer of so much work was whole so long after its turn.
    pub(super) fn answered(&mut self, work: u32, took_ms: u64) {
        #[expect(
            clippy::cast_precision_loss,
            reason = "times of less than a day are exact"
        )]
        let per_work = took_ms as f64 / f64::from(work.max(1));
        self.answers = self.answers.saturating_add(1);
        let share = 1.0 / f64::from(self.answers.min(MEMORY));
        let off = per_work - self.mean;
        if self.answers > 1 {
            self.deviation += share * (off.abs() - self.deviation);
        }
        self.mean += share * off;
    }

    /// How long an answer of so much work is to be expected to take; nothing while too little was
    /// seen.
    pub(super) fn of(&self, work: u32) -> Option<Foretold> {
        if self.answers < LEAST_ANSWERS {
            return None;
        }
        let ms = |per_work: f64| super::millis(per_work * f64::from(work.max(1)));
        Some(Foretold {
            mean_ms: ms(self.mean),
            most_ms: ms(self.mean + DEVIATIONS * self.deviation),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(answers: impl IntoIterator<Item = (u32, u64)>) -> Lasting {
        let mut lasting = Lasting::default();
        for (work, took_ms) in answers {
            lasting.answered(work, took_ms);
        }
        lasting
    }

    #[test]
    fn answers_that_take_as_long_as_their_work_are_foretold_by_it() {
        let some = |count: usize| after([(10, 500), (20, 1_000)].into_iter().cycle().take(count));
        let exactly = |ms| Foretold {
            mean_ms: ms,
            most_ms: ms,
        };
        assert_eq!(some(7).of(10), None, "too little was seen");
        assert_eq!(some(8).of(10), Some(exactly(500)));
        assert_eq!(some(99).of(1), Some(exactly(50)));
        assert_eq!(some(99).of(40), Some(exactly(2_000)));
        assert_eq!(
            some(99).of(0),
            Some(exactly(50)),
            "there is always some work"
        );
    }

    #[test]
    fn where_they_vary_more_is_allowed_for_than_their_mean() {
        let varied = after([(1, 100), (1, 300)].into_iter().cycle().take(64));
        let it = varied.of(1).expect("known");
        assert!((180..=220).contains(&it.mean_ms), "{it:?}");
        assert!((350..=450).contains(&it.most_ms), "{it:?}");
    }

    #[test]
    fn what_was_slow_once_is_forgotten() {
        let slow = [(1, 9_000); 20].into_iter();
        let quick = after(slow.chain([(1, 90); 400]));
        let it = quick.of(1).expect("known");
        assert!((90..=95).contains(&it.most_ms), "{it:?}");
    }
}
