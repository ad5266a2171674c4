//! Beats that are left to another orchestrator for a moment. [T-SPR-3]

use super::{HOLD_MS, MAX_RANK};
use std::collections::{BTreeSet, VecDeque};
use tether_wire::NodeId;

/// One lane for each rank: what is put into it is due in the order it was put.
#[derive(Debug, Default)]
pub(super) struct Hold {
    lanes: [VecDeque<(u64, NodeId)>; MAX_RANK as usize],
    held: BTreeSet<NodeId>,
}

impl Hold {
    /// Holds a node's last beat. One that is held already keeps its place.
    pub(super) fn put(&mut self, node: NodeId, rank: u8, now_ms: u64) {
        if self.held.insert(node) {
            let rank = rank.clamp(1, MAX_RANK);
            let due_ms = now_ms + HOLD_MS * u64::from(rank);
            self.lanes[usize::from(rank) - 1].push_back((due_ms, node));
        }
    }

    /// Another one sent it. Says whether it was held.
    pub(super) fn release(&mut self, node: &NodeId) -> bool {
        self.held.remove(node)
    }

    /// The next that nobody sent in time. A place whose beat was released is passed over, or, if
    /// a later beat of that node is held meanwhile, serves that one early.
    pub(super) fn due(&mut self, now_ms: u64) -> Option<NodeId> {
        for lane in &mut self.lanes {
            while let Some((_, node)) = lane.pop_front_if(|(due_ms, _)| *due_ms <= now_ms) {
                if self.held.remove(&node) {
                    return Some(node);
                }
            }
        }
        None
    }
}
