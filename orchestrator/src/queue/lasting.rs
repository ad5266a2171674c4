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
    pub(super) fn ms(&self, work: u32) -> Option<u64> {
        let per_work = self.mean + DEVIATIONS * self.deviation;
        (self.answers >= LEAST_ANSWERS).then(|| super::millis(per_work * f64::from(work.max(1))))
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
        assert_eq!(some(7).ms(10), None, "too little was seen");
        assert_eq!(some(8).ms(10), Some(500));
        assert_eq!((some(99).ms(1), some(99).ms(40)), (Some(50), Some(2_000)));
        assert_eq!(some(99).ms(0), Some(50), "there is always some work");
    }

    #[test]
    fn where_they_vary_more_is_allowed_for_than_their_mean() {
        let varied = after([(1, 100), (1, 300)].into_iter().cycle().take(64));
        let ms = varied.ms(1).expect("known");
        assert!((350..=450).contains(&ms), "{ms}");
    }

    #[test]
    fn what_was_slow_once_is_forgotten() {
        let slow = [(1, 9_000); 20].into_iter();
        let quick = after(slow.chain([(1, 90); 400]));
        assert!(quick.ms(1).is_some_and(|ms| (90..=95).contains(&ms)));
    }
}
