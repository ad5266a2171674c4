//! What part of the work each tenant gets while there is too much of it.

use crate::queue::Priority;
use serde::Deserialize;
use std::collections::BTreeMap;
use tether_wire::TenantId;

/// One tenant's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Share {
    /// Its weight among the tenants that wait in its priority.
    pub weight: u32,
    /// What goes first.
    pub priority: Priority,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 1,
            priority: Priority::Normal,
        }
    }
}

/// Those of tenants that have another one than most, by tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares(BTreeMap<TenantId, Share>);

impl Shares {
    /// A tenant's.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Share {
        self.0.get(tenant).copied().unwrap_or_default()
    }

    /// Gives a tenant a share.
    pub fn set(&mut self, tenant: TenantId, share: Share) {
        if share != Share::default() {
            self.0.insert(tenant, share);
        }
    }
}
