//! Who runs, who waits, who is turned away. Pure: tickets in, tickets out. (WRK-1)
//!
//! Deliberately first come, first served, except that a tenant at its own limit does not hold up
//! those behind it, and neither does a model whose engine has no more room. Priorities and fairness between tenants are the orchestrator's. (SCH-7)

mod rates;

pub use rates::{MAX_TENANTS, Over, RateLimits, Rates};
use std::collections::{BTreeMap, VecDeque};
use tether_wire::{Digest, TenantId};

/// Least time after which a tenant that was turned away is told to come again.
pub const MIN_RETRY_AFTER_MS: u64 = 250;
/// Most time after which a tenant that was turned away is told to come again.
pub const MAX_RETRY_AFTER_MS: u64 = 30_000;

/// Bounds of what a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests that run at once.
    pub slots: u32,
    /// Requests that wait.
    pub queue: u32,
    /// Slots of one tenant; 0 means all.
    pub per_tenant: u32,
}

/// What a request takes its place from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whose it is.
    pub tenant: TenantId,
    /// Which model is to answer.
    pub model: Digest,
    /// Most requests that this model's engine answers at once; 0 while it is not loaded, so that
    /// they wait for [`Quota::open`].
    pub model_slots: u32,
    /// Somebody was given some of the answer already, and reads it: it waits before those that were
    /// given nothing.
    pub goes_on: bool,
}

/// One request that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It runs now.
    Run(Ticket),
    /// It waits; [`Quota::leave`] of another names it when it may run.
    Wait(Ticket),
    /// It is turned away: there is no slot for it and the queue is full.
    Shed,
}

/// The slots and the queue of a worker.
#[derive(Debug)]
pub struct Quota {
    limits: Limits,
    next: u64,
    running: BTreeMap<Ticket, Claim>,
    by_tenant: BTreeMap<TenantId, u32>,
    by_model: BTreeMap<Digest, u32>,
    waiting: VecDeque<(Ticket, Claim)>,
}

impl Quota {
    /// Nothing runs, nothing waits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            running: BTreeMap::new(),
            by_tenant: BTreeMap::new(),
            by_model: BTreeMap::new(),
            waiting: VecDeque::new(),
        }
    }

    /// A request comes.
    pub fn admit(&mut self, claim: &Claim) -> Admission {
        let ticket = Ticket(self.next);
        self.next += 1;
        if self.has_free_slot() && self.may_run(claim) {
            self.run(ticket, claim.clone());
            return Admission::Run(ticket);
        }
        if self.waiting.len() >= self.limits.queue as usize {
            return Admission::Shed;
        }
        let behind = if claim.goes_on {
            self.waiting.partition_point(|(_, it)| it.goes_on)
        } else {
            self.waiting.len()
        };
        self.waiting.insert(behind, (ticket, claim.clone()));
        Admission::Wait(ticket)
    }

    /// A request goes, from its slot or from the queue. Returns who may run now.
    pub fn leave(&mut self, ticket: Ticket) -> Vec<Ticket> {
        if let Some(claim) = self.running.remove(&ticket) {
            give_back(&mut self.by_tenant, &claim.tenant);
            give_back(&mut self.by_model, &claim.model);
        } else {
            self.waiting.retain(|(waiting, _)| *waiting != ticket);
        }
        self.start_waiting()
    }

    /// A model is loaded, and its engine answers so many at once. Returns who may run now.
    pub fn open(&mut self, model: &Digest, model_slots: u32) -> Vec<Ticket> {
        for (_, claim) in &mut self.waiting {
            if claim.model == *model {
                claim.model_slots = model_slots.max(1);
            }
        }
        self.start_waiting()
    }

    fn start_waiting(&mut self) -> Vec<Ticket> {
        let mut started = Vec::new();
        let mut at = 0;
        while at < self.waiting.len() && self.has_free_slot() {
            if self.may_run(&self.waiting[at].1) {
                if let Some((ticket, claim)) = self.waiting.remove(at) {
                    self.run(ticket, claim);
                    started.push(ticket);
                }
            } else {
                at += 1;
            }
        }
        started
    }

    /// Requests that run.
    #[must_use]
    pub fn running(&self) -> u32 {
        u32::try_from(self.running.len()).unwrap_or(u32::MAX)
    }

    /// Requests that wait.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        u32::try_from(self.waiting.len()).unwrap_or(u32::MAX)
    }

    fn has_free_slot(&self) -> bool {
        self.running() < self.limits.slots
    }

    fn may_run(&self, claim: &Claim) -> bool {
        let by_tenant = self.by_tenant.get(&claim.tenant).copied().unwrap_or(0);
        let by_model = self.by_model.get(&claim.model).copied().unwrap_or(0);
        (self.limits.per_tenant == 0 || by_tenant < self.limits.per_tenant)
            && by_model < claim.model_slots
    }

    fn run(&mut self, ticket: Ticket, claim: Claim) {
        *self.by_tenant.entry(claim.tenant.clone()).or_default() += 1;
        *self.by_model.entry(claim.model).or_default() += 1;
        self.running.insert(ticket, claim);
    }
}

fn give_back<K: Ord>(held: &mut BTreeMap<K, u32>, key: &K) {
    if let Some(count) = held.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            held.remove(key);
        }
    }
}

/// When a place in the queue should be free again: the next answer of `slots` is expected to end
/// after a part of the usual time, and `waiting` are ahead.
#[must_use]
pub fn retry_after_ms(answer_ms: u64, waiting: u32, slots: u32) -> u64 {
    let rounds = u64::from(waiting) + 1;
    (answer_ms.saturating_mul(rounds) / u64::from(slots.max(1)))
        .clamp(MIN_RETRY_AFTER_MS, MAX_RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(tenant: &str, model: u8, model_slots: u32) -> Claim {
        Claim {
            tenant: TenantId::new(tenant).expect("valid"),
            model: Digest([model; 32]),
            model_slots,
            goes_on: false,
        }
    }

    fn tenant(name: &str) -> Claim {
        claim(name, 1, 99)
    }

    fn quota(slots: u32, queue: u32, per_tenant: u32) -> Quota {
        Quota::new(Limits {
            slots,
            queue,
            per_tenant,
        })
    }

    #[test]
    fn slots_then_the_queue_then_nothing() {
        let mut quota = quota(2, 1, 0);
        let a = tenant("a");
        let Admission::Run(first) = quota.admit(&a) else {
            panic!("a slot is free")
        };
        assert!(matches!(quota.admit(&a), Admission::Run(_)));
        let Admission::Wait(third) = quota.admit(&a) else {
            panic!("the queue is free")
        };
        assert_eq!(quota.admit(&a), Admission::Shed);
        assert_eq!((quota.running(), quota.waiting()), (2, 1));
        assert_eq!(quota.leave(first), [third]);
        assert_eq!((quota.running(), quota.waiting()), (2, 0));
        assert!(matches!(quota.admit(&a), Admission::Wait(_)));
    }

    #[test]
    fn who_leaves_the_queue_starts_nobody_and_is_never_started() {
        let mut quota = quota(1, 2, 0);
        let a = tenant("a");
        let Admission::Run(first) = quota.admit(&a) else {
            panic!("free")
        };
        let Admission::Wait(second) = quota.admit(&a) else {
            panic!("free")
        };
        let Admission::Wait(third) = quota.admit(&a) else {
            panic!("free")
        };
        assert!(quota.leave(second).is_empty());
        assert_eq!(quota.leave(first), [third]);
        assert!(
            quota.leave(first).is_empty(),
            "leaving twice changes nothing"
        );
        assert_eq!(quota.running(), 1);
    }

    #[test]
    fn what_somebody_reads_already_waits_before_what_nobody_was_given() {
        let mut quota = quota(1, 9, 0);
        let (new, read) = (
            tenant("a"),
            Claim {
                goes_on: true,
                ..tenant("b")
            },
        );
        let Admission::Run(mut runs) = quota.admit(&new) else {
            panic!("free")
        };
        let waits = [&new, &read, &new, &read].map(|claim| match quota.admit(claim) {
            Admission::Wait(ticket) => ticket,
            other => panic!("{other:?}"),
        });
        for at in [1, 3, 0, 2] {
            assert_eq!(quota.leave(runs), [waits[at]]);
            runs = waits[at];
        }
    }

    #[test]
    fn a_tenant_at_its_limit_waits_and_does_not_hold_up_others() {
        let mut quota = quota(2, 4, 1);
        let (a, b) = (tenant("a"), tenant("b"));
        let Admission::Run(first) = quota.admit(&a) else {
            panic!("free")
        };
        let Admission::Wait(second) = quota.admit(&a) else {
            panic!("a second slot for one tenant")
        };
        assert!(matches!(quota.admit(&b), Admission::Run(_)));
        assert!(matches!(quota.admit(&b), Admission::Wait(_)));
        assert_eq!(quota.leave(first), [second]);
    }

    #[test]
    fn a_model_without_room_waits_and_does_not_hold_up_others() {
        let mut quota = quota(4, 4, 0);
        let (slow, other) = (claim("a", 1, 1), claim("a", 2, 1));
        let Admission::Run(first) = quota.admit(&slow) else {
            panic!("free")
        };
        let Admission::Wait(second) = quota.admit(&slow) else {
            panic!("more than its engine answers at once")
        };
        assert!(matches!(quota.admit(&other), Admission::Run(_)));
        assert_eq!((quota.running(), quota.waiting()), (2, 1));
        assert_eq!(quota.leave(first), [second]);
        assert_eq!(quota.leave(second), []);
        assert!(matches!(quota.admit(&slow), Admission::Run(_)));
    }

    #[test]
    fn who_waits_for_a_cold_model_runs_when_it_is_loaded_and_holds_up_nobody() {
        let mut quota = quota(2, 2, 0);
        let Admission::Wait(cold) = quota.admit(&claim("a", 1, 0)) else {
            panic!("it is not loaded")
        };
        let Admission::Run(warm) = quota.admit(&claim("a", 2, 1)) else {
            panic!("both slots are free")
        };
        assert_eq!(quota.leave(warm), []);
        assert_eq!(quota.open(&Digest([2; 32]), 4), []);
        assert_eq!(quota.open(&Digest([1; 32]), 4), [cold]);
        assert_eq!(quota.open(&Digest([1; 32]), 4), []);
    }

    #[test]
    fn the_time_to_come_again_follows_the_pace_within_bounds() {
        assert_eq!(retry_after_ms(0, 0, 4), MIN_RETRY_AFTER_MS);
        assert_eq!(retry_after_ms(4_000, 3, 4), 4_000);
        assert_eq!(retry_after_ms(u64::MAX, 9, 1), MAX_RETRY_AFTER_MS);
        assert_eq!(retry_after_ms(1_000, 0, 0), 1_000);
    }
}
