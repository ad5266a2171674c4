//! What is kept of one node: enough to decide and to pass on, nothing decoded beyond that.

use crate::event::Gone;
use std::sync::Arc;
use tether_wire::beat::{NodeState, Order};
use tether_wire::{Digest, NodeId, Role, Tier};

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It lives.
    Live,
    /// A beat of it was seen, which proves no life here and now. [T-LIV-4]
    Unproven,
    /// It is gone.
    Gone(Gone),
}

/// What the transport says of the node's own link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    None,
    Quiet,
    Lively,
}

/// Why a node may be dead, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Doubt {
    /// Nothing was heard of it for longer than between two beats.
    Silent,
    /// Its link broke, or could not be had.
    LinkLost,
    /// Its link is quiet, or it did not answer on it in time.
    Unresponsive,
    /// A peer doubts it.
    Peer,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Highest order of any validly signed beat: the floor.
    pub(crate) order: Order,
    /// Its sealed bytes.
    pub(crate) beat: Arc<[u8]>,
    pub(crate) issued_ms: u64,
    /// By how much its clock is ahead of ours, as far as is known.
    pub(crate) ahead_ms: i32,
    pub(super) state: NodeState,
    /// The card that its last beat names.
    pub(super) named: Digest,
    pub(crate) card: Option<HeldCard>,
    pub(crate) standing: Standing,
    /// Monotonic time of the last sign of life; since when it is gone, if it is.
    pub(super) heard_ms: u64,
    /// Unix time at which the first beat of its epoch came.
    pub(super) epoch_since_ms: u64,
    pub(super) cloned_at_ms: Option<u64>,
    /// Its fingerprint in the hash of its bucket; 0 while it is not live.
    pub(super) print: u64,
    /// Slot of the wheel in which it is looked at next.
    pub(super) due_slot: u64,
    pub(super) suspect: bool,
    /// Why it is suspect, and since when, monotonic; while it is.
    pub(super) doubt: (Doubt, u64),
    /// Unix time since which it says that it is in its state.
    pub(super) state_since_ms: u64,
    pub(super) link: Link,
    /// This orchestrator's rank for the node, and for which set of peers that holds.
    pub(crate) rank: (u32, u8),
    /// Whether a beat was held here and nobody else sent it: the next one is not held.
    pub(crate) alone: bool,
}

/// A card, sealed, with what deciding needs of it.
#[derive(Clone, Debug)]
pub(crate) struct HeldCard {
    pub(crate) sealed: Arc<[u8]>,
    pub(crate) digest: Digest,
    pub(super) until_ms: u64,
    pub(super) role: Role,
    pub(super) tier: Tier,
}

impl Node {
    pub(crate) fn is_live(&self) -> bool {
        self.standing == Standing::Live
    }

    /// The card that its last beat names, if that is the one that is held.
    pub(crate) fn current_card(&self) -> Option<&HeldCard> {
        (self.card.as_ref()).filter(|card| card.digest == self.named)
    }
}

/// What is known of a node.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    id: NodeId,
    node: &'a Node,
}

impl<'a> Seen<'a> {
    pub(super) fn new(id: NodeId, node: &'a Node) -> Self {
        Self { id, node }
    }

    /// Which node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.id
    }
    /// Where it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.node.standing
    }
    /// Whether it is live.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.node.is_live()
    }
    /// Whether it is live, but may be dead.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.node.is_live() && self.node.suspect
    }
    /// Whether the card is held that its last beat names.
    #[must_use]
    pub fn is_carded(&self) -> bool {
        self.node.current_card().is_some()
    }
    /// Whether it can be chosen: live, with its card, and in its work.
    #[must_use]
    pub fn is_routable(&self) -> bool {
        self.is_live() && self.is_carded() && self.node.state == NodeState::Serving
    }
    /// The highest order that was seen of it.
    #[must_use]
    pub fn order(&self) -> Order {
        self.node.order
    }
    /// The state in its last beat.
    #[must_use]
    pub fn state(&self) -> NodeState {
        self.node.state
    }
    /// Its role, by its card.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        Some(self.node.current_card()?.role)
    }
    /// How far it is believed, by its card.
    #[must_use]
    pub fn tier(&self) -> Option<Tier> {
        Some(self.node.current_card()?.tier)
    }
    /// Its last beat, sealed.
    #[must_use]
    pub fn sealed_beat(&self) -> &'a Arc<[u8]> {
        &self.node.beat
    }
    /// Its card, sealed.
    #[must_use]
    pub fn sealed_card(&self) -> Option<&'a Arc<[u8]>> {
        Some(&self.node.current_card()?.sealed)
    }
    /// Digest of the card that its last beat names.
    #[must_use]
    pub fn named_card(&self) -> Digest {
        self.node.named
    }
    /// When its last beat was made, by its own clock.
    #[must_use]
    pub fn issued_ms(&self) -> u64 {
        self.node.issued_ms
    }
    /// By how many milliseconds its clock is ahead, as far as is known.
    #[must_use]
    pub fn ahead_ms(&self) -> i32 {
        self.node.ahead_ms
    }
    /// When it was last heard, or went, on the monotonic clock.
    #[must_use]
    pub fn heard_mono_ms(&self) -> u64 {
        self.node.heard_ms
    }
    /// Unix time at which the first beat of its epoch came.
    #[must_use]
    pub fn epoch_since_ms(&self) -> u64 {
        self.node.epoch_since_ms
    }
    /// Unix time since which it says that it is in its state, as heard here.
    #[must_use]
    pub fn state_since_ms(&self) -> u64 {
        self.node.state_since_ms
    }
    /// Why it is suspect, and since when on the monotonic clock; nothing while it is not.
    #[must_use]
    pub fn doubt(&self) -> Option<(Doubt, u64)> {
        self.is_suspect().then_some(self.node.doubt)
    }
    /// When a second process of its key was reported last, on the monotonic clock.
    #[must_use]
    pub fn cloned_mono_ms(&self) -> Option<u64> {
        self.node.cloned_at_ms
    }
    /// Unix time at which its grant ends; nothing without a card, or for a card without a grant.
    #[must_use]
    pub fn granted_until_ms(&self) -> Option<u64> {
        (self.node.current_card())
            .map(|card| card.until_ms)
            .filter(|until_ms| *until_ms < u64::MAX)
    }
}
