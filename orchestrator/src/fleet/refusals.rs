//! What was refused of whom, for people: a worker that is not in the fleet should not have to guess
//! why. Nothing reads it to decide anything.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tether_presence::Rejected;
use tether_wire::NodeId;

/// Most nodes of which the last refusal is remembered; who was refused longest ago makes room.
pub const MAX_REFUSALS: usize = 1_024;

/// The last refusal of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Whose it is.
    pub node: NodeId,
    /// Why.
    pub reason: Rejected,
    /// When, on the clock that only goes forward.
    pub mono_ms: u64,
    /// How many times in a row it was for this reason.
    pub count: u64,
}

/// The last refusals.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<NodeId, Refusal>>);

impl Refusals {
    /// Remembers one. What crosses on its way and comes twice says nothing about a node.
    pub(crate) fn put(&self, node: NodeId, reason: Rejected, mono_ms: u64) {
        if matches!(
            reason,
            Rejected::Replayed | Rejected::Reordered | Rejected::Unnamed | Rejected::Departed
        ) {
            return;
        }
        let mut all = self.lock();
        if !all.contains_key(&node) && all.len() >= MAX_REFUSALS {
            let oldest = all.values().min_by_key(|it| it.mono_ms).map(|it| it.node);
            if let Some(oldest) = oldest {
                all.remove(&oldest);
            }
        }
        let before = all.get(&node).filter(|it| it.reason == reason);
        let count = before.map_or(0, |it| it.count).saturating_add(1);
        let refusal = Refusal {
            node,
            reason,
            mono_ms,
            count,
        };
        all.insert(node, refusal);
    }

    /// All of them, by node.
    pub(crate) fn all(&self) -> Vec<Refusal> {
        let mut all: Vec<Refusal> = self.lock().values().copied().collect();
        all.sort_unstable_by_key(|it| it.node);
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Refusal>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refusal {
    /// What it means for whoever runs the node.
    #[must_use]
    pub fn means(&self) -> &'static str {
        match self.reason {
            Rejected::Future | Rejected::Stale => {
                "what it says is dated wrongly: its clock, or this machine's, is off by more than 5 s"
            }
            Rejected::Forged => "what it says is not rightly signed, or is for another mesh",
            Rejected::Ungranted => {
                "its grant does not hold here and now: it ended, or is another's"
            }
            Rejected::WrongGrant => "it says another role or region than its grant",
            Rejected::WrongNode => "it pushes what another node said",
            Rejected::Revoked => "its key was revoked",
            Rejected::Cloned => "another process runs with its key, and that one counts",
            Rejected::Full => "there is no room for more nodes: see orchestrator.max_workers",
            Rejected::Flood => "it says too much in a short time",
            Rejected::Oversized => "what it says is longer than it may be",
            Rejected::Malformed | Rejected::Misstated => {
                "what it says is outside the specification: is it of another version?"
            }
            Rejected::Unproven => "its beats came through others only, and from before this start",
            Rejected::Replayed | Rejected::Reordered | Rejected::Departed | Rejected::Unnamed => {
                "something old of it came again"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::id;

    #[test]
    fn the_last_refusal_of_each_is_remembered_and_the_oldest_make_room() {
        let refusals = Refusals::default();
        refusals.put(id(1), Rejected::Future, 1);
        refusals.put(id(1), Rejected::Future, 2);
        refusals.put(id(1), Rejected::Replayed, 3);
        let one = refusals.all().remove(0);
        assert_eq!(
            (one.reason, one.mono_ms, one.count),
            (Rejected::Future, 2, 2)
        );
        refusals.put(id(1), Rejected::Ungranted, 4);
        assert_eq!(refusals.all()[0].count, 1, "for another reason");
        for n in 0..MAX_REFUSALS {
            let mut other = NodeId([9; 32]);
            other.0[..8].copy_from_slice(&n.to_be_bytes());
            refusals.put(other, Rejected::Forged, 5);
        }
        let all = refusals.all();
        assert_eq!(all.len(), MAX_REFUSALS);
        assert!(all.iter().all(|it| it.node != id(1)));
    }
}
