//! What came, and whom it is passed on to. [T-SPR-3] to [T-SPR-5]

use super::{MAX_RANK, Output, Spread};
use crate::check::CheckedBatch;
use crate::event::{Effect, Event, Gone, Now, Origin};
use crate::plan;
use crate::presence::{News, Node, Standing, bounded};
use tether_wire::NodeId;

impl Spread {
    pub(super) fn own(&mut self, event: Event, now: Now, outputs: &mut Vec<Output>) {
        let about = match &event {
            Event::Beat { beat, .. } => Some(beat.signer()),
            Event::Card(card) => Some(card.node()),
            _ => None,
        };
        let doubted = match &event {
            Event::LinkLost(node) => Some(*node),
            Event::LinkQuiet(node) => {
                self.peer_is_quiet(node, true);
                Some(*node)
            }
            Event::LinkLively(node) => {
                self.peer_is_quiet(node, false);
                None
            }
            _ => None,
        };
        let news = self.presence.apply(event, now, &mut self.effects);
        if let (Some(node), true) = (doubted, news == News::Changed) {
            self.pass_suspicion(node, &self.peer_ids());
        }
        let carded = self.emit(outputs, None);
        let Some(node) = about else { return };
        match news {
            News::None => {}
            News::Changed => {
                self.hold.release(&node);
                self.queue_for_all(node, carded);
            }
            News::Refreshed => match self.rank(&node) {
                0 => self.queue_for_all(node, false),
                rank => self.hold.put(node, rank, now.mono_ms),
            },
        }
    }

    pub(super) fn batch(
        &mut self,
        from: NodeId,
        mut batch: CheckedBatch,
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        if let Some(linked) = batch.linked.take() {
            peer.linked = linked.into_iter().collect();
        }
        // Those that this peer does not send to itself.
        let linked = peer.linked.clone();
        let others: Vec<NodeId> = (self.peers.keys())
            .filter(|id| **id != from && !linked.contains(*id))
            .copied()
            .collect();
        for (node, reason) in std::mem::take(&mut batch.rejected) {
            let effect = Effect::Rejected { node, reason };
            outputs.push(Output::Effect(effect));
        }
        for node in std::mem::take(&mut batch.again) {
            if self.is_sent_by_others(&node) {
                self.queue(node, false, &others);
            }
        }
        let clock_ms = self.ahead_of_peer(&from);
        for (beat, ahead_ms) in std::mem::take(&mut batch.beats) {
            let node = beat.signer();
            let card = batch.cards.remove(&node);
            let origin = if node == from {
                Origin::Direct
            } else {
                let ahead_ms = bounded(ahead_ms.saturating_add(clock_ms));
                Origin::Relayed { ahead_ms }
            };
            let event = Event::Beat { beat, card, origin };
            self.relayed(node, event, from, &others, now, outputs);
        }
        for (node, card) in std::mem::take(&mut batch.cards) {
            let event = Event::Card(card);
            self.relayed(node, event, from, &others, now, outputs);
        }
        for suspicion in &batch.suspicions {
            let event = Event::Suspected(*suspicion);
            if self.presence.apply(event, now, &mut self.effects) == News::Changed {
                self.pass_suspicion(suspicion.node, &others);
            }
        }
        self.emit(outputs, None);
        self.compare(from, &batch, now);
    }

    fn relayed(
        &mut self,
        node: NodeId,
        event: Event,
        from: NodeId,
        others: &[NodeId],
        now: Now,
        outputs: &mut Vec<Output>,
    ) {
        let news = self.presence.apply(event, now, &mut self.effects);
        let carded = self.emit(outputs, Some(from));
        if news > News::None {
            self.is_sent_by_others(&node);
            self.queue(node, carded, others);
        }
    }

    /// Hands effects out, but for cards that are wanted of a peer, which is asked. Says whether a
    /// card came.
    fn emit(&mut self, outputs: &mut Vec<Output>, from: Option<NodeId>) -> bool {
        let mut carded = false;
        for effect in self.effects.drain(..) {
            carded |= matches!(effect, Effect::Carded(_));
            if let (Effect::WantCard { node, .. }, Some(from)) = (&effect, from) {
                if let Some(peer) = self.peers.get_mut(&from) {
                    peer.want(*node);
                }
            } else {
                outputs.push(Output::Effect(effect));
            }
        }
        carded
    }

    pub(super) fn queue_for_all(&mut self, node: NodeId, with_card: bool) {
        let all = self.peer_ids();
        self.queue(node, with_card, &all);
    }

    fn queue(&mut self, node: NodeId, with_card: bool, to: &[NodeId]) {
        if to.is_empty() || !(self.presence.fleet().get(&node)).is_some_and(is_told) {
            return;
        }
        for id in to.iter().filter(|id| **id != node) {
            if let Some(peer) = self.peers.get_mut(id) {
                let introduces = node == self.id && !std::mem::replace(&mut peer.knows_us, true);
                peer.fresh.push(node, with_card || introduces);
            }
        }
    }

    fn pass_suspicion(&mut self, node: NodeId, to: &[NodeId]) {
        let Some(order) = self.presence.fleet().get(&node).map(|known| known.order) else {
            return;
        };
        for id in to.iter().filter(|id| **id != node) {
            if let Some(peer) = self.peers.get_mut(id) {
                peer.suspect(node, order);
            }
        }
    }

    fn peer_ids(&self) -> Vec<NodeId> {
        self.peers.keys().copied().collect()
    }

    /// Another one sent a node's last beat. Says whether it was held here.
    fn is_sent_by_others(&mut self, node: &NodeId) -> bool {
        if let Some(known) = self.presence.node_mut(node) {
            known.alone = false;
        }
        self.hold.release(node)
    }

    /// Sends what was held for long enough, and holds no more beats of those nodes: who should have
    /// sent them is not linked with them.
    pub(super) fn release_due(&mut self, now: Now) {
        while let Some(node) = self.hold.due(now.mono_ms) {
            if let Some(known) = self.presence.node_mut(&node) {
                known.alone = true;
            }
            self.queue_for_all(node, false);
        }
    }

    /// How many orchestrators the node would choose before this one. All compute the same, so the
    /// first of those that are linked with it sends at once and the others need not. [T-SPR-3]
    fn rank(&mut self, node: &NodeId) -> u8 {
        let generation = self.generation;
        let Some(known) = self.presence.node_mut(node) else {
            return 0;
        };
        if known.alone || *node == self.id {
            return 0;
        }
        if known.rank.0 != generation {
            let near = (self.peers.iter()).filter(|(_, peer)| peer.near && !peer.quiet);
            let rank = plan::rank(node, &self.id, near.map(|(id, _)| id));
            known.rank = (
                generation,
                u8::try_from(rank).unwrap_or(u8::MAX).min(MAX_RANK),
            );
        }
        known.rank.1
    }

    /// By how much a peer's clock is ahead of ours, as its own beats show: what it measured of
    /// others is on its clock. [T-SPR-4]
    fn ahead_of_peer(&self, peer: &NodeId) -> i32 {
        (self.presence.fleet().get(peer)).map_or(0, |known| known.ahead_ms)
    }
}

/// Whether a node is passed on: one that nobody vouches for is not, nor is one that only went
/// silent.
fn is_told(node: &Node) -> bool {
    match node.standing {
        Standing::Live => node.current_card().is_some(),
        Standing::Gone(how) => how == Gone::Departed,
        Standing::Unproven => false,
    }
}
