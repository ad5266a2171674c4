//! The small signed sign of life of a node, every 5 s. (PRE-1 to PRE-3) [T-BEA-1] to [T-BEA-6]
//!
//! What changes rarely is in the node's [`crate::Card`]; a beat names it by its digest. So a fleet
//! costs its network some 300 bytes per node and interval.

use crate::codec::{self, CodecError, check_field};
use crate::envelope::Signable;
use crate::id::{Digest, NodeId};
use serde::{Deserialize, Serialize};

/// A node says that it lives once in this time. [T-BEA-2]
pub const BEAT_INTERVAL_MS: u64 = 5_000;
/// A node that was silent for this time is suspect: one beat is missing and the next is nearly due.
/// [T-BEA-3]
pub const SUSPECT_MS: u64 = 2 * BEAT_INTERVAL_MS - 1_000;
/// A node that was silent for this time is gone. [T-BEA-3]
pub const EXPIRY_MS: u64 = 3 * BEAT_INTERVAL_MS;
/// How far the clocks of two nodes may differ, either way. [T-BEA-4]
pub const MAX_SKEW_MS: u64 = 5_000;

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It starts; models are being loaded.
    Starting,
    /// It does its work.
    Serving,
    /// It finishes what it has and takes nothing new.
    Draining,
    /// Goodbye: it is gone with this beat. [T-BEA-5]
    Leaving,
    /// A state that this version does not know; not routable.
    #[serde(other)]
    Unknown,
}

impl NodeState {
    /// Its name on the wire and on screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Leaving => "leaving",
            Self::Unknown => "unknown",
        }
    }
}

/// The place of a beat among all of its node: by the run, then within the run. [T-BEA-6]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Order {
    /// The boot epoch: grows with each start of the node.
    pub epoch: u64,
    /// Grows with each beat of an epoch.
    pub seq: u64,
}

/// The signed sign of life of a node; whose it is says the envelope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Beat {
    /// Grows with each start of the node: the boot epoch.
    pub epoch: u64,
    /// Grows with each beat of an epoch.
    pub seq: u64,
    /// Random; two beats are never the same bytes.
    #[serde(with = "serde_bytes")]
    pub nonce: [u8; 16],
    /// Unix milliseconds at which it was made.
    pub issued_ms: u64,
    /// What the node is doing.
    pub state: NodeState,
    /// Digest of the sealed bytes of the node's card of now.
    pub card: Digest,
    /// Requests that wait in it.
    #[serde(default)]
    pub queue_depth: u32,
    /// Requests that it runs now.
    #[serde(default)]
    pub in_flight: u32,
    /// Tokens in a second that it made of late, over all requests.
    #[serde(default)]
    pub tokens_per_s: f32,
    /// Milliseconds to the first token that it saw of late, median; 0 is unknown.
    #[serde(default)]
    pub first_token_ms: u32,
    /// How its machine is, where it says. (WRK-6)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vitals: Option<Vitals>,
}

/// How a worker's machine is: for people and graphs, not for placement. (WRK-6) [T-BEA-1]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Use of the processors in percent, over all of them.
    pub cpu_pct: u8,
    /// Memory that is free for more, in MiB.
    pub memory_free_mib: u32,
    /// Use of the accelerators in percent, the mean of all; nothing where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_pct: Option<u8>,
    /// Memory of the accelerators that is free, in MiB, over all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_memory_free_mib: Option<u32>,
}

impl Beat {
    /// Its place among all beats of the node.
    #[must_use]
    pub fn order(&self) -> Order {
        Order {
            epoch: self.epoch,
            seq: self.seq,
        }
    }
}

impl Signable for Beat {
    const WHAT: &'static str = "beat";
    const DOMAIN: &'static str = "tether/beat/1";
    const MAX_BYTES: usize = 1_024;

    fn check(&self, _: &NodeId) -> Result<(), CodecError> {
        check_field(
            Self::WHAT,
            "tokens_per_s",
            self.tokens_per_s.is_finite() && self.tokens_per_s >= 0.0,
            || "is not a number of tokens".to_owned(),
        )?;
        let percents = self
            .vitals
            .map(|it| it.cpu_pct.max(it.gpu_pct.unwrap_or(0)));
        check_field(Self::WHAT, "vitals", percents.unwrap_or(0) <= 100, || {
            "has more than 100 percent".to_owned()
        })?;
        codec::check_field(Self::WHAT, "epoch", self.epoch < u64::MAX, || {
            "leaves no room for the next start".to_owned()
        })
    }
}
