//! How many retries the traffic of late allows: a share of it, so that retries cannot multiply an
//! outage. Pure.
//!
//! As Finagle's `RetryBudget` has it, but by two counts over a window rather than by a balance that
//! leaks: so the bound is one that can be stated. In any window, retries are at most the share of
//! its requests, or the small number that is always allowed, whichever is more.

use super::settings::RetrySettings;
use crate::window::Window;

const REQUEST: usize = 0;
const RETRY: usize = 1;

/// Requests and retries of late. One for all models: what is protected is the whole fleet.
#[derive(Clone, Debug, Default)]
pub struct Budget(Window);

impl Budget {
    /// A request came; its first attempt is no retry.
    pub fn request(&mut self, settings: &RetrySettings, now_ms: u64) {
        self.0.add(REQUEST, settings.budget_window_ms, now_ms);
    }

    /// Takes a retry out, if there is one.
    #[must_use]
    pub fn take(&mut self, settings: &RetrySettings, now_ms: u64) -> bool {
        let allowed = self.left(settings, now_ms) > 0;
        if allowed {
            self.0.add(RETRY, settings.budget_window_ms, now_ms);
        }
        allowed
    }

    /// Retries that are left, for metrics.
    #[must_use]
    pub fn left(&self, settings: &RetrySettings, now_ms: u64) -> u32 {
        let [requests, retries] = self.0.sums(settings.budget_window_ms, now_ms);
        let share = u64::from(requests) * u64::from(settings.budget_percent) / 100;
        let share = u32::try_from(share).unwrap_or(u32::MAX);
        share.max(settings.budget_least).saturating_sub(retries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_few_retries_are_always_allowed_and_more_with_the_traffic() {
        let (settings, mut budget) = (RetrySettings::default(), Budget::default());
        let taken = |budget: &mut Budget, now_ms| {
            (0..1_000)
                .filter(|_| budget.take(&settings, now_ms))
                .count()
        };
        assert_eq!(taken(&mut budget, 0), 10);
        assert_eq!(taken(&mut budget, 9_999), 0);
        assert_eq!(taken(&mut budget, 10_000), 10, "they are forgotten");
        for _ in 0..500 {
            budget.request(&settings, 20_000);
        }
        assert_eq!(taken(&mut budget, 20_000), 100);
        assert_eq!(budget.left(&settings, 20_000), 0);
    }

    #[test]
    fn where_retries_are_off_there_are_none() {
        let settings = RetrySettings {
            budget_percent: 0,
            budget_least: 0,
            ..RetrySettings::default()
        };
        let mut budget = Budget::default();
        budget.request(&settings, 0);
        assert!(!budget.take(&settings, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// In each window that ends with a retry.
        #[test]
        fn retries_never_exceed_their_share_whatever_the_traffic(
            steps in proptest::collection::vec((0_u64..300, any::<bool>()), 1..600),
        ) {
            let (settings, mut budget) = (RetrySettings::default(), Budget::default());
            let (mut now_ms, mut requests, mut retries) = (0, Vec::new(), Vec::new());
            for (after_ms, is_request) in steps {
                now_ms += after_ms;
                if is_request {
                    budget.request(&settings, now_ms);
                    requests.push(now_ms);
                } else if budget.take(&settings, now_ms) {
                    retries.push(now_ms);
                    let slot = settings.budget_window_ms / 10;
                    let recent = |at: &&u64| now_ms / slot - **at / slot < 10;
                    let of_late = requests.iter().filter(recent).count();
                    let allowed = (of_late / 5).max(10);
                    prop_assert!(retries.iter().filter(recent).count() <= allowed);
                }
            }
        }
    }
}
