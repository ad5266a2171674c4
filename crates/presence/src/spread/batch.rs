//! Fills batches: what is urgent first, then what was asked, then the whole fleet. [T-SPR-2]

use super::peer::Given;
use super::queue::Queue;
use super::{BATCH_BYTES, MAX_HOLDINGS, OWN_BEAT_MS, Spread};
use crate::event::Now;
use crate::presence::{Node, REPLAYABLE_MS, Standing};
use serde_bytes::ByteBuf;
use tether_wire::NodeId;
use tether_wire::spread::{Batch, Holding, MAX_BATCH_ENTRIES, RelayedBeat, Suspicion};

/// Bytes of an entry beside what is sealed, at most; each more than the longest encoding.
const BEAT_BYTES: usize = 80;
const CARD_BYTES: usize = 8;
const HOLDING_BYTES: usize = 128;
const SUSPICION_BYTES: usize = 80;
const ID_BYTES: usize = 36;
const HASH_BYTES: usize = 9;

/// A batch and what it weighs.
#[derive(Debug, Default)]
struct Filling {
    batch: Batch,
    bytes: usize,
}

impl Filling {
    fn has_room(&self) -> bool {
        self.bytes < BATCH_BYTES
            && self.batch.beats.len() < MAX_BATCH_ENTRIES
            && self.batch.cards.len() < MAX_BATCH_ENTRIES
    }

    fn card(&mut self, node: &Node) {
        if let Some(card) = node.current_card() {
            self.bytes += CARD_BYTES + card.sealed.len();
            self.batch.cards.push(ByteBuf::from(card.sealed.to_vec()));
        }
    }

    fn beat(&mut self, node: &Node) {
        self.bytes += BEAT_BYTES + node.beat.len();
        self.batch.beats.push(RelayedBeat {
            epoch: node.order.epoch,
            seq: node.order.seq,
            ahead_ms: node.ahead_ms,
            beat: node.beat.to_vec(),
        });
    }
}

impl Spread {
    /// The next batch for a peer, if there is something to say and room for it.
    pub(super) fn next_batch(&mut self, to: &NodeId, now: Now) -> Option<Batch> {
        let peer = self.peers.get(to)?;
        if peer.room == 0 || peer.quiet {
            return None;
        }
        let mut filling = Filling::default();
        // Who uses an invite or replaces a key never keeps beats waiting, nor the other way round.
        self.fill_controls(to, BATCH_BYTES, false, &mut filling);
        self.fill_controls(to, BATCH_BYTES / 4, true, &mut filling);
        self.fill_small(to, &mut filling);
        self.fill_compare(to, now, &mut filling);
        let (own, fleet) = (self.id, self.presence.fleet());
        let peer = self.peers.get_mut(to)?;
        for queue in [&mut peer.fresh, &mut peer.asked] {
            fill_queue(queue, |id| fleet.get(id), own, now, &mut filling);
        }
        self.fill_fleet(to, now, &mut filling);
        self.fill_controls(to, BATCH_BYTES, true, &mut filling);
        if filling.batch.is_empty() {
            return None;
        }
        self.peers.get_mut(to)?.room -= 1;
        Some(filling.batch)
    }

    /// Control messages, up to so many bytes of the batch; those that are urgent, or all.
    fn fill_controls(&mut self, to: &NodeId, bytes: usize, all: bool, filling: &mut Filling) {
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        while filling.bytes < bytes && filling.batch.controls.len() < MAX_BATCH_ENTRIES {
            let Some(id) = peer.telling.next(all) else {
                return;
            };
            // It may be gone since.
            if let Some(sealed) = self.controls.get(&id) {
                filling.bytes += CARD_BYTES + sealed.len();
                filling.batch.controls.push(sealed.clone());
            }
        }
    }

    /// Links, suspicions and wants.
    fn fill_small(&mut self, to: &NodeId, filling: &mut Filling) {
        let linked: Vec<NodeId> = (self.peers.iter())
            .filter(|(_, peer)| !peer.quiet)
            .map(|(id, _)| *id)
            .collect();
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        if std::mem::take(&mut peer.tell_linked) {
            filling.bytes += linked.len() * ID_BYTES;
            filling.batch.linked = Some(linked);
        }
        while filling.has_room() && filling.batch.suspicions.len() < MAX_BATCH_ENTRIES {
            let Some((node, order)) = peer.suspicions.pop_first() else {
                break;
            };
            let (epoch, seq) = (order.epoch, order.seq);
            filling.bytes += SUSPICION_BYTES;
            (filling.batch.suspicions).push(Suspicion { node, epoch, seq });
        }
        while filling.has_room() && filling.batch.wants.len() < MAX_BATCH_ENTRIES {
            let Some(node) = peer.wants.pop_first() else {
                break;
            };
            filling.bytes += ID_BYTES;
            filling.batch.wants.push(node);
        }
    }

    /// Summary and holdings of a comparison.
    fn fill_compare(&mut self, to: &NodeId, now: Now, filling: &mut Filling) {
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        let compare = std::mem::take(&mut peer.compare);
        let tells_controls = peer.telling.take_summary(now);
        if compare.summary {
            filling.batch.summary = self.summary();
            filling.bytes += filling.batch.summary.len() * HASH_BYTES;
        }
        if tells_controls {
            filling.batch.control_summary = self.controls.summary().to_vec();
            filling.bytes += filling.batch.control_summary.len() * HASH_BYTES;
        }
        for bucket in compare.buckets {
            let room = MAX_HOLDINGS.saturating_sub(filling.batch.holdings.len());
            let nodes = (self.presence.fleet().bucket_nodes(bucket))
                .filter(|(_, node)| is_given(node, now));
            let over = nodes.clone().count().saturating_sub(room);
            let skip = compare.skip % (over as u64 + 1);
            let nodes = nodes.skip(usize::try_from(skip).unwrap_or_default());
            for (id, node) in nodes.take(room) {
                filling.bytes += HOLDING_BYTES;
                filling.batch.holdings.push(Holding {
                    node: *id,
                    epoch: node.order.epoch,
                    seq: node.order.seq,
                    card: node.current_card().map(|card| card.digest),
                });
            }
        }
    }

    /// The whole fleet, from where the last batch ended.
    fn fill_fleet(&mut self, to: &NodeId, now: Now, filling: &mut Filling) {
        let Some(peer) = self.peers.get_mut(to) else {
            return;
        };
        let after = match &peer.given {
            Given::All => return,
            Given::Nothing => None,
            Given::Until(id) => Some(*id),
        };
        for (id, node) in self.presence.fleet().after(after.as_ref()) {
            if !filling.has_room() {
                return;
            }
            peer.given = Given::Until(*id);
            if is_given(node, now) && id != to && *id != self.id {
                filling.beat(node);
            }
        }
        peer.given = Given::All;
    }
}

/// Whether a newcomer is told of a node: it lives, or was alive so lately that an old beat of it
/// could still be taken for life. [T-SPR-5]
fn is_given(node: &Node, now: Now) -> bool {
    match node.standing {
        Standing::Live => node.current_card().is_some(),
        Standing::Gone(_) => now.unix_ms.saturating_sub(node.issued_ms) < REPLAYABLE_MS,
        Standing::Unproven => false,
    }
}

/// Whether a peer that asks for a node is told of it.
pub(super) fn is_answered(node: &Node) -> bool {
    match node.standing {
        Standing::Live => node.current_card().is_some(),
        Standing::Gone(_) => true,
        Standing::Unproven => false,
    }
}

fn fill_queue<'a>(
    queue: &mut Queue,
    node: impl Fn(&NodeId) -> Option<&'a Node>,
    own: NodeId,
    now: Now,
    filling: &mut Filling,
) {
    while filling.has_room() {
        let Some((id, with_card)) = queue.first() else {
            return;
        };
        if let Some(known) = node(&id) {
            if with_card {
                filling.card(known);
            }
            // Its own beat shows a peer its clock, and so must just have been made.
            let age_ms = now.unix_ms.saturating_sub(known.issued_ms);
            if id != own || age_ms <= OWN_BEAT_MS {
                filling.beat(known);
            }
        }
        queue.pop();
    }
}
