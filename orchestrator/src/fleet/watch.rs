//! The clock by which silence is counted. Pure.
//!
//! A machine that is suspended, starved or stopped hears nobody, and that is nobody's silence: the
//! beats of the meantime wait in its sockets. So this clock stands while the keeper was not run.

use tether_presence::Now;

/// The keeper wakes up every few dozen milliseconds; if it was not run for longer than this, it
/// could not have been. Far above what a busy scheduler makes of it, far below what a node may be
/// silent.
pub const STALL_MS: u64 = 1_000;

/// When the keeper went to sleep, and for how long it was not woken up.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    asleep_since_ms: Option<u64>,
    missed_ms: u64,
}

impl Watch {
    /// The keeper waits from now on.
    pub(crate) fn sleep(&mut self, now: Now) {
        self.asleep_since_ms = Some(now.mono_ms);
    }

    /// The keeper was woken up, or goes on. Says for how long it was not run, where that was long.
    pub(crate) fn wake(&mut self, now: Now) -> Option<u64> {
        let since_ms = self.asleep_since_ms.take()?;
        let slept_ms = now.mono_ms.saturating_sub(since_ms);
        if slept_ms < STALL_MS {
            return None;
        }
        self.missed_ms += slept_ms;
        Some(slept_ms)
    }

    /// The time by which silence is counted.
    pub(crate) fn counted(&self, now: Now) -> Now {
        Now {
            mono_ms: now.mono_ms.saturating_sub(self.missed_ms),
            ..now
        }
    }

    /// The time of the machine for one by which silence is counted.
    pub(crate) fn real_mono_ms(&self, counted_ms: u64) -> u64 {
        counted_ms.saturating_add(self.missed_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now {
            unix_ms: 1_800_000_000_000 + ms,
            mono_ms: ms,
        }
    }

    #[test]
    fn the_time_in_which_the_keeper_was_not_run_is_nobodys_silence() {
        let mut watch = Watch::default();
        watch.sleep(at(1_000));
        assert_eq!(watch.wake(at(1_050)), None);
        assert_eq!(watch.counted(at(1_050)).mono_ms, 1_050);
        watch.sleep(at(1_100));
        assert_eq!(watch.wake(at(21_100)), Some(20_000));
        assert_eq!(watch.counted(at(21_150)).mono_ms, 1_150);
        assert_eq!(watch.counted(at(21_150)).unix_ms, at(21_150).unix_ms);
        assert_eq!(watch.real_mono_ms(1_150), 21_150);
    }

    #[test]
    fn work_of_its_own_is_time_like_any_other() {
        let mut watch = Watch::default();
        watch.sleep(at(0));
        watch.wake(at(10));
        // Nine seconds of work.
        watch.sleep(at(9_010));
        assert_eq!(watch.wake(at(9_020)), None);
        assert_eq!(watch.counted(at(9_020)).mono_ms, 9_020);
    }
}
