//! When a worker whose process lives counts as dead. Pure: looks at the fleet go in, the decision
//! comes out.
//!
//! A process can be there and do nothing: stopped by a signal, or stuck. It ends by itself never, so
//! waiting for its end is not enough. A heartbeat is what tells the living: a worker sends one every
//! 5 s also while it loads a model, however long that takes, and has expired from the fleet after
//! 15 s without. Only a worker that was heard in this life is judged: one that never was has a reason
//! to be told, and the same start again would not change it.

use std::time::{Duration, Instant};

/// How often one looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker may be expired. A live one that lost its orchestrator dials again at least
/// every 10 s, so this is three attempts that failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// Looks that are further apart tell of our own sleep (Ctrl-Z, a machine without time to spare),
/// after which a worker needs a moment to be heard again.
const OWN_STALL: Duration = Duration::from_secs(5);

/// What is known of one worker. Its lives are told apart by the epoch of its heartbeats, which
/// grows with each start: what is left in the fleet of a life before says nothing of this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Silence {
    past_epoch: Option<u64>,
    was_heard: bool,
    since: Option<Instant>,
    looked: Option<Instant>,
}

impl Silence {
    /// The worker is started anew; the epoch under which the fleet has it still.
    pub(super) fn new_life(&mut self, epoch: Option<u64>) {
        *self = Self {
            past_epoch: epoch.max(self.past_epoch),
            ..Self::default()
        };
    }

    /// The epoch under which the fleet has the worker now, if it does: whether to end its process.
    pub(super) fn look(&mut self, now: Instant, epoch: Option<u64>) -> bool {
        let last = self.looked.replace(now);
        if epoch > self.past_epoch {
            self.was_heard = true;
            self.since = None;
            return false;
        }
        if !self.was_heard {
            return false;
        }
        if last.is_some_and(|last| now.duration_since(last) > OWN_STALL) {
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        let is_over = now.duration_since(since) >= PATIENCE;
        if is_over {
            // Told once; a process that does not even end is told of again.
            self.since = None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks once a second, from one second to another; the seconds at which the end was decided.
    fn looks(
        silence: &mut Silence,
        begin: Instant,
        seconds: std::ops::Range<u64>,
        epoch: impl Fn(u64) -> Option<u64>,
    ) -> Vec<u64> {
        seconds
            .filter(|second| silence.look(begin + Duration::from_secs(*second), epoch(*second)))
            .collect()
    }

    #[test]
    fn a_worker_that_was_heard_and_is_gone_for_long_is_ended_once() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let ended = looks(&mut silence, begin, 0..60, |second| {
            (second < 10).then_some(7)
        });
        assert_eq!(ended, [10 + 30]);
    }

    #[test]
    fn a_worker_that_comes_back_in_time_lives() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let ended = looks(&mut silence, begin, 0..600, |second| {
            (second % 31 == 0).then_some(7)
        });
        assert_eq!(ended, [0; 0]);
    }

    #[test]
    fn a_worker_that_was_never_heard_is_left_alone() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        assert_eq!(looks(&mut silence, begin, 0..600, |_| None), [0; 0]);
        // Nor is one judged by what is left of its last life.
        silence.look(begin, Some(7));
        silence.new_life(Some(7));
        let stale = looks(&mut silence, begin, 600..1_200, |second| {
            (second < 615).then_some(7)
        });
        assert_eq!(stale, [0; 0]);
        let ended = looks(&mut silence, begin, 1_200..1_260, |second| {
            (second < 1_210).then_some(8)
        });
        assert_eq!(ended, [1_240], "once it was heard it is");
    }

    #[test]
    fn our_own_sleep_is_not_the_workers_silence() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        assert!(!silence.look(begin, Some(7)));
        let back = begin + Duration::from_secs(3_600);
        assert!(!silence.look(back, None), "it could not be heard");
        let ended = looks(&mut silence, back, 1..60, |_| None);
        assert_eq!(ended, [30]);
    }
}
