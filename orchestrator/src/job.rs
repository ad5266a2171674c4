//! A job and what may become of it: the one place that knows. (RSV-1, RSV-4)
//!
//! ```text
//! reserved ──▶ dispatched ──▶ streaming ──▶ done
//!    ▲   │        │  ▲ │        │  ▲ │
//!    │   │        └──┘ │        └──┘ ├──▶ failed | cancelled
//!    │   └─────────────┴─▶ refused   │         │
//!    └── the same request comes again under its key
//! ```
//!
//! `docs/jobs.md` has the whole table; a test holds it against this module.
//!
//! # Layout
//!
//! * [`state`] – where a job stands
//! * [`step`] – from where to where each step leads
//! * [`kept`] – what is kept beside a job, sealed: answers and dead letters

pub mod kept;
pub mod state;
pub mod step;
#[cfg(test)]
mod tests;

pub use kept::{Answer, DeadLetter, FailedAttempt, MAX_ANSWER_BYTES};
pub use state::JobState;
pub use step::{Step, StepKind};

use tether_wire::infer::{Finish, Usage};
use tether_wire::{CorrelationId, Digest, ModelRef, NodeId, TenantId};

/// Longest text of an error that is kept, in bytes.
pub const MAX_ERROR_BYTES: usize = 512;

/// What is recorded before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its id, which follows from tenant and key.
    pub correlation: CorrelationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's key for it; unique with the tenant.
    pub retry_token: String,
    /// Whether the tenant gave that key: nobody else can come again with one that a gateway drew.
    pub keyed: bool,
    /// Hash of model, input and sampling as the tenant gave them.
    pub request_hash: Digest,
    /// The model that it was resolved to.
    pub model: ModelRef,
    /// The seed that the answer is a function of, unless the job is there and has one.
    pub seed: u64,
    /// The orchestrator that runs it.
    pub owner: NodeId,
    /// Unix milliseconds until which the owner holds it, at most.
    pub lease_until_ms: u64,
    /// Unix milliseconds at which the caller's time is over.
    pub deadline_ms: u64,
    /// Tokens that the reservation is for; nothing where the caller set no limit.
    pub max_tokens: Option<u32>,
    /// Unix milliseconds.
    pub now_ms: u64,
}

/// A job as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its id.
    pub correlation: CorrelationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's key for it.
    pub retry_token: String,
    /// Whether the tenant gave that key.
    pub keyed: bool,
    /// Hash of the request.
    pub request_hash: Digest,
    /// The model.
    pub model: ModelRef,
    /// The artifact that the last attempt was for.
    pub digest: Option<Digest>,
    /// The numerics class of the last attempt's worker.
    pub numerics_class: Option<String>,
    /// The seed, that of the first run in all others.
    pub seed: u64,
    /// Where it stands.
    pub state: JobState,
    /// The orchestrator that runs it.
    pub owner: NodeId,
    /// Unix milliseconds until which the owner holds it, at most; no longer than the owner lives.
    pub lease_until_ms: u64,
    /// Unix milliseconds at which the caller's time is over; not known of jobs of earlier versions.
    pub deadline_ms: Option<u64>,
    /// Grows whenever the job changes hands or begins anew; a lower one is refused.
    pub fence: u64,
    /// Workers that it was given to so far, in this run.
    pub attempts: u32,
    /// The last of them.
    pub worker: Option<NodeId>,
    /// Runs of it that failed.
    pub failures: u32,
    /// Tokens that its reservation is for; nothing where there is no limit.
    pub max_tokens: Option<u32>,
    /// Whether any of an answer was given to the tenant, in any of its runs.
    pub streamed: bool,
    /// Tokens of the prompt and of what was given: what this job's worker read and made. Set when
    /// a run ends, never added, so that what is given again is billed once. Of several answers to one
    /// request each is a job, whose worker read the prompt; a tenant's usage counts that once.
    /// [T-INF-2]
    pub usage: Usage,
    /// Why the answer ended.
    pub finish: Option<Finish>,
    /// Why the job failed or was refused.
    pub error: Option<String>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub updated_ms: u64,
    /// Unix milliseconds until which it is remembered, once it ended.
    pub keep_until_ms: u64,
}

impl Job {
    /// What becomes of another request under the same key.
    #[must_use]
    pub fn repeated_by(&self, request_hash: &Digest) -> Repeat {
        if self.request_hash != *request_hash {
            Repeat::AnotherRequest
        } else if self.state.is_open() {
            Repeat::StillRunning
        } else if self.state.begun_anew().is_some() {
            Repeat::BeginAnew
        } else {
            Repeat::AlreadyAnswered
        }
    }
}

/// What a repeated key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// The key was used for another request.
    AnotherRequest,
    /// The first request is under way.
    StillRunning,
    /// The first request was answered in full.
    AlreadyAnswered,
    /// The first request ended without a whole answer: it may run now.
    BeginAnew,
}

/// Cuts an error's text at a character's border.
#[must_use]
pub fn bounded_error(text: &str) -> &str {
    let mut end = text.len().min(MAX_ERROR_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
