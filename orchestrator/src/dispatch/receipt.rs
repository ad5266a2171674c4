//! Whether a worker's receipt says what was seen here. Pure. [T-RCP-5]
//!
//! It is judged by the orchestrator, since nobody else knows both ends: to which worker the order
//! went, over a link that proved the worker's key, and every piece of the answer. A gateway knows
//! the worker only by the orchestrator's word, and a caller not even the order.

use tether_wire::grant::Mesh;
use tether_wire::infer::{Done, WorkOrder};
use tether_wire::receipt::{self, hash};
use tether_wire::{NodeId, Signed};

/// What a receipt is held against.
pub(crate) struct Seen<'a> {
    pub(crate) mesh: &'a Mesh,
    /// Who had the order.
    pub(crate) worker: NodeId,
    pub(crate) order: &'a WorkOrder,
    /// What was given.
    pub(crate) given: &'a hash::Given,
    pub(crate) done: &'a Done,
}

/// What comes of a receipt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It says what happened.
    Right,
    /// There is none.
    Missing,
    /// It says something else, or is none.
    Wrong(String),
}

impl Verdict {
    /// Its label in metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::Missing => "missing",
            Self::Wrong(_) => "wrong",
        }
    }
}

/// Judges the receipt at the end of an answer, whose counts were checked already.
pub(crate) fn judge(seen: &Seen<'_>) -> Verdict {
    let Some(bytes) = &seen.done.receipt else {
        return Verdict::Missing;
    };
    let sealed = Signed::from_bytes(bytes.as_slice());
    let receipt = match receipt::verify(&sealed, seen.mesh) {
        Ok(proof) => proof.receipt,
        Err(error) => return Verdict::Wrong(error.to_string()),
    };
    let (order, done) = (seen.order, seen.done);
    let seed = order.sampling.seed.unwrap_or_default();
    // A model is an adapter over its base, or it is none; it is never one with others beside it.
    let adapters = receipt.adapters.as_slice();
    let checks: [(&str, bool); 16] = [
        ("signer", receipt.signer() == seen.worker),
        ("correlation", receipt.correlation == order.correlation),
        ("attempt", receipt.attempt == order.attempt),
        ("fence", receipt.fence == order.fence),
        ("model", receipt.model == order.model),
        ("digest", receipt.digest == order.digest),
        (
            "adapters",
            adapters.is_empty() || adapters == [order.digest],
        ),
        ("seed", receipt.seed == seed),
        (
            "request",
            receipt.request == hash::request(&order.input, &order.sampling, &order.output, seed),
        ),
        ("text", receipt.text == seen.given.text()),
        ("calls", receipt.calls == seen.given.calls()),
        ("tokens", receipt.tokens == seen.given.tokens()),
        (
            "prompt_tokens",
            receipt.prompt_tokens == done.usage.prompt_tokens,
        ),
        (
            "completion_tokens",
            receipt.completion_tokens == done.usage.completion_tokens,
        ),
        ("finish", receipt.finish == done.finish),
        (
            "continued_from",
            receipt.continued_from as usize == order.transcript.len(),
        ),
    ];
    match checks.iter().find(|(_, agrees)| !agrees) {
        None => Verdict::Right,
        Some((field, _)) => Verdict::Wrong(format!(
            "its `{field}` is not what was ordered and answered"
        )),
    }
}

#[cfg(test)]
mod tests;
