//! When a node that finds nobody says so.

use std::time::{Duration, Instant};

/// How long a node may be alone before it says so: a start, or an orchestrator that starts again,
/// takes less.
const PATIENCE: Duration = Duration::from_secs(10);
/// It says so again at twice the time, and at last this often.
const MOST: Duration = Duration::from_secs(600);

/// Decides when a node that is linked with nobody warns: a wrong mesh, region or bootstrap address
/// meets nobody who could refuse it, and would otherwise be silent for ever.
#[derive(Debug, Default)]
pub struct Lonely {
    since: Option<Instant>,
    said: Duration,
}

impl Lonely {
    /// Whether to say it now.
    pub fn is_due(&mut self, alone: bool, now: Instant) -> bool {
        if !alone {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let pause = self.said.clamp(PATIENCE, MOST);
        let due = now.saturating_duration_since(since) >= self.said + pause;
        if due {
            self.said = now.saturating_duration_since(since);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_after_ten_seconds_and_then_ever_less_often() {
        let start = Instant::now();
        let mut lonely = Lonely::default();
        let said: Vec<u64> = (0..3_600)
            .filter(|s| lonely.is_due(true, start + Duration::from_secs(*s)))
            .collect();
        assert_eq!(said[..4], [10, 20, 40, 80]);
        assert!(said.windows(2).all(|pair| pair[1] - pair[0] <= 600));
        assert!(said.len() < 20);
    }

    #[test]
    fn company_starts_the_patience_anew() {
        let start = Instant::now();
        let at = |s| start + Duration::from_secs(s);
        let mut lonely = Lonely::default();
        assert!(!lonely.is_due(true, at(0)));
        assert!(!lonely.is_due(false, at(9)));
        assert!(!lonely.is_due(true, at(11)));
        assert!(lonely.is_due(true, at(21)));
    }
}
