//! The budget of retries, which all requests share.

use crate::retry::{Budget, Plan, RetrySettings, Situation, plan};
use rand::Rng;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Plans retries.
#[derive(Debug)]
pub(crate) struct Retries {
    settings: RetrySettings,
    budget: Mutex<Budget>,
}

impl Retries {
    /// By settings that were checked.
    pub(crate) fn new(settings: RetrySettings) -> Self {
        Self {
            settings,
            budget: Mutex::default(),
        }
    }

    /// A request came.
    pub(super) fn request(&self, now_ms: u64) {
        self.budget().request(&self.settings, now_ms);
    }

    /// Whether one that failed is tried again.
    pub(super) fn plan(&self, situation: &Situation, now_ms: u64, rng: &mut impl Rng) -> Plan {
        plan(&self.settings, situation, &mut self.budget(), now_ms, rng)
    }

    /// Whether a second worker may be asked beside the first: it is work for the fleet as a retry is.
    pub(super) fn hedge(&self, now_ms: u64) -> bool {
        self.budget().take(&self.settings, now_ms)
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
