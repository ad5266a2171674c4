//! Nodes whose last beat is to be sent: each waits once, so a queue is never longer than the fleet.

use std::collections::{HashMap, VecDeque};
use tether_wire::NodeId;

#[derive(Debug, Default)]
pub(super) struct Queue {
    order: VecDeque<NodeId>,
    /// Whether the card goes with it. Never walked over, so that its order does not matter.
    with_card: HashMap<NodeId, bool>,
}

impl Queue {
    pub(super) fn push(&mut self, node: NodeId, with_card: bool) {
        match self.with_card.get_mut(&node) {
            Some(already) => *already |= with_card,
            None => {
                self.with_card.insert(node, with_card);
                self.order.push_back(node);
            }
        }
    }

    pub(super) fn first(&self) -> Option<(NodeId, bool)> {
        let node = self.order.front()?;
        Some((*node, self.with_card.get(node).copied().unwrap_or(false)))
    }

    pub(super) fn pop(&mut self) {
        if let Some(node) = self.order.pop_front() {
            self.with_card.remove(&node);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
