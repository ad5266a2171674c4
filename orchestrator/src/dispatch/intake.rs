//! From a `submit` call to a run: who calls, what for, and whether it may run or runs already.

use super::claim::{Claim, Known, conflict};
use super::explaining::Explaining;
use super::letters::FailedAttempts;
use super::progress::Progress;
use super::run::{Beside, Run};
use super::running::{Entered, Place};
use super::{Dispatcher, log};
use crate::clock;
use crate::explained::Orders;
use crate::job::{Answer, Job, NewJob, Repeat};
use crate::store::Holder;
use futures_util::FutureExt;
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_net::Incoming;
use tether_telemetry::trace;
use tether_wire::codec;
use tether_wire::infer::{InferRequest, MAX_CONTINUED_BYTES, Resume, Started};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId, Role};
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, Span, field};

/// Time for a gateway to send a request after it opened the call.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What callers are told to wait when too many requests are under way.
const OVERLOADED_RETRY_MS: u64 = 1_000;
/// How long before the caller's time is over it is told so, at most.
const TELL_MS: u64 = 100;
/// Seeds that we choose fit a double, so that every reader of JSON gets them exactly.
const SEED_BITS: u32 = 53;

/// A request that came, and is to be answered.
pub(super) struct Asked {
    pub(super) request: InferRequest,
    /// Of what the tenant asked, before the seed is filled in.
    hash: Digest,
    began: Instant,
    deadline: tokio::time::Instant,
}

impl Asked {
    /// A request whose caller waits so long, where it says so, and no longer than any may.
    pub(super) fn new(
        request: InferRequest,
        began: Instant,
        timeout_ms: Option<u64>,
        most_ms: u64,
    ) -> Self {
        let hash = asked_hash(&request);
        // A little before the caller gives up by itself, so that it can still be told.
        let asked_ms = timeout_ms.map(|ms| ms.saturating_sub(TELL_MS.min(ms / 10)));
        let allowed = Duration::from_millis(asked_ms.map_or(most_ms, |ms| ms.min(most_ms)));
        Self {
            request,
            hash,
            began,
            deadline: tokio::time::Instant::from_std(began + allowed),
        }
    }
}

/// That one more request is under way.
pub(super) type Permit = Arc<OwnedSemaphorePermit>;

/// What becomes of a request that was taken in.
pub(super) enum TakenIn {
    /// It runs.
    Runs(Box<Run>),
    /// It was answered already.
    Answered(Answer),
}

impl Dispatcher {
    /// Takes a call's request. What comes back holds a permit.
    pub(super) async fn receive(&self, call: &mut Incoming) -> Result<(Asked, Permit), RpcError> {
        let began = Instant::now();
        if call.peer().role != Role::Gateway {
            return Err(RpcError::new(
                Code::Forbidden,
                format!("a {} may not submit requests", call.peer().role),
            ));
        }
        let permit = self.permit()?;
        let request = receive(call).await?;
        let timeout_ms = call.head().timeout_ms;
        let asked = Asked::new(request, began, timeout_ms, self.config.answer_timeout_ms);
        Ok((asked, permit))
    }

    /// One more request may be under way.
    pub(super) fn permit(&self) -> Result<Permit, RpcError> {
        if self.draining.is_cancelled() || self.node.get().is_none() {
            return Err(RpcError::new(
                Code::Unavailable,
                "the orchestrator is starting or stopping",
            )
            .with_retry_after_ms(OVERLOADED_RETRY_MS)
            .untried());
        }
        let overloaded =
            |why| RpcError::new(Code::Overloaded, why).with_retry_after_ms(OVERLOADED_RETRY_MS);
        let permit = (self.permits.clone().try_acquire_owned())
            .map_err(|_| overloaded("too many requests are under way"))?;
        if self.running.is_full() {
            return Err(overloaded("the answers under way are too long together"));
        }
        Ok(Arc::new(permit))
    }

    /// Comes with a request: its run is begun, or joined where it is under way. With the time that
    /// the caller has where the run does not keep it, which has that of the first one. A run may be over
    /// later than its call, and holds the permit as well.
    pub(super) async fn enter(
        self: &Arc<Self>,
        asked: Asked,
        permit: &Permit,
        traceparent: Option<&str>,
    ) -> Result<(log::Reader, Option<tokio::time::Instant>), RpcError> {
        let job = asked.request.correlation;
        loop {
            match self.running.enter(job, asked.hash) {
                Entered::First(place, reader) => {
                    let span = run_span(traceparent, &asked.request);
                    // A task of its own: the caller's going away must not end it before it is
                    // recorded.
                    let (run, permit) = (self.clone().run(asked, place), permit.clone());
                    let run = run.map(|()| drop(permit));
                    self.open.spawn(run.instrument(span));
                    return Ok((reader, None));
                }
                Entered::Joined(reader) => {
                    tracing::info!(%job, "a repeated key joins the answer under way");
                    self.metrics.joined();
                    return Ok((reader, Some(asked.deadline)));
                }
                Entered::Another => return Err(conflict(Repeat::AnotherRequest)),
                // It is about to be recorded.
                Entered::Ending(log) => {
                    let ended = tokio::time::timeout_at(asked.deadline, log.ended()).await;
                    ended.map_err(|_| conflict(Repeat::StillRunning))?;
                }
            }
        }
    }

    /// Makes a request a job, which is on the disk when this is over, or finds what became of it
    /// before.
    pub(super) async fn take_in(
        &self,
        asked: Asked,
        place: &Place,
        explaining: &mut Explaining,
    ) -> Result<TakenIn, RpcError> {
        let Asked {
            mut request,
            hash,
            began,
            deadline,
        } = asked;
        let mut resume = request.resume.take();
        // What was answered before needs nobody's leave and no worker.
        let (mut begun, mut pinned) = (None, None);
        if request.keyed || resume.is_some() {
            let lost = resume.as_ref().map_or(&[][..], |it| &it.lost);
            match self.known(&request, &hash, lost).await? {
                Known::Answered(answer) => return Ok(TakenIn::Answered(answer)),
                Known::UnderWay(job) => {
                    resume = begun_as(resume, &job, job.worker);
                    begun = Some(job);
                }
                // Whoever was given some of it may come, too, and is to see the same.
                Known::CutOff(job) => {
                    pinned = started_as(&job, None);
                    begun = Some(job);
                }
                Known::Nothing => {}
            }
        }
        let lost = resume.as_ref().map_or(&[][..], |it| &it.lost);
        let started = resume.as_ref().and_then(|it| it.started.as_ref());
        let (mut rules, mut limit) = self.permitted(&request, begun.as_deref(), explaining)?;
        let mut pinned = pinned.filter(|_| started.is_none());
        if (pinned.as_ref()).is_some_and(|pinned| !self.can_go_on(&request, pinned, &rules)) {
            // It is another answer.
            pinned = None;
            (rules, limit) = self.permitted(&request, None, explaining)?;
        }
        request.sampling.max_tokens = request.sampling.max_tokens.or(limit);
        if let Some(worker) = started.and_then(|started| started.worker) {
            self.meet(worker).await;
        }
        let begun_as = started.or(pinned.as_ref());
        let chosen = match self.choose(&request, begun_as, &rules, explaining) {
            Ok(chosen) => chosen,
            Err(mut error) => {
                let nobody = error.code == Code::Unavailable;
                error.untried = nobody && self.others_may_know(clock::now().mono_ms);
                return self.earlier(&request, &hash, lost, error).await;
            }
        };
        let asked = chosen.degraded_from.as_ref().unwrap_or(&chosen.model);
        Span::current().record("gen_ai.request.model", asked.to_string());
        // Before it is a job: who would wait in vain costs no disk. An answer that has begun elsewhere
        // goes on at once, as one does here: somebody reads it.
        let turn = if started.is_some() {
            Ok((chosen, (None, None)))
        } else if pinned.is_some() {
            let wanted = (&chosen.model, chosen.digest);
            let turn = self.turn(&request, wanted, &rules, deadline, place.log());
            (turn.await).map(|(turn, spent)| (chosen, (Some(turn), spent)))
        } else {
            let turn = self.turn_or_smaller(&request, chosen, &rules, deadline, place.log());
            (turn.await).map(|(chosen, (turn, spent))| (chosen, (Some(turn), spent)))
        };
        let (chosen, (turn, spent)) = match turn {
            Ok(turn) => turn,
            Err(error) => return self.earlier(&request, &hash, lost, error).await,
        };
        let asked_seed = request.sampling.seed;
        let seed = asked_seed
            .or(started.map(|started| started.seed))
            .unwrap_or_else(|| rand::rng().random::<u64>() >> (u64::BITS - SEED_BITS));
        let job = self.new_job(&request, hash, &chosen.model, seed, deadline);
        tracing::debug!(
            resumes = resume.is_some(),
            has_begun = started.is_some(),
            "may go on"
        );
        let held = self.jobs.hold(request.correlation);
        let claimed = match self.claim(job, lost, &held).await? {
            Claim::Ours(claimed) => claimed,
            Claim::Answered(answer) => return Ok(TakenIn::Answered(answer)),
        };
        request.sampling.seed = Some(claimed.seed);
        let may_degrade = started.is_none() && pinned.is_none() && !claimed.is_streaming;
        let class = pinned.map(|pinned| pinned.numerics_class);
        let has_logprobs = request.sampling.top_logprobs.is_some();
        Ok(TakenIn::Runs(Box::new(Run {
            holder: Holder {
                job: request.correlation,
                owner: self.id,
                fence: claimed.fence,
            },
            held,
            request,
            asked_seed,
            model: chosen.model,
            digest: chosen.digest,
            rules,
            may_degrade,
            degraded_from: chosen.degraded_from,
            refused: chosen.refused,
            limit,
            hash,
            seed: claimed.seed,
            created_ms: claimed.created_ms,
            began,
            deadline,
            turn,
            spent,
            is_streaming: claimed.is_streaming,
            beside: Beside::default(),
            progress: Progress::new(resume, has_logprobs, claimed.attempts).preferring(class),
            failed: FailedAttempts::default(),
            orders: Orders::default(),
        })))
    }

    /// What a request is given that cannot run now: what was answered before needs no worker.
    async fn earlier(
        &self,
        request: &InferRequest,
        hash: &Digest,
        lost: &[NodeId],
        error: RpcError,
    ) -> Result<TakenIn, RpcError> {
        match self.claim_earlier(request, hash, lost).await? {
            Some(Claim::Answered(answer)) => Ok(TakenIn::Answered(answer)),
            _ => Err(error),
        }
    }

    /// What is recorded of a request before it runs.
    pub(super) fn new_job(
        &self,
        request: &InferRequest,
        hash: Digest,
        model: &ModelRef,
        seed: u64,
        deadline: tokio::time::Instant,
    ) -> NewJob {
        let now_ms = clock::now().unix_ms;
        NewJob {
            correlation: request.correlation,
            tenant: request.tenant.clone(),
            retry_token: request.retry_token.clone(),
            keyed: request.keyed,
            request_hash: hash,
            model: model.clone(),
            seed,
            owner: self.id,
            lease_until_ms: now_ms.saturating_add(self.config.answer_timeout_ms),
            deadline_ms: now_ms.saturating_add(left_ms(deadline)),
            max_tokens: request.sampling.max_tokens,
            now_ms,
        }
    }
}

/// What a request goes on as whose answer somebody was given some of: as its gateway says, or, where
/// another caller comes with its key first, as the store has it; and who has it still.
fn begun_as(resume: Option<Resume>, job: &Job, worker: Option<NodeId>) -> Option<Resume> {
    let is_told = resume.as_ref().is_some_and(|it| it.started.is_some());
    match started_as(job, worker).filter(|_| !is_told) {
        None => resume,
        started => Some(Resume {
            started,
            ..resume.unwrap_or_default()
        }),
    }
}

/// As what the store has a job of whose answer somebody was given some.
fn started_as(job: &Job, worker: Option<NodeId>) -> Option<Started> {
    let digest = job.digest.filter(|_| job.streamed)?;
    Some(Started {
        model: Some(job.model.clone()),
        degraded_from: None,
        digest,
        seed: job.seed,
        numerics_class: job.numerics_class.clone().unwrap_or_default(),
        worker,
        transcript: Vec::new(),
    })
}

/// Of what the tenant asked: another under the same key is a conflict. [T-INF-2]
fn asked_hash(request: &InferRequest) -> Digest {
    let asked = (
        &request.model,
        &request.input,
        &request.sampling,
        &request.output,
    );
    Digest::of(&match request.answers {
        // As it always was: answers that are kept are found by it.
        1 => codec::encode(&asked),
        several => codec::encode(&(asked, several)),
    })
}

/// Milliseconds until then.
fn left_ms(deadline: tokio::time::Instant) -> u64 {
    let left = deadline.saturating_duration_since(tokio::time::Instant::now());
    u64::try_from(left.as_millis()).unwrap_or(u64::MAX)
}

/// The span of a run, in the trace of the call that began it.
fn run_span(traceparent: Option<&str>, request: &InferRequest) -> Span {
    let span = tracing::info_span!(
        "orchestrator.dispatch",
        tether.role = "orchestrator",
        tether.correlation_id = request.correlation.to_hex(),
        tether.tenant = request.tenant.as_str(),
        tether.outcome = field::Empty,
        tether.attempts = field::Empty,
        gen_ai.request.model = field::Empty,
        gen_ai.usage.input_tokens = field::Empty,
        gen_ai.usage.output_tokens = field::Empty,
    );
    trace::set_parent(&span, traceparent);
    span
}

async fn receive(call: &mut Incoming) -> Result<InferRequest, RpcError> {
    let item = tokio::time::timeout(RECEIVE_TIMEOUT, call.recv(MAX_CONTINUED_BYTES))
        .await
        .map_err(|_| RpcError::new(Code::Deadline, "the request did not come in time"))??
        .ok_or_else(|| RpcError::new(Code::Invalid, "the call holds no request"))?;
    let request: InferRequest =
        codec::decode("request", &item, MAX_CONTINUED_BYTES).map_err(|e| RpcError::invalid(&e))?;
    request.check().map_err(|e| RpcError::invalid(&e))?;
    Ok(request)
}
