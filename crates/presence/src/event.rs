//! What goes into presence and what comes out.

use crate::admission::AdmittedCard;
use crate::rejected::Rejected;
use tether_wire::spread::Suspicion;
use tether_wire::{Beat, Digest, NodeId, Role, Tier, Verified};

/// The time, read once at the edge. The first decides freshness, which others' clocks take part
/// in; the second decides silence, and does not jump when somebody sets this machine's clock.
/// [T-LIV-2]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Unix milliseconds.
    pub unix_ms: u64,
    /// Milliseconds of a clock that only goes forward.
    pub mono_ms: u64,
}

/// How a beat came. [T-LIV-3]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Over its own node's link: no stranger can have replayed it.
    Direct,
    /// From somebody else.
    Relayed {
        /// By how much its node's clock is ahead of true time, as measured by who was linked with
        /// it; not signed, and believed within [`tether_wire::beat::MAX_SKEW_MS`].
        ahead_ms: i32,
    },
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A beat, and the card that came with it.
    Beat {
        /// The beat.
        beat: Verified<Beat>,
        /// The card that came in the same push or batch.
        card: Option<Box<AdmittedCard>>,
        /// How it came.
        origin: Origin,
    },
    /// The very beat that was accepted last came again, over its own node's link: the node lives.
    Again(NodeId),
    /// A card alone; the node's last beat must name it.
    Card(Box<AdmittedCard>),
    /// The link to a node broke.
    LinkLost(NodeId),
    /// The link to a node was closed in good order, by either side: no sign of trouble, and what its
    /// transport said no longer counts.
    LinkClosed(NodeId),
    /// The link to a node is silent where the transport should speak.
    LinkQuiet(NodeId),
    /// It speaks again.
    LinkLively(NodeId),
    /// A peer suspects a node.
    Suspected(Suspicion),
    /// A key was revoked or replaced.
    Revoked(NodeId),
    /// A key counts again: who revoked it was revoked, or what replaced it is over.
    Unbarred(NodeId),
    /// The grant of a node's card was revoked; the key may be granted anew.
    GrantRevoked(NodeId),
    /// Time passed.
    Tick,
}

/// How a node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Gone {
    /// It said goodbye.
    Departed,
    /// It was silent for too long.
    Expired,
    /// Its key or its grant was revoked.
    Revoked,
    /// Its grant ended.
    Ungranted,
}

impl Gone {
    /// Its label in metrics and on screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Departed => "departed",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::Ungranted => "ungranted",
        }
    }
}

/// What changed.
#[derive(Clone, Debug)]
pub enum Effect {
    /// The node is live, with this beat, and not suspect.
    Beat {
        /// What it says, and who.
        beat: Verified<Beat>,
        /// When it was heard, on the monotonic clock: for a relayed beat, when it was made.
        heard_mono_ms: u64,
        /// Whether the card that the beat names is held: without it, the node has no role and is
        /// not routable. An earlier card may have been told; it no longer counts.
        carded: bool,
    },
    /// The node's card, new or changed, is the one that its last beat names.
    Carded(Box<AdmittedCard>),
    /// The node may be dead: it is chosen last.
    Suspect(NodeId),
    /// It is not, after all.
    Well(NodeId),
    /// The node is gone, and so is its card.
    Gone {
        /// Which one.
        node: NodeId,
        /// How it went.
        how: Gone,
    },
    /// A beat names a card that is not held: whoever sent the beat must send it.
    WantCard {
        /// Whose card.
        node: NodeId,
        /// Its digest.
        digest: Digest,
    },
    /// Two processes run with one key.
    Clone {
        /// The key.
        node: NodeId,
        /// The epoch that wins.
        epoch: u64,
        /// The other one.
        other: u64,
    },
    /// Something was dropped.
    Rejected {
        /// Whose it is, or claims to be.
        node: Option<NodeId>,
        /// Why.
        reason: Rejected,
    },
}

impl Effect {
    /// The role and tier that a card gives its node.
    #[must_use]
    pub fn as_carded(&self) -> Option<(NodeId, Role, Tier)> {
        match self {
            Self::Carded(card) => Some((card.node(), card.role(), card.tier())),
            _ => None,
        }
    }
}
