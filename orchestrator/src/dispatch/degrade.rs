//! Where nobody has room for a request, a smaller model answers it, if its tenant's policy says so.
//! (SCH-5, SCH-6)
//!
//! What counts is what came of it: nothing was given, there is time left, and the caller would be told
//! that the model is overloaded or unavailable, whoever says so: the queue that sheds the request, or
//! all workers that were asked. Before it is a job the smaller one is asked at once. After that the
//! job of the larger model ends, and begins anew for the smaller one under a higher fence, so that it
//! is recorded and billed as what it is.

use super::log::AnswerLog;
use super::outcome::{End, is_refusal};
use super::permit::Chosen;
use super::progress::Progress;
use super::run::Run;
use super::waiting::{Spent, Turn};
use super::{Dispatcher, Interrupts, elsewhere, letters};
use crate::job::Step;
use crate::policy::Effective;
use crate::store::{Reserved, StoreError};
use std::sync::Arc;
use tether_wire::infer::{InferRequest, Usage};
use tether_wire::rpc::{Code, RpcError};

impl Dispatcher {
    /// Waits for the turn of a request; where its model has no room, for that of a smaller one.
    pub(super) async fn turn_or_smaller(
        &self,
        request: &InferRequest,
        mut chosen: Chosen,
        rules: &Arc<Effective>,
        deadline: tokio::time::Instant,
        log: &AnswerLog,
    ) -> Result<(Chosen, (Turn, Option<Spent>)), RpcError> {
        let is_counted = chosen.degraded_from.is_some();
        loop {
            let wanted = (&chosen.model, chosen.digest);
            let error = match self.turn(request, wanted, rules, deadline, log).await {
                Ok(turn) => {
                    if let Some(first) = chosen.refused.as_ref().filter(|_| !is_counted) {
                        self.metrics.degraded(first.code.as_str());
                    }
                    return Ok((chosen, turn));
                }
                Err(error) if is_shed(&error) => error,
                Err(error) => return Err(error),
            };
            match self.smaller(&chosen.model, rules) {
                Some(smaller) => chosen = chosen.smaller(smaller, &error),
                // What is wrong with the model that was asked for is told, not with one that was not.
                None => return Err(chosen.refused.unwrap_or(error)),
            }
        }
    }

    /// Drives a request, by one smaller model after the other.
    pub(super) async fn drive_or_degrade(
        &self,
        run: &mut Run,
        log: &AnswerLog,
        interrupt: &mut Interrupts,
    ) -> End {
        loop {
            let end = self.drive(run, log, interrupt).await;
            let Some(error) = untaken(&end, run) else {
                return end;
            };
            // One that cannot do what was asked is passed over like one that has no room.
            let smaller = has_time(run)
                .then(|| self.smaller(&run.model, &run.rules))
                .flatten();
            let told = run.refused.get_or_insert_with(|| error.clone()).clone();
            let Some((model, digest)) = smaller else {
                return End::Final(told);
            };
            let chosen = Chosen {
                degraded_from: (run.degraded_from.clone()).or(Some(run.model.clone())),
                model,
                digest,
                refused: Some(told.clone()),
            };
            // The place at the larger one is somebody else's by now.
            run.turn = None;
            let turn = self.turn_or_smaller(&run.request, chosen, &run.rules, run.deadline, log);
            let turn = tokio::select! {
                biased;
                why = &mut *interrupt => return self.interrupted(why),
                turn = turn => turn,
            };
            let Ok((chosen, turn)) = turn else {
                return End::Final(told);
            };
            if let Err(end) = self.begin_smaller(run, chosen, turn, error).await {
                return end;
            }
        }
    }

    /// Ends the job of a model that does not take it, and begins it anew for a smaller one.
    async fn begin_smaller(
        &self,
        run: &mut Run,
        to: Chosen,
        (turn, spent): (Turn, Option<Spent>),
        why: &RpcError,
    ) -> Result<(), End> {
        let model = to.model;
        tracing::info!(from = %run.model, to = %model, %why, "a smaller model gets the request");
        let error = format!("{}; {model} gets it", letters::reason(why));
        let shed = if is_refusal(why.code) {
            Step::Refused { error }
        } else {
            Step::Failed {
                error,
                usage: Usage::default(),
                letter: None,
            }
        };
        let ended = self.persist(run.holder, shed).await;
        ended.map_err(|error| unrecorded(&error))?;
        let job = self.new_job(&run.request, run.hash, &model, run.seed, run.deadline);
        let reserved = self.store.reserve(job).await;
        run.holder.fence = match reserved.map_err(|error| unrecorded(&error))? {
            Reserved::New { fence, .. } => fence,
            // Somebody came with its key in between, and has it now.
            Reserved::Repeated(..) => return Err(End::Final(elsewhere())),
        };
        if run.degraded_from.is_none() {
            self.metrics.degraded(why.code.as_str());
        }
        Self::settle(run);
        run.spent = spent;
        run.model = model;
        run.digest = to.digest;
        run.degraded_from = to.degraded_from;
        run.turn = Some(turn);
        run.progress = Progress::default();
        Ok(())
    }
}

/// Why nothing of an answer was given that another model could give.
fn untaken<'a>(end: &'a End, run: &Run) -> Option<&'a RpcError> {
    let may = run.may_degrade && !run.progress.has_begun();
    match end {
        End::Final(error) if may && (is_shed(error) || is_too_small(error, run)) => Some(error),
        _ => None,
    }
}

fn is_shed(error: &RpcError) -> bool {
    matches!(error.code, Code::Overloaded | Code::Unavailable)
}

/// The smaller model cannot do what the larger one could have done.
fn is_too_small(error: &RpcError, run: &Run) -> bool {
    error.code == Code::Invalid && run.degraded_from.is_some()
}

/// Once it is over, who waits for the request was told already.
fn has_time(run: &Run) -> bool {
    tokio::time::Instant::now() < run.deadline
}

fn unrecorded(error: &StoreError) -> End {
    if let StoreError::Refused { .. } = error {
        return End::Final(elsewhere());
    }
    tracing::error!(%error, "a job could not be given to a smaller model");
    let why = "the request could not be recorded";
    End::Final(RpcError::new(Code::Internal, why))
}
