//! Two orchestrators compare what they hold, and each asks for what the other has newer.
//! [T-SPR-6], [T-SPR-7]

use super::batch::is_answered;
use super::{COMPARE_MS, Spread};
use crate::check::{CheckedBatch, Knows};
use crate::event::Now;
use crate::presence::Node;
use std::cmp::Ordering;
use tether_wire::NodeId;
use tether_wire::spread::{BUCKETS, Holding};

impl Spread {
    /// Begins a comparison with one peer, drawn by chance.
    pub(super) fn compare_with_one(&mut self, now: Now) {
        let fifth = COMPARE_MS / 5;
        let jitter = self.draw() % (2 * fifth);
        self.compare_at_ms = now.mono_ms + COMPARE_MS - fifth + jitter;
        let lively = self.peers.values().filter(|peer| !peer.quiet).count();
        if lively == 0 {
            return;
        }
        let at = usize::try_from(self.draw() % lively as u64).unwrap_or_default();
        if let Some(peer) = (self.peers.values_mut()).filter(|it| !it.quiet).nth(at) {
            peer.compare.summary = true;
            peer.telling.summary = true;
            // Should the last word about links be lost, it comes again.
            peer.tell_linked = true;
        }
    }

    /// One hash for each bucket, of nodes that are live.
    pub(super) fn summary(&self) -> Vec<u64> {
        self.presence.fleet().hashes()
    }

    pub(super) fn compare(&mut self, from: NodeId, batch: &CheckedBatch, now: Now) {
        self.compare_controls(from, &batch.control_summary, now);
        if batch.summary.len() == BUCKETS {
            self.answer_summary(from, batch);
        }
        for holding in &batch.holdings {
            self.compare_holding(from, holding);
        }
        for node in &batch.wants {
            if self.presence.fleet().get(node).is_some_and(is_answered)
                && let Some(peer) = self.peers.get_mut(&from)
            {
                peer.asked.push(*node, true);
            }
        }
    }

    /// Where buckets differ, says what is held; and how its own buckets look, unless the peer said
    /// what it holds already.
    fn answer_summary(&mut self, from: NodeId, batch: &CheckedBatch) {
        let own = self.summary();
        let mut differ: Vec<usize> = (0..BUCKETS)
            .filter(|bucket| own[*bucket] != batch.summary[*bucket])
            .collect();
        if differ.is_empty() {
            return;
        }
        // Not all of them may fit: each time from another one on.
        let first = usize::try_from(self.draw() % differ.len() as u64).unwrap_or_default();
        differ.rotate_left(first);
        let skip = self.draw();
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        peer.compare.summary = batch.holdings.is_empty();
        peer.compare.skip = skip;
        peer.compare.buckets = differ;
    }

    fn compare_holding(&mut self, from: NodeId, theirs: &Holding) {
        if self.presence.revoked(&theirs.node) || theirs.node == from {
            return;
        }
        let ours = self.presence.fleet().get(&theirs.node);
        let (want, tell) = ours.map_or((true, false), |ours| differ(ours, theirs));
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if want {
            peer.want(theirs.node);
        }
        if tell {
            peer.asked.push(theirs.node, true);
        }
    }
}

/// Whether a node is to be asked for, and whether it is to be told of.
fn differ(ours: &Node, theirs: &Holding) -> (bool, bool) {
    let card = ours.current_card().map(|card| card.digest);
    if theirs.epoch == ours.order.epoch && card.is_some() && card == theirs.card {
        // Live here and there, with one card: its next beats make the orders equal.
        return (false, false);
    }
    match theirs.order().cmp(&ours.order) {
        Ordering::Greater => (true, false),
        Ordering::Less => (false, is_answered(ours)),
        Ordering::Equal => (
            ours.is_live() && card.is_none() && theirs.card.is_some(),
            card.is_some() && theirs.card.is_none(),
        ),
    }
}
