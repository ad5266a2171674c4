//! The budgets of retries, which all requests share.

use crate::retry::{Budget, Plan, RetrySettings, Situation, plan};
use rand::Rng;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Plans retries.
#[derive(Debug)]
pub(crate) struct Retries {
    settings: RetrySettings,
    budget: Mutex<Budget>,
    /// Of those that are tried again for a worker's limit of their tenant: who asks for too much leaves
    /// the others theirs.
    limited: Mutex<Budget>,
}

impl Retries {
    /// By settings that were checked.
    pub(crate) fn new(settings: RetrySettings) -> Self {
        Self {
            settings,
            budget: Mutex::default(),
            limited: Mutex::default(),
        }
    }

    /// A request came.
    pub(super) fn request(&self, now_ms: u64) {
        locked(&self.budget).request(&self.settings, now_ms);
        locked(&self.limited).request(&self.settings, now_ms);
    }

    /// Whether one that failed is tried again; `is_limited`: since its tenant is over a worker's limit.
    pub(super) fn plan(
        &self,
        situation: &Situation,
        is_limited: bool,
        now_ms: u64,
        rng: &mut impl Rng,
    ) -> Plan {
        let budget = if is_limited {
            &self.limited
        } else {
            &self.budget
        };
        plan(&self.settings, situation, &mut locked(budget), now_ms, rng)
    }

    /// Whether one that fails now would be tried again.
    pub(super) fn may(&self, situation: &Situation, now_ms: u64) -> bool {
        let mut budget = locked(&self.budget).clone();
        let planned = plan(
            &self.settings,
            situation,
            &mut budget,
            now_ms,
            &mut rand::rng(),
        );
        matches!(planned, Plan::Retry { .. })
    }

    /// Whether a second worker may be asked beside the first: it is work for the fleet as a retry is.
    pub(super) fn hedge(&self, now_ms: u64) -> bool {
        locked(&self.budget).take(&self.settings, now_ms)
    }
}

/// Each change is one step, so that a panic elsewhere leaves nothing half done.
fn locked(budget: &Mutex<Budget>) -> MutexGuard<'_, Budget> {
    budget.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retry::{Failure, Tries};

    #[test]
    fn a_tenant_over_its_limits_leaves_the_others_their_retries() {
        let retries = Retries::new(RetrySettings::default());
        let situation = Situation {
            failure: Failure::Early,
            tries: Tries {
                attempts: 1,
                hand_overs: 0,
            },
            left_ms: 60_000,
            retry_after_ms: None,
        };
        let again = |is_limited| {
            let plan = retries.plan(&situation, is_limited, 0, &mut rand::rng());
            matches!(plan, Plan::Retry { .. })
        };
        let limited = (0..1_000).filter(|_| again(true)).count();
        assert!((1..100).contains(&limited), "they are bounded: {limited}");
        assert!(again(false));
    }
}
