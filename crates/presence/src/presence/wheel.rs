//! When to look at a node again, without looking at all of them.
//!
//! A beat does not touch the wheel: a node is looked at when the earliest thing that could be due
//! is, and then put where the next one may be. So a fleet of 100,000 costs some 10,000 to 25,000
//! looks a second, whatever the rate of beats.

use std::collections::BTreeMap;
use tether_wire::NodeId;

/// Milliseconds of one slot; everything is late by at most this.
const SLOT_MS: u64 = 100;

#[derive(Clone, Debug, Default)]
pub(super) struct Wheel {
    slots: BTreeMap<u64, Vec<NodeId>>,
}

impl Wheel {
    /// The first slot whose begin is not before this time.
    pub(super) fn slot(at_ms: u64) -> u64 {
        at_ms.div_ceil(SLOT_MS)
    }

    /// The first slot that is not due yet.
    pub(super) fn next_slot(now_ms: u64) -> u64 {
        now_ms / SLOT_MS + 1
    }

    pub(super) fn put(&mut self, node: NodeId, slot: u64) {
        self.slots.entry(slot).or_default().push(node);
    }

    /// Takes out the nodes of the earliest slot that is due, and its number.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<(u64, Vec<NodeId>)> {
        let first = self.slots.first_entry()?;
        if *first.key() > now_ms / SLOT_MS {
            return None;
        }
        Some(first.remove_entry())
    }
}
