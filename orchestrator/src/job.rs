//! A job and what may become of it: the one place that knows. (RSV-1, RSV-4)
//!
//! ```text
//! reserved ──▶ dispatched ◀─▶ streaming ──▶ done
//!    ▲   │        │  ▲ │          │
//!    │   │        └──┘ └──────────┼──▶ failed | cancelled
//!    │   └────────────────────────┘         │
//!    └──────── the same request comes again under its key ──┘
//! ```
//!
//! Prompts and answers are not part of it: only hashes and counts are kept.

use tether_wire::infer::{Finish, Usage};
use tether_wire::{CorrelationId, Digest, ModelRef, NodeId, TenantId};

/// Longest text of an error that is kept, in bytes.
pub const MAX_ERROR_BYTES: usize = 512;

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JobState {
    /// Recorded, with its reservation; nothing was sent.
    Reserved,
    /// Given to a worker; nothing came back.
    Dispatched,
    /// Part of the answer was given to the tenant.
    Streaming,
    /// The whole answer was given.
    Done,
    /// It ended in an error.
    Failed,
    /// The tenant went away.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Reserved,
        Self::Dispatched,
        Self::Streaming,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Its name in the store and on screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Dispatched => "dispatched",
            Self::Streaming => "streaming",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The state with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }

    /// Whether the job is still under way, and its reservation with it.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Reserved | Self::Dispatched | Self::Streaming)
    }

    /// Whether a job in this state may come into the next one. Beginning anew
    /// ([`Repeat::BeginAnew`]) is not a transition: it is another run under a higher fence.
    #[must_use]
    pub fn may_become(self, next: Self) -> bool {
        use JobState::{Cancelled, Dispatched, Done, Failed, Reserved, Streaming};
        match self {
            Reserved => matches!(next, Dispatched | Failed | Cancelled),
            // Dispatched again is the next attempt; done at once is an empty answer.
            Dispatched => matches!(next, Dispatched | Streaming | Done | Failed | Cancelled),
            // Dispatched from there is a hand-over: another worker goes on.
            Streaming => matches!(next, Dispatched | Done | Failed | Cancelled),
            Done | Failed | Cancelled => false,
        }
    }
}

/// What is recorded before anything is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJob {
    /// Its id.
    pub correlation: CorrelationId,
    /// Whose it is.
    pub tenant: TenantId,
    /// The tenant's key for it; unique with the tenant.
    pub retry_token: String,
    /// Hash of model, input and sampling as the tenant gave them.
    pub request_hash: Digest,
    /// The model that it was resolved to.
    pub model: ModelRef,
    /// The seed that the answer is a function of.
    pub seed: u64,
    /// The orchestrator that runs it.
    pub owner: NodeId,
    /// Unix milliseconds until which the owner holds it.
    pub lease_until_ms: u64,
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
    /// Hash of the request.
    pub request_hash: Digest,
    /// The model.
    pub model: ModelRef,
    /// The artifact that the last attempt was for.
    pub digest: Option<Digest>,
    /// The seed.
    pub seed: u64,
    /// Where it stands.
    pub state: JobState,
    /// The orchestrator that runs it.
    pub owner: NodeId,
    /// Unix milliseconds until which the owner holds it.
    pub lease_until_ms: u64,
    /// Grows whenever the job changes hands or begins anew; a lower one is refused.
    pub fence: u64,
    /// Workers that it was given to so far.
    pub attempts: u32,
    /// The last of them.
    pub worker: Option<NodeId>,
    /// Whether any of an answer was given to the tenant, in any of its runs.
    pub streamed: bool,
    /// Tokens of the prompt and of what was given: what this job's worker read and made. Of several
    /// answers to one request each is a job, whose worker read the prompt; a tenant's usage counts
    /// that once. [T-INF-2]
    pub usage: Usage,
    /// Why the answer ended.
    pub finish: Option<Finish>,
    /// Why the job failed.
    pub error: Option<String>,
    /// Unix milliseconds.
    pub created_ms: u64,
    /// Unix milliseconds.
    pub updated_ms: u64,
}

impl Job {
    /// What becomes of another request under the same key.
    #[must_use]
    pub fn repeated_by(&self, request_hash: &Digest) -> Repeat {
        if self.request_hash != *request_hash {
            Repeat::AnotherRequest
        } else if self.state.is_open() {
            Repeat::StillRunning
        } else if self.state == JobState::Done {
            Repeat::AlreadyAnswered
        } else {
            Repeat::BeginAnew
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
    /// The first request ended without a whole answer: it may run again, from the same seed, so that
    /// the same answer is made.
    BeginAnew,
}

/// A step of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is given to a worker.
    Dispatched {
        /// Which.
        worker: NodeId,
        /// For which artifact.
        digest: Digest,
        /// Which try this is, from 1.
        attempt: u32,
    },
    /// The first piece of the answer goes to the tenant.
    Streaming,
    /// The whole answer came.
    Done {
        /// Why it ended.
        finish: Finish,
        /// Exact counts.
        usage: Usage,
    },
    /// It ended in an error.
    Failed {
        /// Why.
        error: String,
        /// Tokens that were given until then.
        usage: Usage,
    },
    /// The tenant went away.
    Cancelled {
        /// Tokens that were given until then.
        usage: Usage,
    },
}

impl Step {
    /// The state that it leads to.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self {
            Self::Dispatched { .. } => JobState::Dispatched,
            Self::Streaming => JobState::Streaming,
            Self::Done { .. } => JobState::Done,
            Self::Failed { .. } => JobState::Failed,
            Self::Cancelled { .. } => JobState::Cancelled,
        }
    }

    /// The states that it may be taken from.
    pub fn from_states(&self) -> impl Iterator<Item = JobState> {
        let next = self.state();
        JobState::ALL
            .into_iter()
            .filter(move |state| state.may_become(next))
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_ended_stays_as_it_ended() {
        for ended in JobState::ALL.into_iter().filter(|s| !s.is_open()) {
            for next in JobState::ALL {
                assert!(!ended.may_become(next), "{ended:?} → {next:?}");
            }
        }
    }

    #[test]
    fn every_open_job_can_fail_and_be_cancelled_and_none_goes_back() {
        use JobState::{Cancelled, Dispatched, Done, Failed, Reserved, Streaming};
        for open in [Reserved, Dispatched, Streaming] {
            assert!(open.may_become(Failed) && open.may_become(Cancelled));
            assert!(!open.may_become(Reserved), "{open:?}");
        }
        assert!(!Reserved.may_become(Streaming) && !Reserved.may_become(Done));
        assert!(Streaming.may_become(Dispatched), "a hand-over");
        assert!(Dispatched.may_become(Dispatched), "the next attempt");
        assert!(Streaming.may_become(Done));
    }

    #[test]
    fn names_of_states_are_read_back() {
        for state in JobState::ALL {
            assert_eq!(JobState::from_name(state.as_str()), Some(state));
        }
        assert_eq!(JobState::from_name("x"), None);
    }

    #[test]
    fn long_errors_are_cut_between_characters() {
        let text = "é".repeat(MAX_ERROR_BYTES);
        let cut = bounded_error(&text);
        assert!(cut.len() <= MAX_ERROR_BYTES && cut.chars().all(|c| c == 'é'));
        assert_eq!(bounded_error("short"), "short");
    }
}
