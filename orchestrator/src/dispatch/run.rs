//! A request under way: one worker after the other, until the answer is whole or nobody is left.
//! (SCH-4, SCH-8)

use super::attempt::Attempt;
use super::breaking::Trial;
use super::letters::FailedAttempts;
use super::log::AnswerLog;
use super::open::Held;
use super::outcome::{End, Refusals, told};
use super::progress::Progress;
use super::search::LOOK;
use super::waiting::{Spent, Turn};
use super::{Dispatcher, Interrupts};
use crate::clock;
use crate::explained::{self, Orders};
use crate::place::{Placed, Ranked};
use crate::policy::Effective;
use crate::retry::{Failure, Plan, Situation, Why};
use crate::store::Holder;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tether_wire::infer::InferRequest;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId};

/// A request under way.
pub(crate) struct Run {
    pub(super) request: InferRequest,
    /// The seed that the tenant gave.
    pub(super) asked_seed: Option<u64>,
    pub(super) model: ModelRef,
    /// What the tenant's policy says about it, as of when it came.
    pub(super) rules: Arc<Effective>,
    /// The model that was asked for, where this one answers in its place.
    pub(super) degraded_from: Option<ModelRef>,
    /// Why that one does not answer.
    pub(super) refused: Option<RpcError>,
    /// The most tokens that the policy lets it have, where the request says nothing.
    pub(super) limit: Option<u32>,
    /// Whether nobody was given any of it when it came, so that another model may answer.
    pub(super) may_degrade: bool,
    /// Of what was asked.
    pub(super) hash: Digest,
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
    /// What that took of its tenant's share of the queue, where it had to wait.
    pub(super) spent: Option<Spent>,
    /// Whether the store has it as streaming.
    pub(super) is_streaming: bool,
    pub(super) progress: Progress,
    /// Who was asked beside the attempt that is under way, and is not counted yet.
    pub(super) beside: Beside,
    /// What was tried in vain.
    pub(super) failed: FailedAttempts,
    /// Who got it, and why.
    pub(super) orders: Orders,
}

/// A worker that is asked beside another one; while both are, the run itself is lent to them.
#[derive(Debug, Default)]
pub(super) struct Beside(OnceLock<NodeId>);

impl Beside {
    pub(super) fn asked(&self, worker: NodeId) {
        let _ = self.0.set(worker);
    }

    pub(super) fn worker(&self) -> Option<NodeId> {
        self.0.get().copied()
    }
}

impl Run {
    /// The request as the tenant made it.
    pub(super) fn as_asked(&self) -> InferRequest {
        let mut request = self.request.clone();
        request.sampling.seed = self.asked_seed;
        if self.limit.is_some() {
            request.sampling.max_tokens = None;
        }
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
            let mut placed = match self.find(run, pause, interrupt).await {
                Ok(placed) => placed,
                Err(end) => return end,
            };
            let (barred, trial) = self.admit(&placed, &run.model);
            placed.pass_over(barred);
            run.orders.left_alone(&placed.left_alone);
            let (Some(best), Some(trial)) = (placed.best(), trial) else {
                // The places of a half-open one went to others.
                if barred > 0 {
                    pause = LOOK;
                    continue;
                }
                return self.nobody_is_left(run, refusals);
            };
            if let Some(code) = last {
                self.metrics.retried(code.as_str());
            }
            let has_begun = run.progress.has_begun();
            let worker = &best.candidate.worker;
            run.progress.ordered(worker.id(), worker.epoch());
            self.sends(run, best);
            let mut attempt = Attempt::new(run, best, trial, run.progress.attempts(), false);
            run.turn = None;
            attempt.explained = run.orders.gave(&placed, run.began.elapsed(), false);
            attempt.span.in_scope(|| explain(&placed));
            // Two calls may be under way in it, too much for whoever waits for a whole request.
            let ended = Box::pin(self.attempt(run, log, attempt, interrupt)).await;
            if let Some((worker, fault)) = ended.beside {
                self.failed(run, worker, &fault);
                refusals.add(fault);
            }
            let End::Fault(fault) = ended.end else {
                return ended.end;
            };
            self.failed(run, ended.worker, &fault);
            pause = match self.again(run, &fault, ended.planned) {
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

    /// How many of the first a breaker lets nothing through to after all, and the trial of the one
    /// behind them: the places of a half-open one may have gone to others in between.
    pub(super) fn admit(&self, placed: &Placed, model: &ModelRef) -> (usize, Option<Trial>) {
        let begin = |it: &Ranked| self.breaking.begin(&it.candidate.worker, model);
        let mut ranked = placed.ranked.iter().enumerate();
        let first = ranked.find_map(|(at, it)| Some((at, begin(it)?)));
        first.map_or((placed.ranked.len(), None), |(at, trial)| (at, Some(trial)))
    }

    fn nobody_is_left(&self, run: &Run, refusals: Refusals) -> End {
        if run.progress.has_begun() {
            let nobody = RpcError::new(Code::Unavailable, "nobody is left");
            return End::Final(told(nobody, true, self.config.retry_after_ms));
        }
        let told = refusals.told(self.config.retry_after_ms);
        let nobody = || self.nothing_serves_now((&run.model, &run.digest), &run.rules);
        End::Final(told.unwrap_or_else(nobody))
    }

    /// A worker failed at it, and may want to be left alone for a while.
    fn failed(&self, run: &mut Run, worker: NodeId, fault: &RpcError) {
        let now = clock::now();
        run.failed.add(worker, fault, now.unix_ms);
        if let (Code::Overloaded | Code::Unavailable, Some(rest_ms)) =
            (fault.code, fault.retry_after_ms)
        {
            let until_ms = now.mono_ms.saturating_add(rest_ms);
            run.progress.rests(worker, until_ms);
        }
    }

    /// Whether the request is tried again, and after which pause. What was planned when its worker was
    /// left is what follows.
    fn again(
        &self,
        run: &mut Run,
        fault: &RpcError,
        planned: Option<Plan>,
    ) -> Result<Duration, Why> {
        let now_ms = clock::now().mono_ms;
        if planned.is_none() && self.waits_for_room(run, fault, now_ms) {
            return Ok(LOOK);
        }
        let plan = match planned {
            Some(plan) => plan,
            None => self.plan(run, fault, now_ms),
        };
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

    /// Somebody who reads already waits as long as for anybody who can go on: that all are full is no
    /// failure of theirs.
    fn waits_for_room(&self, run: &mut Run, fault: &RpcError, now_ms: u64) -> bool {
        let is_full = matches!(fault.code, Code::Overloaded | Code::RateLimited);
        let waits = is_full
            && run.progress.failure() == Failure::Between
            && run.progress.refused_for(now_ms) < self.config.hand_over_timeout_ms;
        if waits && let (None, Some(worker)) = (fault.retry_after_ms, run.progress.last()) {
            (run.progress).rests(worker, now_ms.saturating_add(millis(LOOK)));
        }
        waits
    }

    /// What follows where a worker failed. Those who have not failed at it yet may all want to be left
    /// alone for a while.
    fn plan(&self, run: &Run, fault: &RpcError, now_ms: u64) -> Plan {
        let mut situation = situation(run);
        if situation.failure == Failure::Early {
            let others = self.rank(run, &run.progress.not_now(now_ms));
            if others.ranked.is_empty() && !others.is_tried {
                let Some(rested_ms) = run.progress.rested_ms() else {
                    return Plan::GiveUp(Why::Nobody);
                };
                situation.retry_after_ms = Some(rested_ms.saturating_sub(now_ms));
            }
        }
        let is_limited = fault.code == Code::RateLimited;
        (self.retries).plan(&situation, is_limited, now_ms, &mut rand::rng())
    }

    /// The retry that follows if its worker is left now for another one, taken out of the budget;
    /// nothing where there is none left.
    pub(super) fn planned(&self, run: &Run) -> Option<Plan> {
        let (now_ms, rng) = (clock::now().mono_ms, &mut rand::rng());
        let plan = self.retries.plan(&situation(run), false, now_ms, rng);
        matches!(plan, Plan::Retry { .. }).then_some(plan)
    }

    /// Whether there is one.
    pub(super) fn may_retry(&self, run: &Run) -> bool {
        self.retries.may(&situation(run), clock::now().mono_ms)
    }
}

/// What a request is in that fails now.
fn situation(run: &Run) -> Situation {
    let left = (run.deadline).saturating_duration_since(tokio::time::Instant::now());
    let mut tries = run.progress.tries();
    tries.attempts += u32::from(run.beside.worker().is_some());
    Situation {
        failure: run.progress.failure(),
        tries,
        left_ms: millis(left),
        retry_after_ms: None,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn no_time() -> RpcError {
    RpcError::new(Code::Deadline, "too little time is left for another worker")
}

/// Candidates whose terms are recorded in a trace, the chosen one first.
const EXPLAINED: usize = 8;

/// Records who was chosen and why, and the terms of the best.
pub(super) fn explain(placed: &Placed) {
    let Some(chosen) = placed.best() else { return };
    tracing::debug!(
        worker = %chosen.candidate.worker.id().short(),
        reason = explained::reason(placed),
        looked_at = placed.choice.looked_at,
        "placed"
    );
    for candidate in placed.ranked.iter().take(EXPLAINED) {
        tracing::debug!(
            worker = %candidate.candidate.worker.id().short(),
            score = candidate.score,
            suspect = candidate.suspect,
            terms = ?candidate.terms,
            "candidate"
        );
    }
}
