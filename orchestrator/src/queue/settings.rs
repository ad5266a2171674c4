//! The `[orchestrator.queue]` section.

use crate::config::{ConfigError, MAX_TIME_MS};
use serde::{Deserialize, Serialize};

/// Most requests that may be configured to wait.
const MAX_ENTRIES: u64 = 1_000_000;
/// Most bytes that they may be configured to hold.
const MAX_BYTES: u64 = 64 << 30;
/// Most that workers may be given beyond their slots.
const MAX_AHEAD_PERCENT: u64 = 10_000;
/// The largest weight of a priority.
const MAX_WEIGHT: u64 = 1_000;

/// How much may wait, and who goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueSettings {
    /// Requests that wait for one model at most.
    pub entries: usize,
    /// Bytes that they hold at most.
    pub bytes: usize,
    /// Requests that wait for all models at most.
    pub all_entries: usize,
    /// Bytes that those hold at most.
    pub all_bytes: usize,
    /// Most of a model's queue that one tenant may have, in percent of its requests and of its
    /// bytes. It never has more than what is left free, so that there is room for others.
    pub tenant_percent: u32,
    /// Parts of the work that waiting requests of high priority get.
    pub high_weight: u32,
    /// Those of normal priority.
    pub normal_weight: u32,
    /// Those of low priority: more than none, so that they come to their turn as well.
    pub low_weight: u32,
    /// Requests that a worker is given beyond its slots, in percent of them and one at least: so that
    /// it has the next one at hand when an answer ends. What is given waits there, and in no order.
    pub ahead_percent: u32,
    /// What callers are told to wait, in milliseconds, while nothing is known of how fast the queue
    /// goes on.
    pub retry_after_ms: u64,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            entries: 1_024,
            bytes: 64 << 20,
            all_entries: 8_192,
            all_bytes: 256 << 20,
            tenant_percent: 50,
            high_weight: 16,
            normal_weight: 4,
            low_weight: 1,
            ahead_percent: 25,
            retry_after_ms: 1_000,
        }
    }
}

impl QueueSettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is outside its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        let wide = |it: usize| u64::try_from(it).unwrap_or(u64::MAX);
        for (field, value, least, most) in [
            ("queue.entries", wide(self.entries), 1, MAX_ENTRIES),
            ("queue.bytes", wide(self.bytes), 1, MAX_BYTES),
            (
                "queue.all_entries",
                wide(self.all_entries),
                wide(self.entries),
                MAX_ENTRIES,
            ),
            (
                "queue.all_bytes",
                wide(self.all_bytes),
                wide(self.bytes),
                MAX_BYTES,
            ),
            ("queue.tenant_percent", self.tenant_percent.into(), 1, 100),
            ("queue.high_weight", self.high_weight.into(), 1, MAX_WEIGHT),
            (
                "queue.normal_weight",
                self.normal_weight.into(),
                1,
                MAX_WEIGHT,
            ),
            ("queue.low_weight", self.low_weight.into(), 1, MAX_WEIGHT),
            (
                "queue.ahead_percent",
                self.ahead_percent.into(),
                0,
                MAX_AHEAD_PERCENT,
            ),
            ("queue.retry_after_ms", self.retry_after_ms, 1, MAX_TIME_MS),
        ] {
            ConfigError::unless_within(field, value, least..=most)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut QueueSettings)) -> String {
        let mut settings = QueueSettings::default();
        change(&mut settings);
        settings.check().expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_survive_toml() {
        let settings = QueueSettings::default();
        assert_eq!(settings.check(), Ok(()));
        let text = toml::to_string(&settings).expect("written");
        assert_eq!(toml::from_str::<QueueSettings>(&text), Ok(settings));
        assert!(toml::from_str::<QueueSettings>("entry = 1").is_err());
    }

    #[test]
    fn each_setting_outside_its_limits_is_named() {
        assert!(refused(|s| s.entries = 0).contains("orchestrator.queue.entries is 0"));
        assert!(refused(|s| s.bytes = 0).contains("queue.bytes"));
        assert!(refused(|s| s.all_entries = 1_023).contains("queue.all_entries"));
        assert!(refused(|s| s.all_bytes = 1).contains("queue.all_bytes"));
        assert!(refused(|s| s.tenant_percent = 101).contains("queue.tenant_percent"));
        assert!(refused(|s| s.high_weight = 0).contains("queue.high_weight"));
        assert!(refused(|s| s.normal_weight = 1_001).contains("queue.normal_weight"));
        assert!(refused(|s| s.low_weight = 0).contains("queue.low_weight"));
        assert!(refused(|s| s.ahead_percent = 10_001).contains("queue.ahead_percent"));
        assert!(refused(|s| s.retry_after_ms = 0).contains("queue.retry_after_ms"));
    }
}
