//! When a worker whose process lives counts as dead. Pure: looks at the fleet go in, the decision
//! comes out.
//!
//! A process can be there and do nothing: stopped by a signal, or stuck. It ends by itself never, so
//! waiting for its end is not enough. A heartbeat is what tells the living: a worker sends one every
//! 5 s also while it loads a model, however long that takes, and has expired from the fleet after
//! 15 s without. The first of a life comes once the worker is linked, before it loads anything; one
//! that was never heard is given longer, since what keeps it may be a machine that is slow to start.

use std::fmt;
use std::time::{Duration, Instant};

/// How often one looks.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a worker may be expired. A live one that lost its orchestrator dials again at least
/// every 10 s, so this is three attempts that failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a life may go on without a first heartbeat: many times what a start takes.
const FIRST_PATIENCE: Duration = Duration::from_secs(120);
/// Looks that are further apart tell of our own sleep (Ctrl-Z, a machine without time to spare),
/// after which a worker needs a moment to be heard again.
const OWN_STALL: Duration = Duration::from_secs(5);

/// Why a process is ended that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silent {
    /// It has sent no heartbeat in this life.
    FromTheStart,
    /// It was heard, has expired from the fleet, and did not come back.
    NoLongerHeard,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromTheStart => write!(
                f,
                "was not heard of in the {} s since its start",
                FIRST_PATIENCE.as_secs()
            ),
            Self::NoLongerHeard => f.write_str("is not heard of any more"),
        }
    }
}

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

    /// The epoch under which the fleet has the worker now, if it does: whether, and why, to end its
    /// process.
    pub(super) fn look(&mut self, now: Instant, epoch: Option<u64>) -> Option<Silent> {
        let last = self.looked.replace(now);
        if epoch > self.past_epoch {
            self.was_heard = true;
            self.since = None;
            return None;
        }
        if last.is_some_and(|last| now.duration_since(last) > OWN_STALL) {
            self.since = None;
        }
        let since = *self.since.get_or_insert(now);
        let (patience, why) = match self.was_heard {
            true => (PATIENCE, Silent::NoLongerHeard),
            false => (FIRST_PATIENCE, Silent::FromTheStart),
        };
        if now.duration_since(since) < patience {
            return None;
        }
        // Told once; a process that does not even end is told of again.
        self.since = None;
        Some(why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Silent::{FromTheStart, NoLongerHeard};

    /// Looks once a second, from one second to another; the seconds at which the end was decided,
    /// and why.
    fn looks(
        silence: &mut Silence,
        begin: Instant,
        seconds: std::ops::Range<u64>,
        epoch: impl Fn(u64) -> Option<u64>,
    ) -> Vec<(u64, Silent)> {
        seconds
            .filter_map(|second| {
                let why = silence.look(begin + Duration::from_secs(second), epoch(second))?;
                Some((second, why))
            })
            .collect()
    }

    #[test]
    fn a_worker_that_was_heard_and_is_gone_for_long_is_ended_once() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let ended = looks(&mut silence, begin, 0..60, |second| {
            (second < 10).then_some(7)
        });
        assert_eq!(ended, [(10 + 30, NoLongerHeard)]);
    }

    #[test]
    fn a_worker_that_comes_back_in_time_lives() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let ended = looks(&mut silence, begin, 0..600, |second| {
            (second % 31 == 0).then_some(7)
        });
        assert_eq!(ended, []);
    }

    #[test]
    fn a_worker_that_is_never_heard_is_ended_after_a_longer_time() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        let ended = looks(&mut silence, begin, 0..300, |_| None);
        assert_eq!(ended, [(120, FromTheStart), (241, FromTheStart)]);
        // A slow start is none.
        silence.new_life(None);
        let slow = looks(&mut silence, begin, 300..500, |second| {
            (second >= 300 + 119).then_some(7)
        });
        assert_eq!(slow, []);
    }

    #[test]
    fn a_new_life_is_not_judged_by_what_is_left_of_the_last() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        assert_eq!(looks(&mut silence, begin, 0..50, |_| Some(7)), []);
        silence.new_life(Some(7));
        // What the fleet has of it still is no sign of life, and its expiry none of death.
        let ended = looks(&mut silence, begin, 50..200, |second| {
            (second < 65).then_some(7)
        });
        assert_eq!(ended, [(50 + 120, FromTheStart)]);
        silence.new_life(None);
        let ended = looks(&mut silence, begin, 200..260, |second| {
            (second < 210).then_some(8)
        });
        assert_eq!(ended, [(240, NoLongerHeard)], "once it was heard");
    }

    #[test]
    fn our_own_sleep_is_not_the_workers_silence() {
        let (begin, mut silence) = (Instant::now(), Silence::default());
        assert_eq!(silence.look(begin, Some(7)), None);
        let back = begin + Duration::from_secs(3_600);
        assert_eq!(silence.look(back, None), None, "it could not be heard");
        let ended = looks(&mut silence, back, 1..60, |_| None);
        assert_eq!(ended, [(30, NoLongerHeard)]);
        silence.new_life(None);
        assert_eq!(silence.look(begin, None), None);
        let ended = looks(&mut silence, back, 0..200, |_| None);
        assert_eq!(ended, [(120, FromTheStart)], "nor before the first one");
    }
}
