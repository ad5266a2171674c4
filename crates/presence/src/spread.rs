//! What orchestrators tell each other, above [`Presence`]. (PRE-5) [T-SPR-1] to [T-SPR-9]
//!
//! A beat that came over its node's own link goes to every peer; one that a peer passed on goes
//! only to those that the peer is not linked with: a full mesh sends each beat once, a partial one
//! floods. A peer that is new gets all live nodes' last beats and recent goodbyes, and asks for the
//! cards that it lacks. Every few seconds two peers compare what they hold, which heals what was
//! lost in between.

mod batch;
mod compare;
mod controls;
mod hold;
mod news;
mod peer;
mod queue;

use crate::check::{CheckedBatch, KnownBeat, Knows};
use crate::event::{Effect, Event, Now};
use crate::presence::{Presence, Settings};
use crate::rejected::Rejected;
use controls::Controls;
use hold::Hold;
use peer::Peer;
use std::collections::BTreeMap;
use tether_wire::spread::Batch;
use tether_wire::{Digest, NodeId};

/// Batches are made once in this time. [T-SPR-3]
pub const FLUSH_MS: u64 = 50;
/// Batches that may be under way to a peer, not yet written to its link. [T-SPR-8]
pub const ROOM: usize = 4;
/// Bytes of a batch after which the next one is begun: a peer verifies some hundred beats at a
/// time, and what is urgent never waits behind a megabyte. [T-SPR-2]
pub const BATCH_BYTES: usize = 128 * 1024;
/// By how long an orchestrator of rank n leaves a beat to those before it, n times. [T-SPR-3]
pub const HOLD_MS: u64 = 500;
/// Ranks that are told apart. [T-SPR-3]
pub const MAX_RANK: u8 = 3;
/// Two peers compare once in this time, within a fifth of it. [T-SPR-6]
pub const COMPARE_MS: u64 = 5_000;
/// How old an orchestrator's own beat may be when it is sent: the receiver takes its age for the
/// sender's clock being behind. [T-SPR-4]
pub const OWN_BEAT_MS: u64 = 500;
/// Most peers. [T-SPR-8]
pub const MAX_PEERS: usize = tether_wire::spread::MAX_LINKED;
/// Most control messages that are kept for peers to come. [T-SPR-9]
pub const MAX_CONTROLS: usize = tether_wire::membership::MAX_FACTS;
/// Most nodes that wait to be asked for, of one peer. [T-SPR-8]
pub const MAX_WANTS: usize = 65_536;
/// Most suspicions that wait for one peer. [T-SPR-8]
pub const MAX_SUSPICIONS: usize = 4_096;
/// Most holdings of one comparison. [T-SPR-6]
pub const MAX_HOLDINGS: usize = 4_096;

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// A peer's `spread` calls are open, in both directions.
    PeerUp {
        /// Which orchestrator.
        peer: NodeId,
        /// Whether it takes links from the same nodes as this one: it serves the same region.
        near: bool,
    },
    /// The link to a peer broke: also a [`Event::LinkLost`]. That it went quiet, or speaks again, is
    /// told as an [`Input::Own`] event.
    PeerDown(NodeId),
    /// A peer sent this.
    Batch {
        /// Which orchestrator.
        from: NodeId,
        /// What it sent, checked.
        batch: CheckedBatch,
    },
    /// A batch that was sent to this peer was written to its link.
    Written(NodeId),
    /// From the links of nodes, from the clock of this orchestrator (its own beats), or from its
    /// operator.
    Own(Event),
    /// A control message that changed who belongs to the mesh, as found by whoever knows these, and
    /// the id of what it says; it is kept and passed on. What peers send of them is taken out of
    /// batches at the edge, before these come here.
    Control {
        /// Of what it says: peers may hold other bytes that say the same.
        id: Digest,
        /// The message.
        sealed: Vec<u8>,
        /// Whether it comes before others: it takes something back.
        urgent: bool,
    },
    /// What this one says no longer matters.
    ControlGone(Digest),
    /// Time passed; wanted every [`FLUSH_MS`].
    Tick,
}

/// What to do.
#[derive(Debug)]
pub enum Output {
    /// Send this to a peer, then say [`Input::Written`].
    Send {
        /// Which orchestrator.
        to: NodeId,
        /// What.
        batch: Batch,
    },
    /// Something changed.
    Effect(Effect),
}

/// Presence, and its spread among orchestrators.
#[derive(Debug)]
pub struct Spread {
    id: NodeId,
    presence: Presence,
    peers: BTreeMap<NodeId, Peer>,
    /// Changes with the set of peers: ranks are of one generation.
    generation: u32,
    hold: Hold,
    controls: Controls,
    random: u64,
    flush_at_ms: u64,
    compare_at_ms: u64,
    effects: Vec<Effect>,
}

impl Spread {
    /// Nobody yet; `id` is this orchestrator, `seed` what its jitter is drawn from.
    #[must_use]
    pub fn new(id: NodeId, settings: Settings, started: Now, seed: u64) -> Self {
        Self {
            id,
            presence: Presence::new(settings, started),
            peers: BTreeMap::new(),
            generation: 1,
            hold: Hold::default(),
            controls: Controls::default(),
            random: seed,
            flush_at_ms: 0,
            compare_at_ms: 0,
            effects: Vec::new(),
        }
    }

    /// Who is there.
    #[must_use]
    pub fn presence(&self) -> &Presence {
        &self.presence
    }

    /// Peers that are up.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Control messages that are held, sealed.
    pub fn controls(&self) -> impl Iterator<Item = &[u8]> {
        self.controls.iter()
    }

    /// What waits for a peer: nodes, whose last beats will be sent.
    #[must_use]
    pub fn waiting(&self, peer: &NodeId) -> usize {
        self.peers.get(peer).map_or(0, Peer::waiting)
    }

    /// Control messages that wait for a peer.
    #[must_use]
    pub fn waiting_controls(&self, peer: &NodeId) -> usize {
        self.peers.get(peer).map_or(0, |peer| peer.telling.len())
    }

    /// Takes what happened; what to do is added to `outputs`.
    pub fn handle(&mut self, input: Input, now: Now, outputs: &mut Vec<Output>) {
        match input {
            Input::PeerUp { peer, near } => self.peer_up(peer, near, outputs),
            Input::PeerDown(peer) => self.peer_down(peer, now, outputs),
            Input::Batch { from, batch } => self.batch(from, batch, now, outputs),
            Input::Written(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.room = (peer.room + 1).min(ROOM);
                }
            }
            Input::Own(event) => self.own(event, now, outputs),
            Input::Control { id, sealed, urgent } => self.control(id, sealed, urgent, outputs),
            Input::ControlGone(id) => self.control_gone(&id),
            Input::Tick => self.tick(now, outputs),
        }
    }

    fn peer_up(&mut self, id: NodeId, near: bool, outputs: &mut Vec<Output>) {
        if id == self.id {
            return;
        }
        if self.peers.len() >= MAX_PEERS && !self.peers.contains_key(&id) {
            let (node, reason) = (Some(id), Rejected::Full);
            outputs.push(Output::Effect(Effect::Rejected { node, reason }));
            return;
        }
        self.peers.insert(id, Peer::new(near));
        self.peers_changed();
    }

    fn peer_down(&mut self, id: NodeId, now: Now, outputs: &mut Vec<Output>) {
        if self.peers.remove(&id).is_some() {
            self.peers_changed();
            self.own(Event::LinkLost(id), now, outputs);
        }
    }

    fn peers_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1).max(1);
        for peer in self.peers.values_mut() {
            peer.tell_linked = true;
        }
    }

    /// A peer that is silent is no peer: it is not counted on to pass anything on, and the others
    /// are told that nothing reaches it from here.
    fn peer_is_quiet(&mut self, id: &NodeId, quiet: bool) {
        let peer = self.peers.get_mut(id).filter(|peer| peer.quiet != quiet);
        if let Some(peer) = peer {
            peer.quiet = quiet;
            self.peers_changed();
        }
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) {
        self.own(Event::Tick, now, outputs);
        if now.mono_ms < self.flush_at_ms {
            return;
        }
        self.flush_at_ms = now.mono_ms + FLUSH_MS;
        self.release_due(now);
        if now.mono_ms >= self.compare_at_ms {
            self.compare_with_one(now);
        }
        let ids: Vec<NodeId> = self.peers.keys().copied().collect();
        for to in ids {
            while let Some(batch) = self.next_batch(&to, now) {
                outputs.push(Output::Send { to, batch });
            }
        }
    }

    /// The next number of its generator (splitmix64): for jitter and the choice of a peer only.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Knows for Spread {
    fn beat(&self, node: &NodeId) -> Option<KnownBeat<'_>> {
        self.presence.beat(node)
    }
    fn revoked(&self, node: &NodeId) -> bool {
        self.presence.revoked(node)
    }
    fn card(&self, node: &NodeId, digest: &Digest) -> bool {
        self.presence.card(node, digest)
    }
}
