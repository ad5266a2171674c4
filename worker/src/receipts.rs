//! What this worker signs about the answers that it gives. (TRU-3) [T-RCP-1], [T-RCP-5]

use crate::clock::now_ms;
use crate::engine::EngineDone;
use crate::models::Served;
use std::time::{Duration, Instant};
use tether_wire::infer::{Chunk, WorkOrder};
use tether_wire::receipt::hash::{self, Given};
use tether_wire::{CorrelationId, Digest, MeshId, ModelRef, NodeKey, Receipt, Signed};

/// What receipts are signed with.
pub(crate) struct Signer {
    pub(crate) key: NodeKey,
    pub(crate) mesh: MeshId,
    /// The worker's sealed grant, as it shows it on its links.
    pub(crate) grant: Option<Vec<u8>>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.key.id().short())
    }
}

/// A receipt that grows with its answer.
#[derive(Debug)]
pub(crate) struct Draft {
    correlation: CorrelationId,
    attempt: u32,
    fence: u64,
    model: ModelRef,
    digest: Digest,
    request: Digest,
    seed: u64,
    given: Given,
    /// Tokens that another worker gave.
    continued_from: u32,
    /// Positions that were given, those of another worker among them.
    positions: u32,
    /// Unix milliseconds; what follows is measured from here by a clock that never steps.
    began_ms: u64,
    began: Instant,
    first: Option<Duration>,
}

impl Draft {
    /// The request's turn came.
    pub(crate) fn begin(order: &WorkOrder) -> Self {
        let seed = order.sampling.seed.unwrap_or_default();
        Self {
            correlation: order.correlation,
            attempt: order.attempt,
            fence: order.fence,
            model: order.model.clone(),
            digest: order.digest,
            request: hash::request(&order.input, &order.sampling, &order.output, seed),
            seed,
            given: Given::default(),
            continued_from: u32::try_from(order.transcript.len()).unwrap_or(u32::MAX),
            positions: 0,
            began_ms: now_ms(),
            began: Instant::now(),
            first: None,
        }
    }

    /// Unix milliseconds at which the request's turn came.
    pub(crate) fn began_ms(&self) -> u64 {
        self.began_ms
    }

    /// Takes the next piece. Whether it was made here: what another worker gave is only told again.
    /// [T-INF-11]
    pub(crate) fn take(&mut self, chunk: &Chunk) -> bool {
        self.given.take(chunk);
        let positions = chunk.positions().unwrap_or(u32::MAX);
        self.positions = self.positions.saturating_add(positions);
        let is_new = chunk.position >= self.continued_from;
        if is_new {
            self.first.get_or_insert_with(|| self.began.elapsed());
        }
        is_new
    }

    /// Signs the whole answer, and from where on it was made here. Nothing where not all of it is
    /// known, or a field is beyond its bounds; both are reported.
    pub(crate) fn seal(
        self,
        done: &EngineDone,
        served: &Served,
        signer: &Signer,
    ) -> Option<Vec<u8>> {
        if self.positions != done.usage.completion_tokens {
            let (given, counted) = (self.positions, done.usage.completion_tokens);
            tracing::error!(given, counted, "no receipt: not all that counts was given");
            return None;
        }
        let at = |after: Duration| {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.began_ms.saturating_add(after_ms)
        };
        let receipt = Receipt {
            correlation: self.correlation,
            attempt: self.attempt,
            fence: self.fence,
            model: self.model,
            digest: self.digest,
            adapters: served.adapters(),
            numerics_class: served.offer.numerics_class.clone(),
            engine: served.engine_version.clone(),
            request: self.request,
            text: self.given.text(),
            calls: self.given.calls(),
            tokens: self.given.tokens(),
            prompt_tokens: done.usage.prompt_tokens,
            completion_tokens: done.usage.completion_tokens,
            finish: done.finish,
            seed: self.seed,
            began_ms: self.began_ms,
            first_token_ms: self.first.map(at),
            ended_ms: at(self.began.elapsed()),
            continued_from: self.continued_from,
            grant: signer.grant.clone(),
        };
        match Signed::seal(&signer.key, &signer.mesh, &receipt) {
            Ok(sealed) => Some(sealed.as_bytes().to_vec()),
            Err(error) => {
                tracing::error!(%error, "a receipt could not be made");
                None
            }
        }
    }
}
