//! The `[orchestrator.retry]` section.

use crate::config::{ConfigError, MAX_TIME_MS};
use serde::{Deserialize, Serialize};

/// Most workers that a request may be given to, one after the other, while none of them gave any of
/// the answer. (SCH-4)
pub const MAX_ATTEMPTS: u32 = 3;

/// When and how often a request is tried again. Times are milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetrySettings {
    /// Workers that a request is given to at most while nothing of its answer came. From 1 to 3.
    pub attempts: u32,
    /// Longest pause before the second attempt; it doubles with each further one. The pause is
    /// drawn between nothing and this.
    pub base_ms: u64,
    /// Longest pause before any attempt.
    pub max_pause_ms: u64,
    /// The longest `Retry-After` of a worker that is waited out, where no other worker is there;
    /// callers are told of longer ones.
    pub max_retry_after_ms: u64,
    /// Time that must be left after the pause: less is not enough for any answer.
    pub least_left_ms: u64,
    /// Retries for each hundred requests of late.
    pub budget_percent: u32,
    /// How far back requests and retries count.
    pub budget_window_ms: u64,
    /// Retries in the window that are allowed however few requests there were.
    pub budget_least: u32,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempts: MAX_ATTEMPTS,
            base_ms: 50,
            max_pause_ms: 250,
            max_retry_after_ms: 2_000,
            least_left_ms: 100,
            budget_percent: 20,
            budget_window_ms: 10_000,
            budget_least: 10,
        }
    }
}

impl RetrySettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is outside its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        let within = ConfigError::unless_within;
        within(
            "retry.attempts",
            self.attempts.into(),
            1..=MAX_ATTEMPTS.into(),
        )?;
        within("retry.base_ms", self.base_ms, 0..=MAX_TIME_MS)?;
        within(
            "retry.max_pause_ms",
            self.max_pause_ms,
            self.base_ms..=MAX_TIME_MS,
        )?;
        within(
            "retry.max_retry_after_ms",
            self.max_retry_after_ms,
            0..=MAX_TIME_MS,
        )?;
        within("retry.least_left_ms", self.least_left_ms, 0..=MAX_TIME_MS)?;
        within("retry.budget_percent", self.budget_percent.into(), 0..=100)?;
        within(
            "retry.budget_window_ms",
            self.budget_window_ms,
            100..=MAX_TIME_MS,
        )?;
        within(
            "retry.budget_least",
            self.budget_least.into(),
            0..=1_000_000,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut RetrySettings)) -> String {
        let mut settings = RetrySettings::default();
        change(&mut settings);
        settings.check().expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_survive_toml() {
        let settings = RetrySettings::default();
        assert_eq!(settings.check(), Ok(()));
        let text = toml::to_string(&settings).expect("written");
        assert_eq!(toml::from_str::<RetrySettings>(&text), Ok(settings));
        assert!(toml::from_str::<RetrySettings>("attempt = 1").is_err());
    }

    #[test]
    fn each_setting_outside_its_limits_is_named() {
        assert!(refused(|s| s.attempts = 4).contains("orchestrator.retry.attempts is 4"));
        assert!(refused(|s| s.attempts = 0).contains("retry.attempts"));
        assert!(refused(|s| s.base_ms = 251).contains("retry.max_pause_ms"));
        assert!(refused(|s| s.base_ms = u64::MAX).contains("retry.base_ms"));
        assert!(refused(|s| s.max_retry_after_ms = u64::MAX).contains("max_retry_after_ms"));
        assert!(refused(|s| s.least_left_ms = u64::MAX).contains("retry.least_left_ms"));
        assert!(refused(|s| s.budget_percent = 101).contains("retry.budget_percent"));
        assert!(refused(|s| s.budget_window_ms = 99).contains("retry.budget_window_ms"));
        assert!(refused(|s| s.budget_least = 1_000_001).contains("retry.budget_least"));
    }
}
