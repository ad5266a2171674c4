//! When an engine that ended is started again. Pure.

use std::time::Duration;

/// First wait after a crash. One crash should cost little.
const CRASH_FIRST_MS: u64 = 250;
/// Longest wait after crashes.
const CRASH_MAX_MS: u64 = 30_000;
/// First wait after a model could not be loaded: the next try will most likely fail too.
const LOAD_FIRST_MS: u64 = 5_000;
/// Longest wait after failed loads.
const LOAD_MAX_MS: u64 = 300_000;
/// An engine that served for so long starts again with a clean slate.
pub(crate) const HEALTHY_AFTER: Duration = Duration::from_secs(10);

/// Why an engine ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Its process ended.
    Crash,
    /// It did not answer, or made no progress.
    Hang,
    /// What it sent is not the protocol.
    Garbage,
    /// It could not load the model.
    Load,
    /// It is another program than the engine's other processes are.
    Changed,
    /// It used more memory, or more threads, than it may.
    Memory,
    /// It made a system call that only an attacker would.
    Sandbox,
}

impl Cause {
    /// Its name in metrics and faults.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Crash => "engine-crash",
            Self::Hang => "engine-hang",
            Self::Garbage => "engine-garbage",
            Self::Load => "engine-load",
            Self::Changed => "engine-changed",
            Self::Memory => "engine-memory",
            Self::Sandbox => "engine-sandbox",
        }
    }
}

/// How long to wait after `failures` in a row. `jitter` between 0 and 1 spreads the starts of many
/// engines on one machine by up to a quarter.
pub(crate) fn delay(cause: Cause, failures: u32, jitter: f64) -> Duration {
    let (first, max) = match cause {
        // A model that does not fit its limit will not fit it at the next try either.
        Cause::Load | Cause::Changed | Cause::Memory => (LOAD_FIRST_MS, LOAD_MAX_MS),
        Cause::Crash | Cause::Hang | Cause::Garbage | Cause::Sandbox => {
            (CRASH_FIRST_MS, CRASH_MAX_MS)
        }
    };
    let doublings = failures.saturating_sub(1).min(16);
    let wait = Duration::from_millis((first << doublings).min(max));
    wait.mul_f64(1.0 + 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_never_end() {
        let ms = |cause, failures| delay(cause, failures, 0.0).as_millis();
        assert_eq!(ms(Cause::Crash, 1), 250);
        assert_eq!(ms(Cause::Crash, 2), 500);
        assert_eq!(ms(Cause::Hang, 5), 4_000);
        assert_eq!(ms(Cause::Crash, u32::MAX), 30_000);
        assert_eq!(ms(Cause::Load, 1), 5_000);
        assert_eq!(ms(Cause::Load, u32::MAX), 300_000);
        assert_eq!(ms(Cause::Memory, 1), 5_000);
        assert_eq!(ms(Cause::Memory, u32::MAX), 300_000);
        assert_eq!(delay(Cause::Crash, 1, 7.0).as_micros(), 312_500);
    }
}
