//! What presence looks like on links: from a node to its orchestrators, and among those.
//! (PRE-5) [T-PUS-1] to [T-PUS-4], [T-SPR-1] to [T-SPR-9]
//!
//! Beats and cards travel as the sealed bytes of their nodes, and whoever gets them verifies them.
//! What is beside them here is not signed: it can make a receiver skip bytes that this sender
//! sends, ask for more, or choose a node last, and nothing else.

use crate::beat::{MAX_SKEW_MS, Order};
use crate::codec::{self, CodecError, check_field, check_len};
use crate::id::{Digest, NodeId};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Most bytes of one item of a `presence` call. [T-PUS-2]
pub const MAX_PUSH_BYTES: usize = 20_480;
/// Pushes of one node in a second that an orchestrator takes on average: one in five seconds is the
/// rule, and what changes is told at once. [T-PUS-5]
pub const MAX_PUSHES_PER_SECOND: u32 = 10;
/// Pushes of one node that it takes at once. [T-PUS-5]
pub const MAX_PUSHES_AT_ONCE: u32 = 20;
/// Orchestrators that a node pushes to. [T-PUS-1]
pub const PUSHED_TO: usize = 3;
/// Most bytes of one batch. [T-SPR-2]
pub const MAX_BATCH_BYTES: usize = 1 << 20;
/// Most beats, cards, orders, notes or sealed controls in one batch, each. [T-SPR-2]
pub const MAX_BATCH_ENTRIES: usize = 4_096;
/// Most orchestrators that one is linked with, as far as others are told. [T-SPR-2]
pub const MAX_LINKED: usize = 256;
/// Parts into which a fleet is divided for comparison, by the first byte of the node's id. [T-SPR-6]
pub const BUCKETS: usize = 256;

/// One push of a node over the method `presence`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Push {
    /// The sealed [`crate::Beat`].
    #[serde(with = "serde_bytes")]
    pub beat: Vec<u8>,
    /// The sealed [`crate::Card`], where it was not yet pushed over this call.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "serde_bytes")]
    pub card: Option<Vec<u8>>,
}

impl Push {
    /// Decodes a push.
    ///
    /// # Errors
    /// When it is too large or not a push.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode("push", bytes, MAX_PUSH_BYTES)
    }
}

/// What an orchestrator asks of a node over its `presence` call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushReply {
    /// It has the beat, but not the card that the beat names: the next push must carry it.
    pub wants_card: bool,
}

/// A beat that is passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayedBeat {
    /// What the beat says of its order, so that a receiver that has it can skip it unverified.
    pub epoch: u64,
    /// See [`crate::Beat::seq`].
    pub seq: u64,
    /// By how many milliseconds the node's clock is ahead of true time, as measured by who was
    /// linked with it; at most [`MAX_SKEW_MS`] either way.
    #[serde(default)]
    pub ahead_ms: i32,
    /// The sealed [`crate::Beat`].
    #[serde(with = "serde_bytes")]
    pub beat: Vec<u8>,
}

impl RelayedBeat {
    /// The order that it speaks of.
    #[must_use]
    pub fn order(&self) -> Order {
        Order {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// A node that may be dead: the sender's link to it broke, or it is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suspicion {
    /// Which node.
    pub node: NodeId,
    /// The last order that the sender has of it: a later beat ends the suspicion.
    pub epoch: u64,
    /// See [`crate::Beat::seq`].
    pub seq: u64,
}

impl Suspicion {
    /// The order that it speaks of.
    #[must_use]
    pub fn order(&self) -> Order {
        Order {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// What the sender has of one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// Which node.
    pub node: NodeId,
    /// Its last order.
    pub epoch: u64,
    /// See [`crate::Beat::seq`].
    pub seq: u64,
    /// The card that it has of it; nothing while it has none.
    #[serde(default)]
    pub card: Option<Digest>,
}

impl Holding {
    /// The order that it speaks of.
    #[must_use]
    pub fn order(&self) -> Order {
        Order {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

/// One message between orchestrators, over the method `spread`. Every part may be empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The orchestrators that the sender is linked with; said when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub linked: Option<Vec<NodeId>>,
    /// Sealed cards, before the beats that name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cards: Vec<ByteBuf>,
    /// Beats, the last one of a node each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beats: Vec<RelayedBeat>,
    /// Nodes that may be dead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspicions: Vec<Suspicion>,
    /// Hashes over what the sender holds, one for each bucket; [`BUCKETS`] of them, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub summary: Vec<u64>,
    /// Hashes over the control messages that the sender holds; [`BUCKETS`] of them, or none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub control_summary: Vec<u64>,
    /// What the sender holds of buckets that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holdings: Vec<Holding>,
    /// Nodes of which the sender wants card and last beat.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wants: Vec<NodeId>,
    /// Sealed control messages: revocations and rotations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<ByteBuf>,
}

impl Batch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Decodes a batch and checks its limits.
    ///
    /// # Errors
    /// When it is too large, not a batch, or outside its limits.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let batch: Self = codec::decode("batch", bytes, MAX_BATCH_BYTES)?;
        batch.check()?;
        Ok(batch)
    }

    fn check(&self) -> Result<(), CodecError> {
        let what = "batch";
        let linked = self.linked.as_ref().map_or(0, Vec::len);
        check_len(what, "linked", linked, MAX_LINKED)?;
        for (field, len) in [
            ("cards", self.cards.len()),
            ("beats", self.beats.len()),
            ("suspicions", self.suspicions.len()),
            ("holdings", self.holdings.len()),
            ("wants", self.wants.len()),
            ("controls", self.controls.len()),
        ] {
            check_len(what, field, len, MAX_BATCH_ENTRIES)?;
        }
        for (field, parts) in [
            ("summary", self.summary.len()),
            ("control_summary", self.control_summary.len()),
        ] {
            check_field(what, field, parts == 0 || parts == BUCKETS, || {
                format!("has {parts} parts, not {BUCKETS}")
            })?;
        }
        check_field(
            what,
            "ahead_ms",
            (self.beats.iter()).all(|it| u64::from(it.ahead_ms.unsigned_abs()) <= MAX_SKEW_MS),
            || format!("is beyond {MAX_SKEW_MS} ms"),
        )
    }
}
