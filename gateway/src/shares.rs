//! What all tenants hold of something together, and each of them: both bounded, so that one tenant
//! leaves room for the others. Pure counting; who is told what is for the callers to say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::TenantId;

/// What there is of something, and how much of it is held.
#[derive(Debug)]
pub(crate) struct Shares {
    max_total: usize,
    max_per_tenant: usize,
    /// Who holds something; nobody else is kept.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    tenants: HashMap<TenantId, usize>,
}

/// Whose bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// This tenant's: others may have more.
    Tenant,
    /// That of all together.
    Total,
}

impl Shares {
    pub(crate) fn new(max_total: usize, max_per_tenant: usize) -> Arc<Self> {
        Arc::new(Self {
            max_total,
            max_per_tenant,
            held: Mutex::default(),
        })
    }

    /// The most that one tenant may hold.
    pub(crate) fn max_per_tenant(&self) -> usize {
        self.max_per_tenant
    }

    /// What all of them hold.
    pub(crate) fn total(&self) -> usize {
        self.held().total
    }

    /// Nothing yet, for a tenant that is about to take.
    pub(crate) fn share(self: &Arc<Self>, tenant: &TenantId) -> Share {
        Share {
            shares: self.clone(),
            tenant: tenant.clone(),
            amount: 0,
        }
    }

    /// Each change is one step, so that a panic elsewhere leaves nothing half done.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one request of a tenant holds; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Share {
    shares: Arc<Shares>,
    tenant: TenantId,
    amount: usize,
}

impl Share {
    /// What it holds.
    pub(crate) fn amount(&self) -> usize {
        self.amount
    }

    /// Takes more, or nothing of it.
    pub(crate) fn take(&mut self, amount: usize) -> Result<(), Full> {
        let mut held = self.shares.held();
        let of_tenant = held.tenants.get(&self.tenant).copied().unwrap_or(0);
        let (of_tenant, total) = (
            of_tenant.saturating_add(amount),
            held.total.saturating_add(amount),
        );
        if of_tenant > self.shares.max_per_tenant {
            return Err(Full::Tenant);
        }
        if total > self.shares.max_total {
            return Err(Full::Total);
        }
        if amount > 0 {
            held.total = total;
            held.tenants.insert(self.tenant.clone(), of_tenant);
            self.amount += amount;
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held();
        held.total -= self.amount;
        if let Some(of_tenant) = held.tenants.get_mut(&self.tenant) {
            *of_tenant -= self.amount;
            if *of_tenant == 0 {
                held.tenants.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_at_its_bound_leaves_room_for_others_and_nothing_is_kept_of_who_holds_nothing() {
        let shares = Shares::new(10, 6);
        let [mut a, mut again, mut b] =
            ["a", "a", "b"].map(|id| shares.share(&id.parse().expect("valid")));
        assert_eq!(a.take(4), Ok(()));
        assert_eq!(again.take(3), Err(Full::Tenant), "over all its requests");
        assert_eq!(again.take(2), Ok(()), "exactly");
        assert_eq!(b.take(5), Err(Full::Total));
        assert_eq!(b.take(usize::MAX), Err(Full::Tenant), "does not overflow");
        assert_eq!(b.take(4), Ok(()), "what was refused holds nothing");
        drop(a);
        assert_eq!(b.take(2), Ok(()), "there is room again");
        drop((again, b));
        let held = shares.held();
        assert!(held.total == 0 && held.tenants.is_empty(), "{held:?}");
    }
}
