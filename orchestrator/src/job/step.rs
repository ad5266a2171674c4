//! The steps of a job: what each records, and from where to where it leads.

use super::{Answer, DeadLetter, JobState};
use std::sync::Arc;
use tether_wire::infer::{Finish, Usage};
use tether_wire::{Digest, NodeId};

/// A step of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is given to a worker. From `streaming` it is a hand-over: another worker goes on with the
    /// answer, and the job streams as before.
    Dispatched {
        /// Which.
        worker: NodeId,
        /// For which artifact.
        digest: Digest,
        /// Which try this is, from 1; higher than those before.
        attempt: u32,
        /// The worker's numerics class, within which answers are equal to the last bit.
        numerics_class: String,
    },
    /// The first piece of the answer goes to the tenant.
    Streaming,
    /// The whole answer came.
    Done {
        /// Why it ended.
        finish: Finish,
        /// Exact counts.
        usage: Usage,
        /// The answer, where it is to be kept for those who come again with the key.
        answer: Option<Arc<Answer>>,
    },
    /// It ended in an error of the mesh's.
    Failed {
        /// Why.
        error: String,
        /// Tokens that were given until then. What an earlier run gave is not taken back.
        usage: Usage,
        /// What is kept for an operator, where somebody should look at it.
        letter: Option<Arc<DeadLetter>>,
    },
    /// It ended in an error of the tenant's, before this run gave anything. What an earlier run was
    /// counted with stays.
    Refused {
        /// Why.
        error: String,
    },
    /// The tenant went away.
    Cancelled {
        /// As of [`Step::Failed`].
        usage: Usage,
    },
}

impl Step {
    /// Which step it is.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Dispatched { .. } => StepKind::Dispatched,
            Self::Streaming => StepKind::Streaming,
            Self::Done { .. } => StepKind::Done,
            Self::Failed { .. } => StepKind::Failed,
            Self::Refused { .. } => StepKind::Refused,
            Self::Cancelled { .. } => StepKind::Cancelled,
        }
    }

    /// The state that it leads to; only a hand-over leads elsewhere.
    #[must_use]
    pub fn state(&self) -> JobState {
        self.kind().state()
    }
}

/// Which step of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// [`Step::Dispatched`]
    Dispatched,
    /// [`Step::Streaming`]
    Streaming,
    /// [`Step::Done`]
    Done,
    /// [`Step::Failed`]
    Failed,
    /// [`Step::Refused`]
    Refused,
    /// [`Step::Cancelled`]
    Cancelled,
}

impl StepKind {
    /// Every step.
    pub const ALL: [Self; 6] = [
        Self::Dispatched,
        Self::Streaming,
        Self::Done,
        Self::Failed,
        Self::Refused,
        Self::Cancelled,
    ];

    /// Its name on screen: that of the state that it leads to.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.state().as_str()
    }

    /// The step in the words of an error.
    #[must_use]
    pub fn asked(self) -> &'static str {
        match self {
            Self::Dispatched => "the step to `dispatched`",
            Self::Streaming => "the step to `streaming`",
            Self::Done => "the step to `done`",
            Self::Failed => "the step to `failed`",
            Self::Refused => "the step to `refused`",
            Self::Cancelled => "the step to `cancelled`",
        }
    }

    /// See [`Step::state`].
    #[must_use]
    pub fn state(self) -> JobState {
        match self {
            Self::Dispatched => JobState::Dispatched,
            Self::Streaming => JobState::Streaming,
            Self::Done => JobState::Done,
            Self::Failed => JobState::Failed,
            Self::Refused => JobState::Refused,
            Self::Cancelled => JobState::Cancelled,
        }
    }

    /// Where it leads from a state, where it may be taken there: the table of `docs/jobs.md`.
    #[must_use]
    pub fn leads(self, from: JobState) -> Option<JobState> {
        use JobState::{Dispatched, Reserved, Streaming};
        let may = match self {
            // Dispatched again is the next attempt.
            Self::Dispatched => from.is_open(),
            Self::Streaming => from == Dispatched,
            // Done at once is an empty answer.
            Self::Done => matches!(from, Dispatched | Streaming),
            Self::Refused => matches!(from, Reserved | Dispatched),
            Self::Failed | Self::Cancelled => from.is_open(),
        };
        match (self, from) {
            (Self::Dispatched, Streaming) => Some(Streaming),
            _ => may.then(|| self.state()),
        }
    }

    /// Every state that it may be taken from, and where it leads.
    pub fn ways(self) -> impl Iterator<Item = (JobState, JobState)> {
        JobState::ALL
            .into_iter()
            .filter_map(move |from| Some((from, self.leads(from)?)))
    }
}
