//! Whose a request is, by its job: recorded anew, taken over from an owner that is lost, answered with
//! what is kept, or refused. (RSV-1, FED-1)

use super::Dispatcher;
use super::open::Held;
use crate::clock;
use crate::job::{Answer, Job, JobState, NewJob, Repeat};
use crate::store::{Grounds, Holder, Reserved, StoreError, TakeOver};
use tether_wire::infer::InferRequest;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId};

/// How often a job is looked at that changes hands meanwhile.
const MAX_TRIES: usize = 8;

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Claim {
    /// It runs here.
    Ours(Claimed),
    /// It was answered already, and this is the answer.
    Answered(Answer),
}

/// What the store has of a request.
#[derive(Debug)]
pub(super) enum Known {
    /// Nothing, or what may run again.
    Nothing,
    /// A job that did not end, and that nobody else has.
    UnderWay(Box<Job>),
    /// A job that ended with a part of its answer given, and may run again.
    CutOff(Box<Job>),
    /// It was answered already, and this is the answer.
    Answered(Answer),
}

/// A job that runs here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    pub(super) fence: u64,
    /// That of its first run.
    pub(super) seed: u64,
    /// When it was first taken, in Unix milliseconds.
    pub(super) created_ms: u64,
    /// Orders that owners before gave for it.
    pub(super) attempts: u32,
    /// Whether the store has it as streaming already.
    pub(super) is_streaming: bool,
}

impl Claimed {
    fn taken_over(job: &Job) -> Self {
        Self {
            fence: job.fence,
            seed: job.seed,
            created_ms: job.created_ms,
            attempts: job.attempts,
            is_streaming: job.state == JobState::Streaming,
        }
    }
}

impl Dispatcher {
    /// Records a job, or finds out what became of the one that is there. `lost` are the
    /// orchestrators that the submitter cannot reach.
    pub(super) async fn claim(
        &self,
        job: NewJob,
        lost: &[NodeId],
        held: &Held,
    ) -> Result<Claim, RpcError> {
        for _ in 0..MAX_TRIES {
            let (repeat, earlier) = match self.store.reserve(job.clone()).await {
                Ok(Reserved::New {
                    fence,
                    seed,
                    created_ms,
                }) => {
                    return Ok(Claim::Ours(Claimed {
                        fence,
                        seed,
                        created_ms,
                        attempts: 0,
                        is_streaming: false,
                    }));
                }
                Ok(Reserved::Repeated(repeat, earlier)) => (repeat, earlier),
                Err(error) => return Err(self.unrecorded(&error)),
            };
            tracing::info!(job = %job.correlation, state = earlier.state.as_str(), "key repeated");
            match repeat {
                Repeat::AlreadyAnswered => return self.kept(&earlier).await.map(Claim::Answered),
                Repeat::StillRunning => {
                    if let Some(claimed) = self.take_over(&earlier, &job.model, lost, held).await? {
                        return Ok(Claim::Ours(claimed));
                    }
                    // It changed hands or ended meanwhile.
                }
                Repeat::AnotherRequest | Repeat::BeginAnew => return Err(conflict(repeat)),
            }
        }
        Err(conflict(Repeat::StillRunning))
    }

    /// What the store has of a request that may have come before. `lost` are the orchestrators that the
    /// submitter cannot reach: it is sent to none of them.
    pub(super) async fn known(
        &self,
        request: &InferRequest,
        hash: &Digest,
        lost: &[NodeId],
    ) -> Result<Known, RpcError> {
        // Whether the store works is seen when the request is recorded.
        let Ok(Some(earlier)) = self.store.job(request.correlation).await else {
            return Ok(Known::Nothing);
        };
        match earlier.repeated_by(hash) {
            Repeat::AnotherRequest => Err(conflict(Repeat::AnotherRequest)),
            Repeat::AlreadyAnswered => self.kept(&earlier).await.map(Known::Answered),
            Repeat::StillRunning => {
                self.is_here(&earlier, lost).await?;
                Ok(Known::UnderWay(Box::new(earlier)))
            }
            Repeat::BeginAnew if earlier.streamed => Ok(Known::CutOff(Box::new(earlier))),
            Repeat::BeginAnew => Ok(Known::Nothing),
        }
    }

    /// What became of a request that nobody could run now: its key may have been used before.
    /// Nothing where it is to be told why it cannot run. `lost` are the orchestrators that the submitter
    /// cannot reach: it is sent to none of them.
    pub(super) async fn claim_earlier(
        &self,
        request: &InferRequest,
        hash: &Digest,
        lost: &[NodeId],
    ) -> Result<Option<Claim>, RpcError> {
        // That the store does not work is no better answer than the one that there is.
        let Ok(Some(earlier)) = self.store.job(request.correlation).await else {
            return Ok(None);
        };
        match earlier.repeated_by(hash) {
            Repeat::AnotherRequest => Err(conflict(Repeat::AnotherRequest)),
            Repeat::AlreadyAnswered => {
                let answer = self.kept(&earlier).await?;
                Ok(Some(Claim::Answered(answer)))
            }
            Repeat::StillRunning => self.is_here(&earlier, lost).await.map(|()| None),
            Repeat::BeginAnew => Ok(None),
        }
    }

    /// An open job is this orchestrator's, or nobody's; or who has it is told.
    async fn is_here(&self, job: &Job, lost: &[NodeId]) -> Result<(), RpcError> {
        let may_be = job.owner == self.id || lost.contains(&job.owner);
        if may_be || !self.lives(job, clock::now().unix_ms).await? {
            return Ok(());
        }
        Err(elsewhere(job.owner))
    }

    /// The answer of a job that is done, as long as it is kept.
    async fn kept(&self, job: &Job) -> Result<Answer, RpcError> {
        let now_ms = clock::now().unix_ms;
        let found = self
            .store
            .answer(job.tenant.clone(), job.correlation, now_ms);
        match found.await {
            Ok(Some(answer)) => {
                self.metrics.answered_again();
                Ok(answer)
            }
            Ok(None) => Err(conflict(Repeat::AlreadyAnswered)),
            Err(error @ (StoreError::Unreadable(_) | StoreError::KeyGone(_))) => {
                tracing::warn!(job = %job.correlation, %error, "a kept answer is lost");
                Err(conflict(Repeat::AlreadyAnswered))
            }
            Err(error) => {
                tracing::error!(job = %job.correlation, %error, "a kept answer cannot be read");
                let why = "the answer to this request is kept and cannot be read now";
                let told = RpcError::new(Code::Unavailable, why);
                Err(told.with_retry_after_ms(self.config.retry_after_ms))
            }
        }
    }

    /// Takes an open job over, as one of this model, where nobody else has it; nothing where it
    /// changed meanwhile.
    async fn take_over(
        &self,
        earlier: &Job,
        model: &ModelRef,
        lost: &[NodeId],
        held: &Held,
    ) -> Result<Option<Claimed>, RpcError> {
        let now_ms = clock::now().unix_ms;
        let grounds = if earlier.owner == self.id {
            // It ended, and that is still to be recorded.
            if held.is_shared() {
                return Err(conflict(Repeat::StillRunning));
            }
            Grounds::Ours
        } else if lost.contains(&earlier.owner) {
            Grounds::NamedLost
        } else if self.lives(earlier, now_ms).await? {
            return Err(elsewhere(earlier.owner));
        } else {
            Grounds::LeaseOver
        };
        let order = TakeOver {
            from: Holder {
                job: earlier.correlation,
                owner: earlier.owner,
                fence: earlier.fence,
            },
            by: self.id,
            grounds,
            model: Some(model.clone()),
            lease_until_ms: now_ms.saturating_add(self.config.answer_timeout_ms),
            now_ms,
        };
        match self.store.take_over(order).await {
            Ok(job) => {
                tracing::warn!(job = %job.correlation, from = %earlier.owner, ?grounds, "taken over");
                self.metrics.taken_over(grounds.as_str());
                Ok(Some(Claimed::taken_over(&job)))
            }
            Err(StoreError::Refused { .. }) => Ok(None),
            Err(error) => Err(self.unrecorded(&error)),
        }
    }

    /// Whether the owner of a job lives and holds it still.
    async fn lives(&self, job: &Job, now_ms: u64) -> Result<bool, RpcError> {
        let live = self.store.live(now_ms).await;
        let live = live.map_err(|error| self.unrecorded(&error))?;
        let lives = live.iter().any(|lease| lease.orchestrator == job.owner);
        let may_live = lives || !self.steady.is_renewed(clock::now().mono_ms);
        Ok(may_live && job.lease_until_ms >= now_ms)
    }

    fn unrecorded(&self, error: &StoreError) -> RpcError {
        tracing::error!(%error, "a job could not be reserved");
        let why = "the request could not be recorded, so that it was not run";
        RpcError::new(Code::Unavailable, why).with_retry_after_ms(self.config.retry_after_ms)
    }
}

/// A live orchestrator has it. [T-INF-13]
fn elsewhere(owner: NodeId) -> RpcError {
    let why = "another orchestrator has this request";
    RpcError::new(Code::Elsewhere, why).with_param(owner.to_hex())
}

/// What a key is answered with that is not to run.
pub(super) fn conflict(repeat: Repeat) -> RpcError {
    let why = match repeat {
        Repeat::AnotherRequest => {
            "this idempotency key was already used for another request; use a new key"
        }
        Repeat::StillRunning => "the request with this idempotency key is still running",
        Repeat::AlreadyAnswered => {
            "the request with this idempotency key was already answered, and its answer is not kept \
             any more; use a new key for another answer"
        }
        Repeat::BeginAnew => "the request with this idempotency key may run again",
    };
    RpcError::new(Code::Conflict, why)
}
