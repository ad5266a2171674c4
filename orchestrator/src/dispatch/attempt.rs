//! One attempt: one order to one worker, from the order to what its end says of the worker.
//!
//! What comes back is heard by `hear`, and goes into the log by `relay`; while nothing came, another
//! attempt may stand beside it (`hedge`).

use super::breaking::Trial;
use super::check::Check;
use super::hear::Heard;
use super::log::AnswerLog;
use super::outcome::End;
use super::run::Run;
use super::turn::size;
use super::vigil::Vigil;
use super::watch::Left;
use super::{Dispatcher, Interrupts, elsewhere};
use crate::breaker::Outcome;
use crate::fleet::{Candidate, InFlight};
use crate::job::Step;
use crate::place::Ranked;
use crate::retry::Plan;
use crate::store::StoreError;
use std::pin::Pin;
use std::time::Instant;
use tether_net::Call;
use tether_wire::NodeId;
use tether_wire::infer::{Accepted, Chunk, WorkOrder};
use tether_wire::rpc::{Code, RpcError};
use tracing::{Instrument, Span, field};

/// An order to a worker.
pub(super) struct Attempt {
    pub(super) candidate: Candidate,
    pub(super) order: WorkOrder,
    pub(super) check: Check,
    /// The call, once the worker accepted it.
    pub(super) opened: Option<Opened>,
    pub(super) span: Span,
    /// Where it stands among those that are explained.
    pub(super) explained: Option<usize>,
    /// Whether it stands beside another one.
    is_hedge: bool,
    began: Instant,
    /// How much work the request is whose turn it was.
    work: Option<u32>,
    /// Its place at the worker, and what the breaker is to be told, until it has a call.
    busy: Option<InFlight>,
    trial: Option<Trial>,
    /// How it ended: the label, and the error where it was one.
    ended: Option<&'static str>,
    pub(super) fault: Option<RpcError>,
    /// What follows, where its worker was left for that.
    planned: Option<Plan>,
}

/// A call that a worker accepted.
pub(super) struct Opened {
    pub(super) worker: NodeId,
    pub(super) call: Call,
    /// That it did, until the log has it.
    pub(super) untold: Option<Accepted>,
    pub(super) numerics_class: String,
    /// What its breaker is to be told.
    pub(super) trial: Option<Trial>,
    /// How long it is waited for.
    pub(super) vigil: Vigil,
    /// Ends when nothing is heard on its link any more; whether that was so.
    pub(super) quiet: Pin<Box<dyn Future<Output = ()> + Send>>,
    pub(super) is_quiet: bool,
    /// Whether it was left in doubt, for another one.
    pub(super) is_left: bool,
    /// How that one is asked: a retry that is taken out of the budget already.
    pub(super) planned: Option<Plan>,
    /// What is told again before the log has anything, to be given once all of it is there.
    pub(super) again: Vec<Chunk>,
    pub(super) again_bytes: usize,
}

impl Opened {
    /// With what is known here of its worker and of the request.
    fn known(mut self, candidate: &Candidate, run: &Run, trial: Option<Trial>) -> Self {
        self.trial = trial;
        self.numerics_class = candidate.offer().numerics_class.clone();
        self.untold = self.untold.map(|accepted| Accepted {
            numerics_class: self.numerics_class.clone(),
            created_ms: run.created_ms,
            degraded_from: run.degraded_from.clone(),
            max_tokens: run.limit,
            ..accepted
        });
        self
    }

    /// It was heard.
    pub(super) fn lively(&mut self) {
        if std::mem::take(&mut self.is_quiet) {
            self.vigil.lively();
            self.quiet = Box::pin(self.call.link().until_unanswered());
        }
    }

    /// Looks whether its link is heard again, though nothing came on its call.
    pub(super) fn hear_link(&mut self) {
        let link = self.call.link();
        if self.is_quiet && link.is_up() && !link.is_quiet() {
            self.lively();
        }
    }
}

/// How an attempt ended, or the one that went on where two stood beside each other.
pub(super) struct Ended {
    pub(super) end: End,
    pub(super) worker: NodeId,
    /// Who failed beside it, and by what.
    pub(super) beside: Option<(NodeId, RpcError)>,
    /// What follows, where its worker was left for that.
    pub(super) planned: Option<Plan>,
}

impl Attempt {
    /// To the best of those that were ranked, as the order of this number. Its place there is taken
    /// from now on.
    pub(super) fn new(run: &Run, to: &Ranked, trial: Trial, number: u32, is_hedge: bool) -> Self {
        let candidate = to.candidate.clone();
        let order = WorkOrder {
            correlation: run.request.correlation,
            attempt: number,
            fence: run.holder.fence,
            tenant: run.request.tenant.clone(),
            model: run.model.clone(),
            digest: candidate.offer().digest,
            input: run.request.input.clone(),
            sampling: run.request.sampling.clone(),
            output: run.request.output.clone(),
            transcript: run.progress.transcript().to_vec(),
        };
        debug_assert_eq!(order.sampling.seed, Some(run.seed));
        let worker = candidate.worker.id();
        Self {
            check: Check::new(worker, &order, candidate.offer().context_tokens),
            opened: None,
            span: span(number, to, is_hedge),
            explained: None,
            is_hedge,
            began: Instant::now(),
            work: run.turn.as_ref().map(|_| size(&run.request).0),
            busy: Some(candidate.worker.occupy()),
            trial: Some(trial),
            ended: None,
            fault: None,
            planned: None,
            candidate,
            order,
        }
    }

    pub(super) fn worker(&self) -> NodeId {
        self.candidate.worker.id()
    }

    /// The boot epoch of the worker's process, as it is known.
    pub(super) fn epoch(&self) -> u64 {
        self.candidate.worker.epoch()
    }

    /// How it ended; nothing while it is under way.
    pub(super) fn ended(&self) -> Option<&'static str> {
        self.ended
    }
}

impl Dispatcher {
    /// Makes an attempt, to its end.
    pub(super) async fn attempt(
        &self,
        run: &mut Run,
        log: &AnswerLog,
        mut attempt: Attempt,
        interrupt: &mut Interrupts,
    ) -> Ended {
        let mut beside = None;
        // Two calls may be under way in it.
        let first = Box::pin(self.first_piece(run, &mut attempt, &mut beside, interrupt)).await;
        if let Some(prompt_tokens) = attempt.check.prompt_tokens() {
            run.progress.counted(prompt_tokens);
        }
        let end = match first {
            Ok(heard) => {
                let span = attempt.span.clone();
                let relayed = self.relay(run, log, &mut attempt, heard, interrupt);
                relayed.instrument(span).await
            }
            Err(end) => end,
        };
        self.ended(&mut attempt, &end);
        let label = attempt.ended().unwrap_or(end.label());
        run.orders.ended(attempt.explained, label);
        Ended {
            end,
            worker: attempt.worker(),
            beside,
            planned: attempt.planned,
        }
    }

    /// Gives the order and waits for the first piece of the answer.
    pub(super) async fn begin(&self, run: &Run, attempt: &mut Attempt) -> Result<Heard, End> {
        let span = attempt.span.clone();
        let begun = async {
            let heard = self.opened(run, attempt).await;
            if let Err(end) = &heard {
                self.ended(attempt, end);
            }
            heard
        };
        begun.instrument(span).await
    }

    async fn opened(&self, run: &Run, attempt: &mut Attempt) -> Result<Heard, End> {
        let worker = attempt.worker();
        let accepted = self.accepted(run, worker, &attempt.order, &mut attempt.check);
        // A hedge is recorded when it is to give the answer.
        let opened = if attempt.is_hedge {
            accepted.await
        } else {
            let recorded = self.recorded(run, &attempt.candidate, &attempt.order);
            let (recorded, opened) = tokio::join!(recorded, accepted);
            recorded?;
            opened
        };
        let trial = attempt.trial.take_if(|_| opened.is_ok());
        let opened = opened?;
        tracing::debug!("the worker took the order");
        let opened = opened.known(&attempt.candidate, run, trial);
        let opened = attempt.opened.insert(opened);
        self.hear(run, opened, &mut attempt.check).await
    }

    /// Records that a worker has the order.
    pub(super) async fn recorded(
        &self,
        run: &Run,
        candidate: &Candidate,
        order: &WorkOrder,
    ) -> Result<(), End> {
        let step = Step::Dispatched {
            worker: candidate.worker.id(),
            digest: order.digest,
            attempt: order.attempt,
            numerics_class: candidate.offer().numerics_class.clone(),
        };
        let Err(error) = self.persist(run.holder, step).await else {
            return Ok(());
        };
        if let StoreError::Refused { .. } = error {
            tracing::warn!(job = %run.holder.job, "the job is another's by now");
            return Err(End::Final(elsewhere()));
        }
        tracing::error!(job = %run.holder.job, %error, "an attempt could not be recorded");
        Err(End::Final(RpcError::new(
            Code::Internal,
            "the request could not be recorded",
        )))
    }

    /// Once, however often it is told. What follows from how it ended, for its worker and for those
    /// who look on; its call is over, and the place there free.
    pub(super) fn ended(&self, attempt: &mut Attempt, end: &End) {
        if attempt.ended.is_some() {
            return;
        }
        if let End::Fault(fault) | End::Final(fault) = end {
            attempt.fault = Some(fault.clone());
        }
        if let End::Fault(fault) = end {
            attempt.span.in_scope(|| log_fault(fault));
        }
        if let (End::Done(_), Some(work)) = (end, attempt.work) {
            (self.waiting).answered(&attempt.order.model, work, attempt.began.elapsed());
        }
        self.over(attempt, end.label(), end.outcome());
    }

    /// The same of one that is not waited for any more.
    pub(super) fn over(&self, attempt: &mut Attempt, label: &'static str, outcome: Outcome) {
        attempt.ended = Some(label);
        attempt.span.record("tether.outcome", label);
        self.metrics.attempt(label, attempt.began.elapsed());
        let (busy, worker) = (attempt.busy.take(), attempt.worker());
        attempt.planned = attempt.opened.as_ref().and_then(|it| it.planned);
        let trial = match (attempt.opened.take(), busy) {
            (Some(opened), Some(busy)) if opened.is_left => {
                let model = attempt.order.model.clone();
                self.watch(Left {
                    model,
                    opened,
                    busy,
                });
                None
            }
            (Some(opened), _) => {
                (self.paces).learn(worker, &attempt.order.model, opened.vigil.learnt());
                opened.trial
            }
            (None, _) => attempt.trial.take(),
        };
        if let Some(trial) = trial {
            trial.end(outcome);
        }
        self.waiting.wake();
    }
}

fn span(attempt: u32, chosen: &Ranked, is_hedge: bool) -> Span {
    let worker = &chosen.candidate.worker;
    let span = tracing::info_span!(
        "orchestrator.attempt",
        tether.role = "orchestrator",
        tether.attempt = attempt,
        tether.worker = %worker.id(),
        tether.score = chosen.score,
        tether.suspect = chosen.suspect,
        tether.hedge = is_hedge,
        tether.outcome = field::Empty,
    );
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
