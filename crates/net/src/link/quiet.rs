//! When a link counts as quiet: up, but nothing is heard on it. Pure. [T-LNK-5]
//!
//! A peer that is killed and one that is starved of CPU look alike for a while. A quiet link tells
//! both early, so that nothing new is asked of them; what is open on it lives on until the link is
//! down, so that the starved lose nothing.

use std::time::{Duration, Instant};

/// Looks at all links in the time after which one is quiet: what is told may be late by one part.
const LOOKS: u32 = 10;

/// What a look at a link has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Nothing was heard for the whole time.
    Quiet,
    /// Something is heard again.
    Lively,
}

/// How long nothing was heard on one link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Silence {
    /// Datagrams that had come at the last look.
    received: u64,
    silent: Duration,
    quiet: bool,
}

impl Silence {
    /// Takes the count of datagrams that have come, `passed` after the look before.
    pub(crate) fn look(
        &mut self,
        received: u64,
        passed: Duration,
        quiet_after: Duration,
    ) -> Option<Turn> {
        if received != self.received {
            self.received = received;
            self.silent = Duration::ZERO;
            return std::mem::take(&mut self.quiet).then_some(Turn::Lively);
        }
        self.silent = self.silent.saturating_add(passed);
        let turns = !self.quiet && self.silent >= quiet_after;
        self.quiet |= turns;
        turns.then_some(Turn::Quiet)
    }

    /// Nothing has come since it was asked whether its peer is there, when `received_then` datagrams
    /// had come: the next look finds it quiet, unless something came by then.
    pub(crate) fn unanswered(&mut self, received_then: u64, quiet_after: Duration) {
        self.received = received_then;
        self.silent = quiet_after;
    }
}

/// The time between looks. A node that was itself starved has not heard its peers either, and must
/// not take its own sleep for their silence.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Looks {
    interval: Duration,
    last: Instant,
}

impl Looks {
    /// Begins now.
    pub(crate) fn new(quiet_after: Duration, now: Instant) -> Self {
        let interval = (quiet_after / LOOKS).max(Duration::from_millis(1));
        Self {
            interval,
            last: now,
        }
    }

    /// Time between two looks.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// What counts as time that has passed since the last look: two intervals at most.
    pub(crate) fn passed(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.last);
        self.last = now;
        passed.min(self.interval * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AFTER: Duration = Duration::from_secs(2);
    const STEP: Duration = Duration::from_millis(200);

    #[test]
    fn silence_is_told_once_and_so_is_its_end() {
        let mut link = Silence::default();
        assert_eq!(link.look(7, STEP, AFTER), None);
        for _ in 1..LOOKS {
            assert_eq!(link.look(7, STEP, AFTER), None);
        }
        assert_eq!(link.look(7, STEP, AFTER), Some(Turn::Quiet));
        assert_eq!(link.look(7, STEP, AFTER), None);
        assert_eq!(link.look(8, STEP, AFTER), Some(Turn::Lively));
        assert_eq!(link.look(9, STEP, AFTER), None);
    }

    #[test]
    fn a_datagram_now_and_then_keeps_a_link_lively() {
        let mut link = Silence::default();
        for n in 0..1_000 {
            assert_eq!(link.look(n / 9, STEP, AFTER), None, "{n}");
        }
    }

    #[test]
    fn one_that_does_not_answer_is_quiet_at_the_next_look_unless_it_was_heard() {
        let mut link = Silence::default();
        assert_eq!(link.look(7, STEP, AFTER), None);
        link.unanswered(7, AFTER);
        assert_eq!(link.look(8, Duration::ZERO, AFTER), None, "heard meanwhile");
        link.unanswered(8, AFTER);
        assert_eq!(link.look(8, Duration::ZERO, AFTER), Some(Turn::Quiet));
        link.unanswered(8, AFTER);
        assert_eq!(link.look(8, Duration::ZERO, AFTER), None, "told once");
        assert_eq!(link.look(9, STEP, AFTER), Some(Turn::Lively));
    }

    #[test]
    fn a_node_that_slept_itself_does_not_take_its_peers_for_silent() {
        let start = Instant::now();
        let mut looks = Looks::new(AFTER, start);
        assert_eq!(looks.interval(), STEP);
        assert_eq!(looks.passed(start + STEP), STEP);
        let woken = start + Duration::from_secs(60);
        assert_eq!(looks.passed(woken), STEP * 2);
        assert_eq!(looks.passed(woken + STEP), STEP);
        assert_eq!(looks.passed(start), Duration::ZERO, "clocks may be odd");
    }
}
