//! What a gateway holds of an answer whose orchestrator it lost. [T-INF-13]

use super::check_transcript;
use crate::codec::{CodecError, check_len};
use crate::id::{Digest, ModelRef, NodeId};
use serde::{Deserialize, Serialize};

/// Most orchestrators that one answer may be lost by. [T-INF-13]
pub const MAX_LOST: usize = 16;

/// Where an answer stands, as the one says who was given it. Whoever goes on gives it anew from its
/// first piece, and who was given some of it already holds that against the other.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// The orchestrators that had the request and are lost to the gateway, the last one last.
    pub lost: Vec<NodeId>,
    /// What was said about the answer, where it had begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<Started>,
}

/// What was said of an answer that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The model that gives it: another one than was asked for where that had no room. Nothing where
    /// it was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelRef>,
    /// The model that was asked for, where another one gives it, as it was told. What is told again
    /// says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub degraded_from: Option<ModelRef>,
    /// The artifact that gives it.
    pub digest: Digest,
    /// The seed that it is drawn from.
    pub seed: u64,
    /// The numerics class of who gave it last.
    #[serde(default)]
    pub numerics_class: String,
    /// Who gave it last, and may be at it still. [T-INF-15]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<NodeId>,
    /// The ids of all tokens that were given; nothing where some have none, so that it has to be
    /// given anew.
    #[serde(default)]
    pub transcript: Vec<u32>,
}

impl Resume {
    pub(super) fn check(&self) -> Result<(), CodecError> {
        let what = "request";
        check_len(what, "lost", self.lost.len(), MAX_LOST)?;
        let Some(started) = &self.started else {
            return Ok(());
        };
        check_len(what, "numerics_class", started.numerics_class.len(), 96)?;
        check_transcript(what, &started.transcript)
    }
}
