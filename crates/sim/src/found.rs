//! What the judge found.

use crate::outcome::{Samples, Violation};
use std::collections::BTreeMap;

/// Most violations that are kept word for word.
const MAX_VIOLATIONS: usize = 50;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) ghosts: u64,
    pub(crate) false_expiries: u64,
    pub(crate) expired_alive: u64,
    pub(crate) missing: u64,
    pub(crate) unheard_goodbyes: u64,
    pub(crate) suspicions: u64,
    pub(crate) clone_reports: u64,
    pub(crate) rejected: BTreeMap<&'static str, u64>,
    pub(crate) suspect: Samples,
    pub(crate) revocation: Samples,
    pub(crate) expiry: Samples,
    pub(crate) goodbye: Samples,
    pub(crate) appear: Samples,
    pub(crate) newcomer: Samples,
    pub(crate) relink: Samples,
    pub(crate) violations: Vec<Violation>,
}

impl Found {
    pub(crate) fn violate(&mut self, violation: Violation) {
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(violation);
        }
    }
}
