//! Whether a request that failed at a worker is tried again, and after which pause. Pure: time,
//! randomness and the budget are passed in. (SCH-4, SCH-8)
//!
//! When a worker dies, many requests look for another one at once. Full jitter spreads them over
//! the whole pause (M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015), and
//! the pauses are short: somebody waits for the first token.
//!
//! Retries of what gave nothing yet come out of a [`Budget`], so that they cannot multiply an
//! outage. Where an answer had begun they are outside of it: the work up to there is done, and the
//! tenant would lose it. A hand-over after progress starts the count of attempts anew; how often one
//! answer may be handed over is bounded instead.

mod budget;
mod settings;

pub use budget::Budget;
pub use settings::{MAX_ATTEMPTS, RetrySettings};

use rand::Rng;

/// Most hand-overs in one answer.
pub const MAX_HAND_OVERS: u32 = 16;

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No other worker would do better: the tenant's own error, or ours.
    Final,
    /// Before anything of the answer came, from this attempt or another.
    Early,
    /// Before this attempt gave anything, of an answer that others had begun.
    Between,
    /// After it had given some of the answer.
    AfterProgress,
}

/// What a request has gone through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    /// Attempts since the answer last made progress, or since it began.
    pub attempts: u32,
    /// Hand-overs.
    pub hand_overs: u32,
}

/// A request whose attempt failed.
#[derive(Clone, Copy, Debug)]
pub struct Situation {
    /// How.
    pub failure: Failure,
    /// What it went through, this attempt included.
    pub tries: Tries,
    /// Milliseconds until its deadline.
    pub left_ms: u64,
    /// How long whoever would be asked next wants to be left alone, by its own word or by a
    /// breaker's. What one worker said binds no other; so nothing, where another one is there.
    pub retry_after_ms: Option<u64>,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Another attempt.
    Retry {
        /// After this pause.
        after_ms: u64,
        /// What the request will have gone through when it begins.
        tries: Tries,
    },
    /// None.
    GiveUp(Why),
}

/// Why there is no further attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It would fail everywhere.
    Final,
    /// Nobody else is there.
    Nobody,
    /// It had all its attempts.
    Attempts,
    /// It was handed over as often as an answer may be.
    HandOvers,
    /// Too little time is left.
    Deadline,
    /// Whoever would be asked next wants to be left alone for too long: callers are told.
    Later,
    /// Too much of the traffic of late was retries.
    Budget,
}

impl Why {
    /// Its name in metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Nobody => "nobody",
            Self::Attempts => "attempts",
            Self::HandOvers => "hand-overs",
            Self::Deadline => "deadline",
            Self::Later => "later",
            Self::Budget => "budget",
        }
    }
}

/// Decides, and takes a retry out of the budget.
pub fn plan(
    settings: &RetrySettings,
    situation: &Situation,
    budget: &mut Budget,
    now_ms: u64,
    rng: &mut impl Rng,
) -> Plan {
    let Tries {
        attempts,
        hand_overs,
    } = situation.tries;
    let (tries, least_ms, most_ms) = match situation.failure {
        Failure::Final => return Plan::GiveUp(Why::Final),
        Failure::AfterProgress if hand_overs >= MAX_HAND_OVERS => {
            return Plan::GiveUp(Why::HandOvers);
        }
        // Somebody is reading: at once.
        Failure::AfterProgress => (handed_over(hand_overs), 0, 0),
        Failure::Early | Failure::Between if attempts >= settings.attempts => {
            return Plan::GiveUp(Why::Attempts);
        }
        Failure::Early | Failure::Between => {
            let tries = Tries {
                attempts: attempts.saturating_add(1),
                hand_overs,
            };
            (tries, 0, longest_ms(settings, attempts))
        }
    };
    let least_ms = situation.retry_after_ms.unwrap_or(least_ms);
    if least_ms > settings.max_retry_after_ms {
        return Plan::GiveUp(Why::Later);
    }
    // The pause and what an attempt needs at least must fit into the caller's time.
    let Some(room_ms) = (situation.left_ms)
        .checked_sub(settings.least_left_ms)
        .filter(|room_ms| *room_ms >= least_ms)
    else {
        return Plan::GiveUp(Why::Deadline);
    };
    if situation.failure == Failure::Early && !budget.take(settings, now_ms) {
        return Plan::GiveUp(Why::Budget);
    }
    let most_ms = least_ms.saturating_add(most_ms).min(room_ms);
    let after_ms = rng.random_range(least_ms..=most_ms);
    Plan::Retry { after_ms, tries }
}

fn handed_over(before: u32) -> Tries {
    Tries {
        attempts: 1,
        hand_overs: before.saturating_add(1),
    }
}

/// The longest pause after so many attempts (from 1).
fn longest_ms(settings: &RetrySettings, attempts: u32) -> u64 {
    let doubled = 2_u64.saturating_pow(attempts.saturating_sub(1));
    let longest = settings.base_ms.saturating_mul(doubled);
    longest.min(settings.max_pause_ms)
}

#[cfg(test)]
#[path = "retry/tests.rs"]
mod tests;

#[cfg(test)]
#[path = "retry/simulated.rs"]
mod simulated;
