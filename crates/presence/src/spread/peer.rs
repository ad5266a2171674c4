//! What is kept of one peer.

use super::controls::Telling;
use super::queue::Queue;
use super::{MAX_SUSPICIONS, MAX_WANTS, ROOM};
use std::collections::{BTreeMap, BTreeSet};
use tether_wire::NodeId;
use tether_wire::beat::Order;

#[derive(Debug)]
pub(super) struct Peer {
    /// Whether nodes that are linked here may be linked there.
    pub(super) near: bool,
    /// Whether nothing comes over its link: then it is as good as no peer, but that what waits for
    /// it stays. [T-SPR-3]
    pub(super) quiet: bool,
    /// Whether it was given this orchestrator's own card.
    pub(super) knows_us: bool,
    /// The orchestrators that it says it is linked with.
    pub(super) linked: BTreeSet<NodeId>,
    /// Batches that may be sent before one is written.
    pub(super) room: usize,
    pub(super) tell_linked: bool,
    /// Control messages that it is to be told.
    pub(super) telling: Telling,
    pub(super) suspicions: BTreeMap<NodeId, Order>,
    /// What changed.
    pub(super) fresh: Queue,
    /// What it asked for, or lacks.
    pub(super) asked: Queue,
    /// How far it was given the whole fleet.
    pub(super) given: Given,
    /// What is to be asked of it.
    pub(super) wants: BTreeSet<NodeId>,
    pub(super) compare: Compare,
}

/// How far a peer was given the whole fleet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Given {
    Nothing,
    Until(NodeId),
    All,
}

/// What a peer is to be told for a comparison.
#[derive(Debug, Default)]
pub(super) struct Compare {
    pub(super) summary: bool,
    /// Buckets that differ.
    pub(super) buckets: Vec<usize>,
    /// Drawn by chance: where to begin in a bucket that is too large.
    pub(super) skip: u64,
}

impl Peer {
    pub(super) fn new(near: bool) -> Self {
        Self {
            near,
            quiet: false,
            knows_us: false,
            linked: BTreeSet::new(),
            room: ROOM,
            tell_linked: true,
            telling: Telling::new(),
            suspicions: BTreeMap::new(),
            fresh: Queue::default(),
            asked: Queue::default(),
            given: Given::Nothing,
            wants: BTreeSet::new(),
            compare: Compare::default(),
        }
    }

    pub(super) fn waiting(&self) -> usize {
        self.fresh.len() + self.asked.len()
    }

    /// One that is dropped for want of room is wanted again with its node's next beat.
    pub(super) fn want(&mut self, node: NodeId) {
        if self.wants.len() < MAX_WANTS {
            self.wants.insert(node);
        }
    }

    pub(super) fn suspect(&mut self, node: NodeId, order: Order) {
        if self.suspicions.len() < MAX_SUSPICIONS || self.suspicions.contains_key(&node) {
            self.suspicions.insert(node, order);
        }
    }
}
