//! All nodes that are known, in buckets that can be compared with a peer's.
//!
//! Ordered maps: strangers choose their keys, and an order cannot be attacked by collisions; every
//! walk over it is the same on every machine, so that a simulation can be replayed.

use super::node::Node;
use std::collections::BTreeMap;
use std::ops::Bound;
use tether_wire::spread::BUCKETS;
use tether_wire::{Digest, NodeId, Role};

#[derive(Clone, Debug)]
pub(crate) struct Fleet {
    buckets: Vec<Bucket>,
    len: usize,
    live: usize,
    orchestrators: usize,
    gateways: usize,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    nodes: BTreeMap<NodeId, Box<Node>>,
    /// Wrapping sum of the fingerprints of those that are live.
    hash: u64,
}

impl Default for Fleet {
    fn default() -> Self {
        Self {
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            len: 0,
            live: 0,
            orchestrators: 0,
            gateways: 0,
        }
    }
}

/// What is compared of a live node: its epoch and the card that is held. Its load changes with
/// each beat and is not. [T-SPR-6]
fn fingerprint(id: &NodeId, node: &Node) -> u64 {
    let mut bytes = [0; 72];
    bytes[..32].copy_from_slice(&id.0);
    bytes[32..40].copy_from_slice(&node.order.epoch.to_be_bytes());
    if let Some(card) = node.current_card() {
        bytes[40..].copy_from_slice(&card.digest.0);
    }
    first_eight(&Digest::of(&bytes))
}

/// The first eight bytes of a digest as a number.
pub(crate) fn first_eight(digest: &Digest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest.0[..8]);
    u64::from_be_bytes(first)
}

impl Fleet {
    pub(crate) fn len(&self) -> usize {
        self.len
    }
    pub(crate) fn live(&self) -> usize {
        self.live
    }

    /// Nodes that hold a card of this role.
    pub(super) fn in_role(&self, role: Role) -> usize {
        match role {
            Role::Orchestrator => self.orchestrators,
            Role::Gateway => self.gateways,
            _ => self.live,
        }
    }

    pub(crate) fn get(&self, id: &NodeId) -> Option<&Node> {
        self.bucket(id).nodes.get(id).map(|node| &**node)
    }

    pub(crate) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Node> {
        (self.buckets[usize::from(id.0[0])].nodes.get_mut(id)).map(|node| &mut **node)
    }

    pub(super) fn insert(&mut self, id: NodeId, node: Node) {
        let bucket = &mut self.buckets[usize::from(id.0[0])];
        let before = bucket.nodes.insert(id, Box::new(node));
        debug_assert!(before.is_none(), "inserted once");
        self.len += 1;
    }

    pub(super) fn remove(&mut self, id: &NodeId) {
        let bucket = &mut self.buckets[usize::from(id.0[0])];
        if bucket.nodes.remove(id).is_some() {
            self.len -= 1;
        }
    }

    /// Changes a node and keeps count of who is live and what is compared.
    pub(super) fn change<R>(
        &mut self,
        id: &NodeId,
        change: impl FnOnce(&mut Node) -> R,
    ) -> Option<R> {
        let bucket = &mut self.buckets[usize::from(id.0[0])];
        let node = bucket.nodes.get_mut(id)?;
        let mark = |node: &Node| {
            let card = node.current_card().map(|card| card.digest);
            (node.is_live(), node.order.epoch, card)
        };
        let role = |node: &Node| node.card.as_ref().map(|card| card.role);
        let (before, old_role) = (mark(node), role(node));
        let result = change(node);
        let (after, new_role) = (mark(node), role(node));
        if before != after {
            let print = if after.0 { fingerprint(id, node) } else { 0 };
            bucket.hash = (bucket.hash).wrapping_sub(node.print).wrapping_add(print);
            node.print = print;
            self.live = self.live + usize::from(after.0) - usize::from(before.0);
        }
        for (role, count) in [
            (Role::Orchestrator, &mut self.orchestrators),
            (Role::Gateway, &mut self.gateways),
        ] {
            *count += usize::from(new_role == Some(role));
            *count -= usize::from(old_role == Some(role));
        }
        Some(result)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        (self.buckets.iter()).flat_map(|bucket| bucket.nodes.iter().map(|(id, node)| (id, &**node)))
    }

    /// Walks over all of them. What counts, or is compared, is changed by [`Self::change`] alone.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Node> {
        (self.buckets.iter_mut())
            .flat_map(|bucket| bucket.nodes.values_mut().map(|node| &mut **node))
    }

    /// Nodes behind this one, in the order of ids.
    pub(crate) fn after(&self, id: Option<&NodeId>) -> impl Iterator<Item = (&NodeId, &Node)> {
        let first = id.map_or(0, |id| usize::from(id.0[0]));
        let from = id.map_or(Bound::Unbounded, Bound::Excluded);
        (self.buckets[first..].iter()).flat_map(move |bucket| {
            (bucket.nodes.range((from, Bound::Unbounded))).map(|(id, node)| (id, &**node))
        })
    }

    /// Nodes of one bucket.
    pub(crate) fn bucket_nodes(
        &self,
        bucket: usize,
    ) -> impl Iterator<Item = (&NodeId, &Node)> + Clone {
        (self.buckets[bucket].nodes.iter()).map(|(id, node)| (id, &**node))
    }

    /// One hash for each bucket.
    pub(crate) fn hashes(&self) -> Vec<u64> {
        self.buckets.iter().map(|bucket| bucket.hash).collect()
    }

    fn bucket(&self, id: &NodeId) -> &Bucket {
        &self.buckets[usize::from(id.0[0])]
    }
}
