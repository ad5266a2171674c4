//! The `[orchestrator.breakers]` section.

use crate::config::{ConfigError, MAX_TIME_MS};
use serde::{Deserialize, Serialize};

/// Most distinct workers whose faults a model's or region's breaker can be made to wait for; it
/// remembers as many.
pub const MAX_WITNESSES: u32 = 16;
/// Most requests that a half-open breaker can be made to try at once; it remembers each.
pub const MAX_PROBES: u32 = 16;
/// Most outcomes that a threshold can be made of.
const MAX_COUNT: u64 = 1_000_000;

/// When breakers open and close. Times are milliseconds.
///
/// The narrower opens first: a model's breaker takes more to open than a worker's, a region's more
/// than a model's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// How far back outcomes count for failure rates. Faults in a row that are further apart are
    /// not in a row.
    pub window_ms: u64,
    /// How long a breaker is open the first time, at most: half of it or more, drawn, so that
    /// orchestrators do not come back together. It doubles each time that it opens again without
    /// having been closed for the window and for twice its last open time.
    pub open_ms: u64,
    /// The doubling ends here.
    pub max_open_ms: u64,
    /// Requests that a half-open breaker lets through at once while nothing came of them. One whose
    /// answer began makes room for the next.
    pub probes: u32,
    /// Time after which the place of such a request is given to another, whatever became of it: the
    /// task that had it may have died.
    pub probe_timeout_ms: u64,
    /// Whole answers after which a half-open breaker closes.
    pub closing_successes: u32,
    /// Distinct workers that must fail before their model's breaker opens.
    pub model_workers: u32,
    /// Distinct workers that must fail before their region's breaker opens.
    pub region_workers: u32,
    /// For how long nothing at all must have worked before faults in a row open a model's or
    /// region's breaker: a machine with several workers that loses power is no outage.
    pub outage_ms: u64,
    /// Faults with no success between them that open a worker's breaker.
    pub worker_faults_in_row: u32,
    /// Requests in the window below which no failure rate is formed. A worker's are counted from a
    /// first fault on.
    pub worker_least_requests: u32,
    /// Share of faults that opens a worker's breaker, above 0 and at most 1.
    pub worker_failure_rate: f32,
    /// As for a worker.
    pub model_faults_in_row: u32,
    /// As for a worker.
    pub model_least_requests: u32,
    /// As for a worker.
    pub model_failure_rate: f32,
    /// As for a worker.
    pub region_faults_in_row: u32,
    /// As for a worker.
    pub region_least_requests: u32,
    /// As for a worker.
    pub region_failure_rate: f32,
}

impl Default for BreakerSettings {
    /// The rate of a worker is low, since others can have its work. That of a model or a region is
    /// high, since nobody can: while workers are killed one after the other, most requests still
    /// succeed.
    fn default() -> Self {
        Self {
            window_ms: 10_000,
            open_ms: 1_000,
            max_open_ms: 60_000,
            probes: 2,
            probe_timeout_ms: 10_000,
            closing_successes: 2,
            model_workers: 3,
            region_workers: 5,
            outage_ms: 500,
            worker_faults_in_row: 5,
            worker_least_requests: 10,
            worker_failure_rate: 0.3,
            model_faults_in_row: 10,
            model_least_requests: 30,
            model_failure_rate: 0.6,
            region_faults_in_row: 20,
            region_least_requests: 60,
            region_failure_rate: 0.6,
        }
    }
}

impl BreakerSettings {
    /// Checks every setting.
    ///
    /// # Errors
    /// The first that is outside its limits.
    pub fn check(&self) -> Result<(), ConfigError> {
        for (field, value, least) in [
            ("breakers.window_ms", self.window_ms, 100),
            ("breakers.open_ms", self.open_ms, 1),
            ("breakers.max_open_ms", self.max_open_ms, self.open_ms),
            ("breakers.probe_timeout_ms", self.probe_timeout_ms, 1),
            ("breakers.outage_ms", self.outage_ms, 0),
        ] {
            ConfigError::unless_within(field, value, least..=MAX_TIME_MS)?;
        }
        let (worker, model, region) = (self.of_workers(), self.of_models(), self.of_regions());
        for (field, value, least, most) in [
            ("breakers.probes", self.probes, 1, MAX_PROBES),
            ("breakers.model_workers", model.workers, 2, MAX_WITNESSES),
            ("breakers.region_workers", region.workers, 2, MAX_WITNESSES),
        ] {
            ConfigError::unless_within(field, value.into(), least..=most.into())?;
        }
        for (field, value) in [
            ("breakers.closing_successes", self.closing_successes),
            ("breakers.worker_faults_in_row", worker.faults_in_row),
            ("breakers.worker_least_requests", worker.least_requests),
            ("breakers.model_faults_in_row", model.faults_in_row),
            ("breakers.model_least_requests", model.least_requests),
            ("breakers.region_faults_in_row", region.faults_in_row),
            ("breakers.region_least_requests", region.least_requests),
        ] {
            ConfigError::unless_within(field, value.into(), 1..=MAX_COUNT)?;
        }
        for (field, rate) in [
            ("breakers.worker_failure_rate", worker.failure_rate),
            ("breakers.model_failure_rate", model.failure_rate),
            ("breakers.region_failure_rate", region.failure_rate),
        ] {
            if !(rate > 0.0 && rate <= 1.0) {
                let why = format!("is {rate}, not above 0 and at most 1");
                return Err(ConfigError { field, why });
            }
        }
        Ok(())
    }

    pub(super) fn of_workers(&self) -> Threshold {
        Threshold {
            workers: 1,
            faults_in_row: self.worker_faults_in_row,
            least_requests: self.worker_least_requests,
            failure_rate: self.worker_failure_rate,
        }
    }

    pub(super) fn of_models(&self) -> Threshold {
        Threshold {
            workers: self.model_workers,
            faults_in_row: self.model_faults_in_row,
            least_requests: self.model_least_requests,
            failure_rate: self.model_failure_rate,
        }
    }

    pub(super) fn of_regions(&self) -> Threshold {
        Threshold {
            workers: self.region_workers,
            faults_in_row: self.region_faults_in_row,
            least_requests: self.region_least_requests,
            failure_rate: self.region_failure_rate,
        }
    }
}

/// What opens one kind of breaker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Threshold {
    /// Distinct workers that must have failed.
    pub(super) workers: u32,
    pub(super) faults_in_row: u32,
    pub(super) least_requests: u32,
    pub(super) failure_rate: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut BreakerSettings)) -> String {
        let mut settings = BreakerSettings::default();
        change(&mut settings);
        settings.check().expect_err("refused").to_string()
    }

    #[test]
    fn the_defaults_are_valid_and_survive_toml() {
        let settings = BreakerSettings::default();
        assert_eq!(settings.check(), Ok(()));
        let text = toml::to_string(&settings).expect("written");
        assert_eq!(toml::from_str::<BreakerSettings>(&text), Ok(settings));
        assert!(toml::from_str::<BreakerSettings>("windows_ms = 1").is_err());
    }

    #[test]
    fn each_setting_outside_its_limits_is_named() {
        assert!(refused(|s| s.window_ms = 99).contains("orchestrator.breakers.window_ms is 99"));
        assert!(refused(|s| s.open_ms = 0).contains("breakers.open_ms"));
        assert!(refused(|s| s.max_open_ms = 999).contains("between 1000 and"));
        assert!(refused(|s| s.probes = 17).contains("breakers.probes"));
        assert!(refused(|s| s.probe_timeout_ms = 0).contains("breakers.probe_timeout_ms"));
        assert!(refused(|s| s.closing_successes = 0).contains("breakers.closing_successes"));
        assert!(refused(|s| s.model_workers = 1).contains("breakers.model_workers"));
        assert!(refused(|s| s.region_workers = 17).contains("breakers.region_workers"));
        assert!(refused(|s| s.outage_ms = u64::MAX).contains("breakers.outage_ms"));
        assert!(refused(|s| s.worker_faults_in_row = 0).contains("breakers.worker_faults_in_row"));
        assert!(refused(|s| s.model_least_requests = 0).contains("breakers.model_least_requests"));
        assert!(refused(|s| s.region_failure_rate = 1.1).contains("breakers.region_failure_rate"));
        assert!(refused(|s| s.worker_failure_rate = f32::NAN).contains("worker_failure_rate"));
    }
}
