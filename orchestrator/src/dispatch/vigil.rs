//! How long a worker that took an order is waited for: for its turn, for the first piece, for each
//! further one. Pure: the time, and what was heard on the link, are passed in. (SCH-8)
//!
//! The times that are configured end an attempt. Long before them an answer is *in doubt*, and goes
//! to another worker if there is one: at once where the worker's link is quiet, since it was asked and
//! said nothing [T-LNK-5], and where its process lives, when the next piece is overdue by what was
//! learnt of its pace. An engine that pauses, as where it reads a large prompt of somebody else's, is
//! given some times its pace: leaving it means work for others.

use super::pace::Pace;
use super::paces::Learnt;
use std::time::Duration;

/// How often a piece that does not come is looked after.
pub(super) const LOOK_MS: u64 = 100;
/// Times the patience that its pace tells.
const PATIENCE: u64 = 4;
/// The least of it.
const LEAST_PATIENCE_MS: u64 = 2_000;
/// A look that comes so much later than it was due shows that this process was not run: what was not
/// read in that time may have come.
const LATE_MS: u64 = 50;

/// The configured times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the request's turn at the worker.
    pub(super) queue_ms: u64,
    /// From the turn to the first piece.
    pub(super) first_ms: u64,
    /// From one piece to the next.
    pub(super) stall_ms: u64,
}

/// What follows from the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing yet.
    Wait,
    /// Another worker should go on, if there is one.
    Doubt,
    /// The request's turn did not come in time.
    NoTurn,
    /// The next piece did not come in time, whoever else is there.
    Stalled,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Queued,
    Reading { tokens: u32 },
    Giving,
}

/// The wait for a worker.
#[derive(Clone, Debug)]
pub(super) struct Vigil {
    limits: Limits,
    learnt: Learnt,
    pace: Pace,
    phase: Phase,
    /// Since when the next event is waited for.
    since_ms: u64,
    look_ms: u64,
    /// Since when the link is quiet.
    quiet_ms: Option<u64>,
    /// We were not reading for a part of this wait.
    is_unfit: bool,
}

impl Vigil {
    /// Of a worker that has just accepted.
    pub(super) fn new(limits: Limits, learnt: Learnt, now_ms: u64) -> Self {
        Self {
            limits,
            learnt,
            pace: Pace::new(limits.stall_ms, Some(learnt.gaps)),
            phase: Phase::Queued,
            since_ms: now_ms,
            look_ms: now_ms,
            quiet_ms: None,
            is_unfit: false,
        }
    }

    /// Whether the request waits its turn.
    pub(super) fn is_queued(&self) -> bool {
        self.phase == Phase::Queued
    }

    /// The turn came; the prompt, and what was given already, have so many tokens.
    pub(super) fn begun(&mut self, tokens: u32, now_ms: u64) {
        self.phase = Phase::Reading { tokens };
        self.waits(now_ms);
    }

    /// A part of what was given already is told again: the worker reads.
    pub(super) fn told_again(&mut self, now_ms: u64) {
        if self.phase == Phase::Queued {
            self.phase = Phase::Reading { tokens: 0 };
        }
        self.waits(now_ms);
        // What follows was not read since the turn came.
        self.is_unfit = true;
    }

    /// A piece came.
    pub(super) fn piece(&mut self, now_ms: u64) {
        let took_ms = now_ms.saturating_sub(self.since_ms);
        if let Phase::Reading { tokens } = self.phase
            && tokens > 0
            && !self.is_unfit
        {
            let first = &mut self.learnt.first;
            first.add(took_ms, tokens, self.limits.first_ms);
        }
        self.phase = Phase::Giving;
        self.pace.piece(now_ms);
        self.waits(now_ms);
    }

    /// What came was given away; from now on the next is read. Where that took its time, since nobody
    /// took what was given, the worker was held back, and the gap is not its own.
    pub(super) fn reads(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.since_ms) > LATE_MS {
            self.held_back(now_ms);
        }
    }

    /// The link is quiet.
    pub(super) fn quiet(&mut self, now_ms: u64) {
        self.quiet_ms = Some(now_ms);
        self.look_ms = now_ms;
    }

    /// It is not any more.
    pub(super) fn lively(&mut self) {
        self.quiet_ms = None;
    }

    /// For how long it is.
    pub(super) fn silent(&self, now_ms: u64) -> Duration {
        let since_ms = self.quiet_ms.unwrap_or(now_ms);
        Duration::from_millis(now_ms.saturating_sub(since_ms))
    }

    /// When to look again.
    pub(super) fn wake_ms(&self) -> u64 {
        match self.phase {
            Phase::Queued if self.quiet_ms.is_none() => self.end_ms(),
            _ => self.look_ms.min(self.end_ms()),
        }
    }

    /// Looks.
    pub(super) fn judge(&mut self, now_ms: u64) -> Verdict {
        let late_ms = now_ms.saturating_sub(self.wake_ms());
        if late_ms > LATE_MS {
            self.held_back(self.since_ms.saturating_add(late_ms));
            self.look_ms = now_ms.saturating_add(LATE_MS);
            return Verdict::Wait;
        }
        self.look_ms = now_ms.saturating_add(LOOK_MS);
        if now_ms >= self.end_ms() {
            return match self.phase {
                Phase::Queued => Verdict::NoTurn,
                Phase::Reading { .. } | Phase::Giving => Verdict::Stalled,
            };
        }
        let waited_ms = now_ms.saturating_sub(self.since_ms);
        let is_overdue = self.quiet_ms.is_some()
            || (self.patience_ms()).is_some_and(|patience_ms| waited_ms >= patience_ms);
        if is_overdue {
            Verdict::Doubt
        } else {
            Verdict::Wait
        }
    }

    /// What is known of the worker by now.
    pub(super) fn learnt(&self) -> Learnt {
        Learnt {
            gaps: self.pace.learnt(),
            ..self.learnt
        }
    }

    fn patience_ms(&self) -> Option<u64> {
        let patience_ms = match self.phase {
            Phase::Queued => return None,
            Phase::Reading { tokens } => self.learnt.first.patience_ms(tokens)?,
            Phase::Giving => self.pace.patience_ms(),
        };
        Some(patience_ms.saturating_mul(PATIENCE).max(LEAST_PATIENCE_MS))
    }

    fn end_ms(&self) -> u64 {
        let limit_ms = match self.phase {
            Phase::Queued => self.limits.queue_ms,
            Phase::Reading { .. } => self.limits.first_ms,
            Phase::Giving => self.limits.stall_ms,
        };
        self.since_ms.saturating_add(limit_ms)
    }

    /// The wait for the next event begins.
    fn waits(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
        self.look_ms = now_ms.saturating_add(LOOK_MS);
        self.quiet_ms = None;
        self.is_unfit = false;
    }

    /// It begins later than it seemed.
    fn held_back(&mut self, since_ms: u64) {
        self.is_unfit = true;
        self.since_ms = since_ms;
        self.look_ms = since_ms.saturating_add(LOOK_MS);
        if self.phase == Phase::Giving {
            self.pace.reads(since_ms);
        }
    }
}

#[cfg(test)]
#[path = "vigil/tests.rs"]
mod tests;
