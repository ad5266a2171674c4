//! What waits in one priority: a line for each tenant, and whose turn it is. Pure.

use super::fair::Fair;
use super::{Entry, MAX_WEIGHT, Ticket};
use std::collections::{BTreeMap, BTreeSet};
use tether_wire::TenantId;

/// The requests of one priority.
#[derive(Debug, Default)]
pub(super) struct Lane {
    turns: Fair<TenantId>,
    lines: BTreeMap<TenantId, Line>,
    /// Sums over all lines.
    weight: u64,
    work: u64,
    len: usize,
}

/// The requests of one tenant, in the order in which they came.
#[derive(Debug, Default)]
struct Line {
    tickets: BTreeSet<Ticket>,
    weight: u32,
    work: u64,
}

impl Lane {
    pub(super) fn join<T>(&mut self, ticket: Ticket, entry: &Entry<T>) {
        let line = self.lines.entry(entry.tenant.clone()).or_default();
        self.weight -= u64::from(line.weight);
        line.weight = entry.weight.clamp(1, MAX_WEIGHT);
        self.weight += u64::from(line.weight);
        line.tickets.insert(ticket);
        line.work += work(entry);
        self.work += work(entry);
        self.len += 1;
        self.turns.join(&entry.tenant);
    }

    /// The first of each tenant, in the order in which it is their turn.
    pub(super) fn firsts(&self) -> impl Iterator<Item = Ticket> {
        let lines = self.turns.in_order().filter_map(|it| self.lines.get(it));
        lines.filter_map(|line| line.tickets.first().copied())
    }

    /// It had its turn.
    pub(super) fn serve<T>(&mut self, ticket: Ticket, entry: &Entry<T>) {
        let weight = self.lines.get(&entry.tenant).map_or(1, |line| line.weight);
        let more = self.take_out(ticket, entry);
        (self.turns).serve(&entry.tenant, entry.work.max(1), weight, more);
    }

    /// What a tenant was served with was so much more work than was said, or less.
    pub(super) fn settle(&mut self, tenant: &TenantId, more: i64, weight: u32) {
        self.turns.settle(tenant, more, weight);
    }

    /// It waits no longer, and had no turn.
    pub(super) fn leave<T>(&mut self, ticket: Ticket, entry: &Entry<T>) {
        if !self.take_out(ticket, entry) {
            self.turns.leave(&entry.tenant);
        }
    }

    /// Whether more of its tenant's waits.
    fn take_out<T>(&mut self, ticket: Ticket, entry: &Entry<T>) -> bool {
        let Some(line) = self.lines.get_mut(&entry.tenant) else {
            return false;
        };
        if line.tickets.remove(&ticket) {
            line.work -= work(entry);
            self.work -= work(entry);
            self.len -= 1;
        }
        let more = !line.tickets.is_empty();
        if !more {
            self.weight -= u64::from(line.weight);
            self.lines.remove(&entry.tenant);
        }
        more
    }

    /// The part of this priority's work that a tenant gets while all wait that do now, and it.
    pub(super) fn share<T>(&self, entry: &Entry<T>) -> f64 {
        let own = u64::from(entry.weight.clamp(1, MAX_WEIGHT));
        let known = (self.lines.get(&entry.tenant)).map_or(0, |line| u64::from(line.weight));
        float(own) / float(self.weight - known + own)
    }

    /// Work of a tenant's that waits.
    pub(super) fn work_of(&self, tenant: &TenantId) -> f64 {
        self.lines.get(tenant).map_or(0.0, |line| float(line.work))
    }

    /// Work that waits.
    pub(super) fn work(&self) -> f64 {
        float(self.work)
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}

fn work<T>(entry: &Entry<T>) -> u64 {
    entry.work.max(1).into()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an estimate needs no more than some digits"
)]
fn float(sum: u64) -> f64 {
    sum as f64
}
