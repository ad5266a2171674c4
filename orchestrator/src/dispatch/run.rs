//! A request under way: one worker after the other, until the answer is whole or nobody is left.
//! (SCH-4, SCH-8)

use super::log::AnswerLog;
use super::open::Held;
use super::outcome::{End, Refusals, told};
use super::progress::{Next, Progress};
use super::{Dispatcher, Interrupts, backoff};
use crate::clock;
use crate::fleet::{Found, Snapshot};
use crate::place::{Query, Ranked, place};
use crate::policy::Effective;
use crate::store::Holder;
use std::sync::Arc;
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
    pub(super) model: ModelRef,
    /// What the tenant's policy says about it, as of when it came.
    pub(super) rules: Arc<Effective>,
    /// The model that was asked for, where this one answers in its place.
    pub(super) degraded_from: Option<ModelRef>,
    /// The most tokens that the policy lets it have, where the request says nothing.
    pub(super) limit: Option<u32>,
    /// Whether nobody was given any of it yet, so that another model may answer.
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
    pub(super) progress: Progress,
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
        let mut refusals = Refusals::default();
        loop {
            let found = self.find(run, last.is_some(), interrupt).await;
            let ranked = match found {
                Ok(ranked) => ranked,
                Err(end) => return end,
            };
            let Some(best) = ranked.first() else {
                if run.progress.has_begun() {
                    let nobody = RpcError::new(Code::Unavailable, "nobody is left");
                    return End::Final(told(nobody, true, self.config.retry_after_ms));
                }
                let told = refusals.told(self.config.retry_after_ms);
                let nobody = || self.nothing_serves(&run.model.to_string());
                return End::Final(told.unwrap_or_else(nobody));
            };
            if let Some(code) = last {
                self.metrics.retried(code.as_str());
            }
            let has_begun = run.progress.has_begun();
            run.progress.ordered(best.candidate.worker.id());
            let span = attempt_span(run.progress.attempts(), best);
            for other in ranked.iter().skip(1).take(EXPLAINED) {
                span.in_scope(|| explain(other));
            }
            let began = Instant::now();
            let attempt = self.attempt(run, log, &best.candidate, interrupt);
            let end = attempt.instrument(span.clone()).await;
            span.record("tether.outcome", end.label());
            self.metrics.attempt(end.label(), began.elapsed());
            let End::Fault(fault) = end else {
                return end;
            };
            span.in_scope(|| log_fault(&fault));
            match run.progress.fails(self.config.attempts) {
                Next::Retry => {}
                Next::HandOver => {
                    tracing::info!(tokens = run.progress.tokens(), "the answer is handed over");
                    self.metrics.handed_over(fault.code.as_str());
                }
                Next::Stop if run.progress.has_begun() => {
                    return End::Final(told(fault, true, self.config.retry_after_ms));
                }
                Next::Stop => {
                    refusals.add(fault);
                    let told = refusals.told(self.config.retry_after_ms);
                    return End::Final(told.unwrap_or_else(super::failed_here));
                }
            }
            // What was refused before the first piece is of no interest behind it.
            if run.progress.has_begun() && !has_begun {
                refusals = Refusals::default();
            }
            last = Some(fault.code);
            refusals.add(fault);
        }
    }

    /// Who may give the answer, best first. After a failure only after a pause; of an answer that has
    /// begun somebody is waited for.
    async fn find(
        &self,
        run: &mut Run,
        has_failed: bool,
        interrupt: &mut Interrupts,
    ) -> Result<Vec<Ranked>, End> {
        let patience = Duration::from_millis(self.config.hand_over_timeout_ms);
        let by = tokio::time::Instant::now() + patience;
        // Who was given some of an answer waits for the next piece, not for the first.
        let mut pause = if has_failed && run.progress.failed() > 0 {
            let left = (run.deadline).saturating_duration_since(tokio::time::Instant::now());
            backoff::pause(run.progress.failed(), left, &mut rand::rng())
        } else {
            Duration::ZERO
        };
        loop {
            let mut ranked = self.rank(run);
            if ranked.is_empty() && run.progress.has_begun() {
                run.progress.forgive();
                ranked = self.rank(run);
            }
            let waits = ranked.is_empty() && run.progress.has_begun();
            if waits {
                if tokio::time::Instant::now() >= by {
                    return Ok(ranked);
                }
                pause = pause.max(LOOK);
            }
            if pause.is_zero() || (ranked.is_empty() && !waits) {
                return Ok(ranked);
            }
            tokio::select! {
                biased;
                why = &mut *interrupt => return Err(self.interrupted(why)),
                () = tokio::time::sleep(std::mem::take(&mut pause)) => {}
            }
        }
    }

    /// Whether somebody else can go on who is not in doubt.
    pub(super) fn has_other(&self, run: &Run) -> bool {
        let ranked = self.rank(run);
        ranked.first().is_some_and(|best| !best.suspect)
    }

    fn rank(&self, run: &Run) -> Vec<Ranked> {
        let fleet = self.fleet.snapshot();
        let query = Query {
            region: &self.region,
            tried: run.progress.tried(),
            numerics_class: run.progress.numerics_class(),
        };
        place(
            self.candidates(&fleet, &run.model, &run.digest, &run.rules),
            &query,
            &self.config.weights,
            self.config.near_equal,
            &mut rand::rng(),
        )
    }

    /// The best of those who serve an artifact and can be asked now, where the request may go.
    pub(super) fn candidates<'a>(
        &self,
        fleet: &'a Snapshot,
        model: &ModelRef,
        digest: &Digest,
        rules: &Effective,
    ) -> impl Iterator<Item = Found<'a>> {
        let now_mono_ms = clock::now().mono_ms;
        let is_linked = |worker: &NodeId| {
            let node = self.node.get();
            node.is_some_and(|node| node.linked(worker).is_some())
        };
        let (here, within) = (&self.region, rules.regions());
        let found = fleet.candidates_within(model, digest, here, within, &mut rand::rng());
        found.into_iter().filter(move |it| {
            let worker = it.worker;
            worker.may_be_asked(|| is_linked(&worker.id()), now_mono_ms)
        })
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
