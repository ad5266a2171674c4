//! What Tether adds to OpenAI's objects: the field `tether`, once in an answer, where it ends. The
//! official clients pass on fields that they do not know. [T-RCP-5]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use tether_wire::MeshId;
use tether_wire::infer::{Accepted, Done};
use tether_wire::receipt::MAX_RECEIPT_BYTES;

/// Who answered, and their receipt.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Extension {
    /// The mesh in which the receipt counts.
    mesh: String,
    worker: String,
    model: String,
    /// The model that was asked for, where this smaller one answered in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded_from: Option<String>,
    /// The most tokens that the tenant's policy lets the answer have, where the request left it open:
    /// the receipt is of the request with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    /// That which the answer was drawn from, in the form in which a request gives it.
    seed: i64,
    /// The sealed receipt in base64; `tether receipt verify` reads it.
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<String>,
}

impl Extension {
    pub(super) fn new(mesh: &MeshId, accepted: &Accepted) -> Self {
        Self {
            mesh: mesh.to_hex(),
            worker: accepted.worker.to_hex(),
            model: accepted.model.to_string(),
            degraded_from: accepted.degraded_from.as_ref().map(ToString::to_string),
            max_tokens: accepted.max_tokens,
            seed: accepted.seed.cast_signed(),
            receipt: None,
        }
    }

    /// With the receipt of the end. One that is too large to be one is left out.
    pub(super) fn with(&self, done: &Done) -> Self {
        let receipt = done.receipt.as_ref();
        Self {
            receipt: receipt
                .filter(|bytes| bytes.len() <= MAX_RECEIPT_BYTES)
                .map(|bytes| STANDARD.encode(bytes)),
            ..self.clone()
        }
    }
}
