//! A request from the gateway's call to its end: reserve, place, attempt, record. (RSV-1, SCH-4, SCH-8)
//!
//! A request runs in a task of its own, which writes the answer's events into a log; calls read from
//! that log. So the caller's going away ends nothing half recorded, a key that comes again joins, and
//! a worker that dies is followed by another which goes on behind what was given.
//!
//! The job is on the disk before a worker hears of it, and its end is on the disk before the
//! gateway hears of that. Every path leads through [`Dispatcher::finish`], also that of a panic.
//!
//! * `intake` – from a call to a run, or to one that is under way; `claim` – what its job says;
//!   `meet` – who has its answer still
//! * `log`, `running` – the answers under way
//! * `permit` – which model a request gets; `degrade` – a smaller one, where there is no room
//! * `turn`, `waiting` – who waits for a place at a worker
//! * `run` – one worker after the other; `search` – who they may be; `attempt` – one order to one of
//!   them, who is reached by `reach`; `hedge` – a second one beside it
//! * `hear` – what comes next of an answer; `relay` – the answer into the log
//! * `pace`, `vigil`, `watch` – when a worker is left for another, and whether that was too early
//! * `check`, `outcome`, `receipt` – what comes back, judged
//! * `persist` – steps on the disk, through short gaps of the store
//! * `letters` – what is kept of a request that failed; `replay` – such a request again
//! * `explaining` – why it went where it went

mod attempt;
pub(crate) mod breaking;
mod check;
mod claim;
mod degrade;
mod explaining;
mod hear;
mod hedge;
mod intake;
mod letters;
mod log;
mod meet;
pub(crate) mod open;
mod outcome;
pub mod pace;
pub(crate) mod paces;
mod permit;
mod persist;
mod progress;
mod reach;
mod receipt;
mod recording;
mod relay;
mod replay;
pub(crate) mod retries;
mod run;
pub(crate) mod running;
mod search;
mod turn;
mod vigil;
pub(crate) mod waiting;
mod watch;

use crate::catalogue::Catalogue;
use crate::config::OrchestratorConfig;
use crate::explained::Explanations;
use crate::fleet::keeper::Fleet;
use crate::job::{Answer, Step};
use crate::lease::Steady;
use crate::placement::InForce;
use crate::policy::Policy;
use crate::shares::Shares;
use crate::store::{Holder, MetadataStore, StoreError};
use crate::upkeep::UnrecordedEnd;
use crate::warmth::Warmth;
use arc_swap::ArcSwap;
use breaking::Breaking;
use explaining::Explaining;
use futures_util::FutureExt;
use intake::{Asked, TakenIn};
use log::{AnswerLog, Reader, TooLong};
use open::{Held, OpenJobs};
use outcome::{End, is_refusal};
use paces::Paces;
use progress::Progress;
use retries::Retries;
use run::Run;
use running::{Place, Running};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tether_net::{Incoming, Node};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_wire::infer::{AnswerEvent, Usage};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{NodeId, Region, codec};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;
use waiting::Waiting;

/// What dispatches.
pub(crate) struct Dispatcher {
    pub(crate) config: OrchestratorConfig,
    pub(crate) id: NodeId,
    pub(crate) region: Region,
    /// When it was started, by the clock that only goes forward.
    pub(crate) began_ms: u64,
    /// Set once the node runs; calls that come before are told to come again.
    pub(crate) node: OnceLock<Node>,
    pub(crate) fleet: Fleet,
    pub(crate) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) store: Arc<dyn MetadataStore>,
    /// Whether it may be believed about who else lives.
    pub(crate) steady: Steady,
    pub(crate) metrics: Arc<OrchestratorMetrics>,
    /// One permit for each request under way, until its run and its call are over.
    pub(crate) permits: Arc<Semaphore>,
    /// The answers under way.
    pub(crate) running: Running,
    /// How quick workers are.
    pub(crate) paces: Paces,
    /// What is left alone for a while.
    pub(crate) breaking: Breaking,
    /// Whether what failed is tried again.
    pub(crate) retries: Retries,
    /// Who waits for a place at a worker.
    pub(crate) waiting: Waiting,
    /// What part of the work each tenant gets meanwhile.
    pub(crate) shares: Arc<ArcSwap<Shares>>,
    /// Their runs, so that the end can wait for them.
    pub(crate) open: TaskTracker,
    /// The jobs of those requests.
    pub(crate) jobs: OpenJobs,
    /// Ends that the store did not take.
    pub(crate) unrecorded: mpsc::Sender<UnrecordedEnd>,
    /// No new requests.
    pub(crate) draining: CancellationToken,
    /// No requests any more: those under way fail.
    pub(crate) stop: CancellationToken,
    /// How requests are placed.
    pub(crate) placement: InForce,
    /// Which prompts were sent where.
    pub(crate) warmth: Mutex<Warmth>,
    /// Why requests went where they went.
    pub(crate) explanations: Arc<Explanations>,
}

/// Why a request under way ends from outside.
#[derive(Clone, Copy, Debug)]
enum Interrupt {
    Gone,
    Deadline,
    Stopped,
}

type Interrupts = Pin<Box<dyn Future<Output = Interrupt> + Send>>;

impl Dispatcher {
    /// Serves a `submit` call.
    pub(crate) async fn serve(self: Arc<Self>, mut call: Incoming) -> Result<(), RpcError> {
        let asked = self.receive(&mut call).await;
        let (asked, permit) = asked.inspect_err(|error| self.refused(error))?;
        let traceparent = call.head().traceparent.clone();
        let (reader, by) = self.enter(asked, &permit, traceparent.as_deref()).await?;
        let patience = Duration::from_millis(self.config.stall_timeout_ms);
        let given = deliver(&mut call, reader, patience);
        match by {
            None => given.await,
            Some(by) => tokio::time::timeout_at(by, given)
                .await
                .unwrap_or_else(|_| {
                    let why = "the time for this request is over";
                    Err(RpcError::new(Code::Deadline, why))
                }),
        }
    }

    fn refused(&self, error: &RpcError) {
        self.metrics.dispatched(error.code.as_str());
        tracing::info!(%error, "a call without a request that could run");
    }

    /// Runs a request to its end. Its callers may all go away: that ends it too, and is recorded.
    async fn run(self: Arc<Self>, asked: Asked, place: Place) {
        let _counted = Counted::new(&self.metrics);
        let mut explaining = Explaining::of(&asked.request);
        let result = match self.take_in(asked, &place, &mut explaining).await {
            Ok(TakenIn::Runs(run)) => self.see_through(*run, &place, &mut explaining).await,
            Ok(TakenIn::Answered(answer)) => self.give_again(&answer, place.log()).await,
            Err(error) => Err(error),
        };
        let outcome = result.as_ref().map_or_else(|e| e.code.as_str(), |()| "ok");
        self.metrics.dispatched(outcome);
        Span::current().record("tether.outcome", outcome);
        if let Err(error) = &result {
            tracing::info!(outcome, %error, "request ended without a whole answer");
        }
        self.explain(explaining, outcome);
        place.end(result);
    }

    /// Drives a run to its end, and records that.
    async fn see_through(
        &self,
        mut run: Run,
        place: &Place,
        explaining: &mut Explaining,
    ) -> Result<(), RpcError> {
        let mut interrupt = self.interrupts(&run, place);
        let driven = self.drive_or_degrade(&mut run, place.log(), &mut interrupt);
        let driven = AssertUnwindSafe(driven).catch_unwind();
        let end = driven.await.unwrap_or_else(|_| {
            tracing::error!(job = %run.holder.job, "a request made the orchestrator panic");
            End::Final(failed_here())
        });
        explaining.ran(&mut run);
        self.finish(run, place.log(), end).await
    }

    /// Gives an answer that is kept, as it was given. Ends where nobody is left to take it.
    async fn give_again(&self, answer: &Answer, log: &AnswerLog) -> Result<(), RpcError> {
        let given = async {
            for event in answer.events() {
                log.append(&event)
                    .await
                    .map_err(|TooLong { .. }| failed_here())?;
            }
            Ok(())
        };
        tokio::select! {
            given = given => given,
            () = self.stop.cancelled() => Err(stopping()),
        }
    }

    fn interrupts(&self, run: &Run, place: &Place) -> Interrupts {
        let (log, deadline, stop) = (place.log().clone(), run.deadline, self.stop.clone());
        Box::pin(async move {
            tokio::select! {
                () = log.abandoned() => Interrupt::Gone,
                () = tokio::time::sleep_until(deadline) => Interrupt::Deadline,
                () = stop.cancelled() => Interrupt::Stopped,
            }
        })
    }

    fn interrupted(&self, why: Interrupt) -> End {
        match why {
            Interrupt::Gone => End::Cancelled,
            Interrupt::Deadline => End::Final(RpcError::new(
                Code::Deadline,
                "the time for this request is over",
            )),
            Interrupt::Stopped => End::Final(stopping()),
        }
    }

    /// Records how the request ended, and only then says so.
    async fn finish(&self, mut run: Run, log: &AnswerLog, end: End) -> Result<(), RpcError> {
        Self::settle(&mut run);
        let given = given(&run.progress);
        // Encoded once: what is kept is what is given.
        let (step, result) = match end {
            End::Done(done) => {
                let span = Span::current();
                span.record("gen_ai.usage.input_tokens", done.usage.prompt_tokens);
                span.record("gen_ai.usage.output_tokens", done.usage.completion_tokens);
                let (finish, usage) = (done.finish, done.usage);
                let last = codec::encode(&AnswerEvent::Done(done));
                let answer = whole(&run, log, &last);
                let step = Step::Done {
                    finish,
                    usage,
                    answer,
                };
                (step, Ok(last))
            }
            End::Final(error) | End::Fault(error) => (failure(&run, &error, given), Err(error)),
            End::Cancelled => (
                Step::Cancelled { usage: given },
                Err(RpcError::new(Code::Cancelled, "the caller went away")),
            ),
        };
        Span::current().record("tether.attempts", run.progress.attempts());
        self.waiting.wake();
        match self.persist(run.holder, step.clone()).await {
            Ok(()) => {}
            // Whoever has it by now gives the answer.
            Err(StoreError::Refused { .. }) => {
                tracing::warn!(job = %run.holder.job, "the job is another's by now");
                return Err(elsewhere());
            }
            Err(error) => {
                tracing::error!(job = %run.holder.job, %error, "the end of a job could not be recorded");
                self.record_later(run.holder, step, run.held);
                return result.and(Err(RpcError::new(
                    Code::Internal,
                    "the end of the answer could not be recorded: send the request again",
                )));
            }
        }
        let last = result?;
        // Whole and recorded; that nobody is there to read it by now changes neither.
        let _ = log.append(&last).await;
        Ok(())
    }
}

/// What is counted of an answer that does not come to its end: nothing where none of it was given.
fn given(progress: &Progress) -> Usage {
    if !progress.has_begun() && progress.given_tokens() == 0 {
        return Usage::default();
    }
    Usage {
        prompt_tokens: progress.prompt_tokens(),
        completion_tokens: progress.given_tokens(),
    }
}

/// An answer that ends with this event, to be kept; nothing where it is too long for that.
fn whole(run: &Run, log: &AnswerLog, last: &[u8]) -> Option<Arc<Answer>> {
    let events = log.events();
    let events = events.iter().map(AsRef::as_ref).chain([last]);
    let answer = Answer::of(run.request.tenant.clone(), events);
    if answer.is_none() {
        tracing::info!(job = %run.holder.job, "the answer is too long to be kept");
    }
    answer.map(Arc::new)
}

/// The step of a run that ends with an error.
fn failure(run: &Run, error: &RpcError, given: Usage) -> Step {
    let text = letters::reason(error);
    // What streamed once, also elsewhere, was not refused.
    let is_given = run.is_streaming || given.completion_tokens > 0;
    if !is_given && is_refusal(error.code) {
        return Step::Refused { error: text };
    }
    Step::Failed {
        error: text,
        usage: given,
        letter: run.failed.letter(|| run.as_asked(), error),
    }
}

/// Gives a call the answer's events, as fast as its caller takes them.
async fn deliver(
    call: &mut Incoming,
    mut reader: Reader,
    patience: Duration,
) -> Result<(), RpcError> {
    let gone = call.cancelled();
    tokio::pin!(gone);
    let cancelled = || RpcError::new(Code::Cancelled, "the caller went away");
    loop {
        let event = tokio::select! {
            biased;
            () = &mut gone => return Err(cancelled()),
            event = reader.next() => event?,
        };
        let Some(event) = event else { return Ok(()) };
        match tokio::time::timeout(patience, call.send(&event)).await {
            Ok(sent) => sent.map_err(|error| {
                tracing::debug!(%error, "the gateway takes no more");
                cancelled()
            })?,
            Err(_) => {
                tracing::warn!("the gateway took nothing for too long");
                return Err(cancelled());
            }
        }
    }
}

impl Dispatcher {
    /// Leaves an end to upkeep. The caller is told that the answer does not count, so that it is
    /// not recorded as whole either.
    fn record_later(&self, holder: Holder, step: Step, held: Held) {
        let step = match step {
            Step::Done { usage, .. } => Step::Failed {
                error: "internal: the end of the answer could not be recorded".to_owned(),
                usage,
                letter: None,
            },
            // What waits in memory is small.
            Step::Failed { error, usage, .. } => Step::Failed {
                error,
                usage,
                letter: None,
            },
            step => step,
        };
        let end = UnrecordedEnd { holder, step, held };
        if self.unrecorded.try_send(end).is_err() {
            tracing::error!(job = %holder.job, "too many ends wait to be recorded: it is released later");
        }
    }
}

/// A request that is counted as under way, on every path.
struct Counted<'a>(&'a OrchestratorMetrics);

impl<'a> Counted<'a> {
    fn new(metrics: &'a OrchestratorMetrics) -> Self {
        metrics.in_flight().inc();
        Self(metrics)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.in_flight().dec();
    }
}

/// Its job went to another orchestrator.
fn elsewhere() -> RpcError {
    RpcError::new(
        Code::Elsewhere,
        "another orchestrator has this request by now",
    )
}

/// Another one goes on, or this one once it is back.
fn stopping() -> RpcError {
    RpcError::new(Code::Elsewhere, "the orchestrator is stopping")
}

fn failed_here() -> RpcError {
    RpcError::new(Code::Internal, "the orchestrator failed on this request")
}
