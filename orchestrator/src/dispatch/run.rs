//! A request under way: one worker after the other, until the answer is whole or nobody is left.
//! (SCH-4, SCH-8)

use super::letters::FailedAttempts;
use super::log::AnswerLog;
use super::open::Held;
use super::outcome::{End, Refusals, told};
use super::progress::Progress;
use super::waiting::Turn;
use super::{Dispatcher, Interrupts};
use crate::clock;
use crate::fleet::{Found, Snapshot};
use crate::place::{Query, Ranked, place};
use crate::retry::{Failure, Plan, Situation, Why};
use crate::store::Holder;
use std::time::{Duration, Instant};
use tether_wire::infer::InferRequest;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId};
use tracing::{Instrument, Span, field};

/// How often a started answer without a worker looks for one.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// A request under way.
pub(crate) struct Run {
    pub(super) request: InferRequest,
    /// The seed that the tenant gave.
    pub(super) asked_seed: Option<u64>,
    pub(super) model: ModelRef,
    /// The artifact that the model is bound to.
    pub(super) digest: Digest,
    pub(super) seed: u64,
    pub(super) holder: Holder,
    pub(super) held: Held,
    /// When it was first taken, in Unix milliseconds.
    pub(super) created_ms: u64,
    pub(super) began: Instant,
    pub(super) deadline: tokio::time::Instant,
    /// Its place, until a worker has it.
    pub(super) turn: Option<Turn>,
    /// Whether the store has it as streaming.
    pub(super) is_streaming: bool,
    pub(super) progress: Progress,
    /// What was tried in vain.
    pub(super) failed: FailedAttempts,
}

impl Run {
    /// The request as the tenant made it.
    pub(super) fn as_asked(&self) -> InferRequest {
        let mut request = self.request.clone();
        request.sampling.seed = self.asked_seed;
        request
    }
}

impl Dispatcher {
    /// Gives the request to one worker after the other, each of which goes on behind what those
    /// before it gave.
    pub(super) async fn drive(
        &self,
        run: &mut Run,
        log: &AnswerLog,
        interrupt: &mut Interrupts,
    ) -> End {
        let mut last: Option<Code> = None;
        let mut pause = Duration::ZERO;
        let mut refusals = Refusals::default();
        self.retries.request(clock::now().mono_ms);
        loop {
            let found = self.find(run, pause, interrupt).await;
            let ranked = match found {
                Ok(ranked) => ranked,
                Err(end) => return end,
            };
            // The places of a half-open breaker may have gone to others in between.
            let tried = |it: &Ranked| self.breaking.begin(&it.candidate.worker, &run.model);
            let chosen = ranked.iter().enumerate();
            let mut chosen = chosen.filter_map(|(at, it)| Some((at, tried(it)?)));
            let Some((at, trial)) = chosen.next() else {
                if run.progress.has_begun() && !ranked.is_empty() {
                    pause = LOOK;
                    continue;
                }
                return self.nobody_is_left(run, refusals);
            };
            let best = &ranked[at];
            if let Some(code) = last {
                self.metrics.retried(code.as_str());
            }
            let has_begun = run.progress.has_begun();
            run.progress.ordered(best.candidate.worker.id());
            let span = attempt_span(run.progress.attempts(), best);
            for other in ranked.iter().skip(at + 1).take(EXPLAINED) {
                span.in_scope(|| explain(other));
            }
            let began = Instant::now();
            let attempt = self.attempt(run, log, &best.candidate, trial, interrupt);
            let end = attempt.instrument(span.clone()).await;
            span.record("tether.outcome", end.label());
            self.metrics.attempt(end.label(), began.elapsed());
            self.waiting.wake();
            let End::Fault(fault) = end else {
                return end;
            };
            span.in_scope(|| log_fault(&fault));
            let worker = best.candidate.worker.id();
            run.failed.add(worker, &fault, clock::now().unix_ms);
            pause = match self.again(run, &fault) {
                Ok(pause) => pause,
                Err(Why::Deadline) => return End::Final(no_time()),
                Err(why) => {
                    tracing::info!(why = why.label(), "not tried again");
                    if run.progress.has_begun() {
                        return End::Final(told(fault, true, self.config.retry_after_ms));
                    }
                    refusals.add(fault);
                    return self.nobody_is_left(run, refusals);
                }
            };
            // What was refused before the first piece is of no interest behind it.
            if run.progress.has_begun() && !has_begun {
                refusals = Refusals::default();
            }
            last = Some(fault.code);
            refusals.add(fault);
        }
    }

    fn nobody_is_left(&self, run: &Run, refusals: Refusals) -> End {
        if run.progress.has_begun() {
            let nobody = RpcError::new(Code::Unavailable, "nobody is left");
            return End::Final(told(nobody, true, self.config.retry_after_ms));
        }
        let told = refusals.told(self.config.retry_after_ms);
        let nobody = || self.nothing_serves_now(&run.model, &run.digest);
        End::Final(told.unwrap_or_else(nobody))
    }

    /// Whether the request is tried again, and after which pause.
    fn again(&self, run: &mut Run, fault: &RpcError) -> Result<Duration, Why> {
        let now_ms = clock::now().mono_ms;
        let failure = run.progress.failure();
        if let (Code::Overloaded | Code::Unavailable, Some(rest_ms)) =
            (fault.code, fault.retry_after_ms)
        {
            run.progress.rests(now_ms.saturating_add(rest_ms));
        }
        // Somebody who reads already waits as long as for anybody who can go on.
        let mut retry_after_ms = None;
        if failure == Failure::Early && self.rank(run, &run.progress.not_now(now_ms)).is_empty() {
            let Some(rested_ms) = run.progress.rested_ms() else {
                // Who comes in a moment is found without a retry being spent.
                return Ok(Duration::ZERO);
            };
            retry_after_ms = Some(rested_ms.saturating_sub(now_ms));
        }
        let left = (run.deadline).saturating_duration_since(tokio::time::Instant::now());
        let situation = Situation {
            failure,
            tries: run.progress.tries(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            retry_after_ms,
        };
        let plan = (self.retries).plan(&situation, now_ms, &mut rand::rng());
        match plan {
            Plan::Retry { after_ms, tries } => {
                run.progress.again(tries);
                if run.progress.has_begun() {
                    tracing::info!(tokens = run.progress.tokens(), "the answer is handed over");
                    self.metrics.handed_over(fault.code.as_str());
                }
                Ok(Duration::from_millis(after_ms))
            }
            Plan::GiveUp(why) => {
                self.metrics.gave_up(why.label());
                Err(why)
            }
        }
    }

    /// Who may give the answer, best first, after a pause. Of an answer that has begun somebody is
    /// waited for.
    async fn find(
        &self,
        run: &mut Run,
        mut pause: Duration,
        interrupt: &mut Interrupts,
    ) -> Result<Vec<Ranked>, End> {
        let patience = Duration::from_millis(self.config.hand_over_timeout_ms);
        let by = tokio::time::Instant::now() + patience;
        let ranked = |run: &Run| self.rank(run, &run.progress.not_now(clock::now().mono_ms));
        loop {
            if !pause.is_zero() {
                tokio::select! {
                    biased;
                    why = &mut *interrupt => return Err(self.interrupted(why)),
                    () = tokio::time::sleep(std::mem::take(&mut pause)) => {}
                }
            }
            let mut found = ranked(run);
            if found.is_empty() && run.progress.has_begun() {
                run.progress.forgive();
                found = ranked(run);
            }
            let waits = found.is_empty() && run.progress.has_begun();
            if !waits || tokio::time::Instant::now() >= by {
                return Ok(found);
            }
            pause = LOOK;
        }
    }

    /// Whether somebody else can go on who is not in doubt. Of an answer that has begun also who failed
    /// at it before, but not the last.
    pub(super) fn has_other(&self, run: &Run) -> bool {
        let not_now = if run.progress.has_begun() {
            run.progress.last().into_iter().collect()
        } else {
            run.progress.not_now(clock::now().mono_ms)
        };
        let ranked = self.rank(run, &not_now);
        ranked.first().is_some_and(|best| !best.suspect)
    }

    fn rank(&self, run: &Run, tried: &[NodeId]) -> Vec<Ranked> {
        let fleet = self.fleet.snapshot();
        let query = Query {
            region: &self.region,
            tried,
            numerics_class: run.progress.numerics_class(),
            left_at: run.progress.left_at(),
        };
        let left_at = query.left_at.as_ref();
        place(
            self.candidates(&fleet, &run.model, &run.digest, left_at),
            &query,
            &self.config.weights,
            self.config.near_equal,
            &mut rand::rng(),
        )
    }

    /// The best of those who serve an artifact and can be asked now, and `also` this one where it is one
    /// of those who serve it.
    pub(super) fn candidates<'a>(
        &self,
        fleet: &'a Snapshot,
        model: &ModelRef,
        digest: &Digest,
        also: Option<&NodeId>,
    ) -> Vec<Found<'a>> {
        let mut found = self.reachable(fleet, model, digest, also);
        let _ = self.breaking.sift(&mut found, |it| it.worker, model);
        found
    }

    /// The same, those included who are left alone by a breaker.
    fn reachable<'a>(
        &self,
        fleet: &'a Snapshot,
        model: &ModelRef,
        digest: &Digest,
        also: Option<&NodeId>,
    ) -> Vec<Found<'a>> {
        let now_mono_ms = clock::now().mono_ms;
        let is_linked = |worker: &NodeId| {
            let node = self.node.get();
            node.is_some_and(|node| node.linked(worker).is_some())
        };
        let mut found = fleet.candidates(model, digest, &self.region, &mut rand::rng());
        let also = also.filter(|id| found.iter().all(|it| it.worker.id() != **id));
        found.extend(also.and_then(|id| fleet.candidate(id, model, digest)));
        found.retain(|it| {
            let worker = it.worker;
            worker.may_be_asked(|| is_linked(&worker.id()), now_mono_ms)
        });
        found
    }

    /// Nobody can serve an artifact; those who could are left alone for a while, where there are some.
    pub(super) fn nothing_serves_now(&self, model: &ModelRef, digest: &Digest) -> RpcError {
        let fleet = self.fleet.snapshot();
        let mut found = self.reachable(&fleet, model, digest, None);
        let error = self.nothing_serves(&model.to_string());
        match self.breaking.sift(&mut found, |it| it.worker, model) {
            Some(left_ms) if found.is_empty() => error.with_retry_after_ms(left_ms.max(1)),
            _ => error,
        }
    }

    /// Nobody can serve a model that is known, by this name.
    pub(super) fn nothing_serves(&self, model: &str) -> RpcError {
        let fleet = self.fleet.snapshot();
        let why = fleet.withheld(model).flatten();
        let why = why.map_or_else(String::new, |code| format!(": {code}"));
        RpcError::new(
            Code::Unavailable,
            format!("no worker can serve the model `{model}` just now{why}"),
        )
        .with_retry_after_ms(self.config.retry_after_ms)
    }
}

fn no_time() -> RpcError {
    RpcError::new(Code::Deadline, "too little time is left for another worker")
}

/// Candidates whose terms are recorded beside the chosen one.
const EXPLAINED: usize = 8;

fn attempt_span(attempt: u32, chosen: &Ranked) -> Span {
    let worker = &chosen.candidate.worker;
    let span = tracing::info_span!(
        "orchestrator.attempt",
        tether.role = "orchestrator",
        tether.attempt = attempt,
        tether.worker = %worker.id(),
        tether.score = chosen.score,
        tether.suspect = chosen.suspect,
        tether.outcome = field::Empty,
    );
    span.in_scope(|| explain(chosen));
    span
}

/// A tenant at its limit is no trouble of the mesh's.
fn log_fault(fault: &RpcError) {
    if fault.code == Code::RateLimited {
        tracing::info!(error = %fault, "the tenant is over the worker's limit");
    } else {
        tracing::warn!(error = %fault, "attempt failed");
    }
}

/// Records why a candidate has its rank.
fn explain(candidate: &Ranked) {
    tracing::debug!(
        worker = %candidate.candidate.worker.id().short(),
        score = candidate.score,
        suspect = candidate.suspect,
        terms = ?candidate.terms,
        "candidate"
    );
}
