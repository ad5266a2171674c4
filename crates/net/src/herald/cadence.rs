//! When the next beat is due. Pure: the time is passed in, monotonic milliseconds.

use tether_wire::beat::BEAT_INTERVAL_MS;

/// Least time between two beats: changes that come together go out together, and however often a
/// node changes, an orchestrator is told no more often than it takes. [T-PUS-5]
pub(super) const COALESCE_MS: u64 = 1_000 / tether_wire::spread::MAX_PUSHES_PER_SECOND as u64;
/// By how much a beat may come early, so that a fleet that started at once does not beat at once.
const JITTER_MS: u64 = BEAT_INTERVAL_MS / 10;

#[derive(Clone, Copy, Debug)]
pub(super) struct Cadence {
    spoken_ms: Option<u64>,
    due_ms: u64,
}

impl Cadence {
    /// The first beat is due at once.
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            spoken_ms: None,
            due_ms: now_ms,
        }
    }

    /// When the next beat is due.
    pub(super) fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Something changed: it is said at once, or together with what changes just after a beat.
    pub(super) fn changed(&mut self, now_ms: u64) {
        let earliest = self.spoken_ms.map_or(0, |spoken| spoken + COALESCE_MS);
        self.due_ms = self.due_ms.min(now_ms.max(earliest));
    }

    /// A beat went out. `jitter` between 0 and 1; the interval is never exceeded.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "half a second, in milliseconds"
    )]
    pub(super) fn spoken(&mut self, now_ms: u64, jitter: f64) {
        let early = (JITTER_MS as f64 * jitter.clamp(0.0, 1.0)) as u64;
        self.spoken_ms = Some(now_ms);
        self.due_ms = now_ms + BEAT_INTERVAL_MS - early;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_beat_is_due_at_once_and_then_every_five_seconds_at_the_latest() {
        let mut cadence = Cadence::new(7);
        assert_eq!(cadence.due_ms(), 7);
        for jitter in [0.0, 0.5, 1.0, f64::NAN, 9.0, -9.0] {
            cadence.spoken(1_000, jitter);
            let after = cadence.due_ms() - 1_000;
            assert!((4_500..=5_000).contains(&after), "{after} by {jitter}");
        }
    }

    #[test]
    fn a_change_is_said_at_once_and_those_just_after_a_beat_together() {
        let mut cadence = Cadence::new(0);
        cadence.spoken(0, 0.0);
        cadence.changed(3_000);
        assert_eq!(cadence.due_ms(), 3_000);
        cadence.spoken(3_000, 0.0);
        cadence.changed(3_001);
        cadence.changed(3_020);
        cadence.changed(3_099);
        assert_eq!(cadence.due_ms(), 3_100, "three changes, one beat");
        cadence.spoken(3_100, 0.0);
        assert_eq!(cadence.due_ms(), 8_100);
    }

    #[test]
    fn a_change_never_puts_a_beat_off() {
        let mut cadence = Cadence::new(0);
        cadence.changed(10);
        assert_eq!(cadence.due_ms(), 0);
        cadence.spoken(0, 0.0);
        cadence.changed(6_000);
        assert_eq!(cadence.due_ms(), 5_000);
    }
}
