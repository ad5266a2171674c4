//! A request from the gateway's call to its end: reserve, place, attempt, record. (RSV-1, SCH-4)
//!
//! The job is on the disk before a worker hears of it, and its end is on the disk before the
//! gateway hears of that. Every path leads through [`Dispatcher::finish`], also that of a panic.

mod attempt;
mod backoff;
mod check;
mod intake;
pub(crate) mod open;
mod outcome;
pub mod pace;
mod receipt;
mod recording;

use crate::catalogue::Catalogue;
use crate::clock;
use crate::config::OrchestratorConfig;
use crate::fleet::keeper::Fleet;
use crate::fleet::{Found, Snapshot};
use crate::job::Step;
use crate::place::{Query, Ranked, place};
use crate::store::{Holder, MetadataStore, StoreError};
use crate::upkeep::UnrecordedEnd;
use arc_swap::ArcSwap;
use futures_util::FutureExt;
use open::{Held, OpenJobs};
use outcome::{End, Refusals, told};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tether_net::{Incoming, Node};
use tether_telemetry::metrics::OrchestratorMetrics;
use tether_telemetry::trace;
use tether_wire::infer::{InferRequest, Usage};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId, Region};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument, Span, field};

/// What dispatches.
pub(crate) struct Dispatcher {
    pub(crate) config: OrchestratorConfig,
    pub(crate) id: NodeId,
    pub(crate) region: Region,
    /// Set once the node runs; calls that come before are told to come again.
    pub(crate) node: OnceLock<Node>,
    pub(crate) fleet: Fleet,
    pub(crate) catalogue: Arc<ArcSwap<Catalogue>>,
    pub(crate) store: Arc<dyn MetadataStore>,
    pub(crate) metrics: Arc<OrchestratorMetrics>,
    /// One permit for each request under way.
    pub(crate) permits: Semaphore,
    /// Every request under way, so that the end can wait for them.
    pub(crate) open: TaskTracker,
    /// The jobs of those requests.
    pub(crate) jobs: OpenJobs,
    /// Ends that the store did not take.
    pub(crate) unrecorded: mpsc::Sender<UnrecordedEnd>,
    /// No new requests.
    pub(crate) draining: CancellationToken,
    /// No requests any more: those under way fail.
    pub(crate) stop: CancellationToken,
}

/// A request under way.
pub(crate) struct Run {
    call: Incoming,
    request: InferRequest,
    model: ModelRef,
    /// The artifact that the model is bound to.
    digest: Digest,
    seed: u64,
    holder: Holder,
    held: Held,
    began: Instant,
    deadline: tokio::time::Instant,
    /// Workers that it was given to.
    attempts: u32,
    /// Whether any of an answer was sent to the gateway.
    streamed: bool,
    /// Tokens of the prompt, once the worker said so.
    prompt_tokens: u32,
    /// Tokens that were sent to the gateway.
    tokens: u32,
    /// The end as the worker sent it, passed on after it is recorded.
    done: Vec<u8>,
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
    pub(crate) async fn serve(self: Arc<Self>, call: Incoming) -> Result<(), RpcError> {
        let span = tracing::info_span!(
            "orchestrator.dispatch",
            tether.role = "orchestrator",
            tether.correlation_id = field::Empty,
            tether.tenant = field::Empty,
            tether.outcome = field::Empty,
            tether.attempts = field::Empty,
            gen_ai.request.model = field::Empty,
            gen_ai.usage.input_tokens = field::Empty,
            gen_ai.usage.output_tokens = field::Empty,
        );
        trace::set_parent(&span, call.head().traceparent.as_deref());
        // A task of its own: the caller's going away must not end it before it is recorded.
        let this = self.clone();
        let task = self.open.spawn(
            async move {
                let _counted = Counted::new(&this.metrics);
                let result = Box::pin(this.request(call)).await;
                let outcome = result.as_ref().map_or_else(|e| e.code.as_str(), |()| "ok");
                this.metrics.dispatched(outcome);
                Span::current().record("tether.outcome", outcome);
                if let Err(error) = &result {
                    tracing::info!(outcome, %error, "request ended without a whole answer");
                }
                result
            }
            .instrument(span),
        );
        task.await.unwrap_or_else(|_| Err(failed_here()))
    }

    async fn request(&self, call: Incoming) -> Result<(), RpcError> {
        let (mut run, _permit) = self.take_in(call).await?;
        let mut interrupt = self.interrupts(&run);
        let driven = AssertUnwindSafe(self.drive(&mut run, &mut interrupt)).catch_unwind();
        let end = driven.await.unwrap_or_else(|_| {
            tracing::error!(job = %run.holder.job, "a request made the orchestrator panic");
            End::Final(failed_here())
        });
        self.finish(run, end).await
    }

    fn interrupts(&self, run: &Run) -> Interrupts {
        let (gone, deadline, stop) = (run.call.cancelled(), run.deadline, self.stop.clone());
        Box::pin(async move {
            tokio::select! {
                () = gone => Interrupt::Gone,
                () = tokio::time::sleep_until(deadline) => Interrupt::Deadline,
                () = stop.cancelled() => Interrupt::Stopped,
            }
        })
    }

    /// Gives the request to one worker after the other, while nothing of an answer was sent.
    async fn drive(&self, run: &mut Run, interrupt: &mut Interrupts) -> End {
        let mut tried: Vec<NodeId> = Vec::new();
        let mut last: Option<Code> = None;
        let mut refusals = Refusals::default();
        while run.attempts < self.config.attempts {
            let mut ranked = self.rank(run, &tried);
            if last.is_some() && !ranked.is_empty() {
                let left = (run.deadline).saturating_duration_since(tokio::time::Instant::now());
                let pause = backoff::pause(run.attempts, left, &mut rand::rng());
                tokio::select! {
                    biased;
                    why = &mut *interrupt => return self.interrupted(why, run),
                    () = tokio::time::sleep(pause) => {}
                }
                // The fleet as it is now.
                ranked = self.rank(run, &tried);
            }
            let Some(best) = ranked.first() else { break };
            if let Some(code) = last {
                self.metrics.retried(code.as_str());
            }
            run.attempts += 1;
            tried.push(best.candidate.worker.id());
            let span = attempt_span(run.attempts, best);
            for other in ranked.iter().skip(1).take(EXPLAINED) {
                span.in_scope(|| explain(other));
            }
            let began = Instant::now();
            let attempt = self.attempt(run, &best.candidate, interrupt);
            let end = attempt.instrument(span.clone()).await;
            span.record("tether.outcome", end.label());
            self.metrics.attempt(end.label(), began.elapsed());
            match end {
                End::Fault(fault) => {
                    span.in_scope(|| log_fault(&fault));
                    if run.streamed {
                        return End::Final(told(fault, true, self.config.retry_after_ms));
                    }
                    last = Some(fault.code);
                    refusals.add(fault);
                }
                end => return end,
            }
        }
        let told = refusals.told(self.config.retry_after_ms);
        End::Final(told.unwrap_or_else(|| self.nothing_serves(&run.model.to_string())))
    }

    fn rank(&self, run: &Run, tried: &[NodeId]) -> Vec<Ranked> {
        let fleet = self.fleet.snapshot();
        let query = Query {
            region: &self.region,
            tried,
        };
        place(
            self.candidates(&fleet, &run.model, &run.digest),
            &query,
            &self.config.weights,
            self.config.near_equal,
            &mut rand::rng(),
        )
    }

    /// The best of those who serve an artifact and can be asked now.
    fn candidates<'a>(
        &self,
        fleet: &'a Snapshot,
        model: &ModelRef,
        digest: &Digest,
    ) -> impl Iterator<Item = Found<'a>> {
        let now_mono_ms = clock::now().mono_ms;
        let is_linked = |worker: &NodeId| {
            let node = self.node.get();
            node.is_some_and(|node| node.linked(worker).is_some())
        };
        let found = fleet.candidates(model, digest, &self.region, &mut rand::rng());
        found.into_iter().filter(move |it| {
            let worker = it.worker;
            worker.may_be_asked(|| is_linked(&worker.id()), now_mono_ms)
        })
    }

    /// Nobody can serve a model that is known, by this name.
    fn nothing_serves(&self, model: &str) -> RpcError {
        let fleet = self.fleet.snapshot();
        let why = fleet.withheld(model).flatten();
        let why = why.map_or_else(String::new, |code| format!(": {code}"));
        RpcError::new(
            Code::Unavailable,
            format!("no worker can serve the model `{model}` just now{why}"),
        )
        .with_retry_after_ms(self.config.retry_after_ms)
    }

    fn interrupted(&self, why: Interrupt, run: &Run) -> End {
        match why {
            Interrupt::Gone => End::Cancelled,
            Interrupt::Deadline => End::Final(RpcError::new(
                Code::Deadline,
                "the time for this request is over",
            )),
            Interrupt::Stopped if run.streamed => End::Final(RpcError::new(
                Code::Unavailable,
                "the answer was cut off: its orchestrator is stopping",
            )),
            Interrupt::Stopped => End::Final(
                RpcError::new(Code::Unavailable, "the orchestrator is stopping")
                    .with_retry_after_ms(self.config.retry_after_ms),
            ),
        }
    }

    /// Records how the request ended, and only then tells the gateway.
    async fn finish(&self, mut run: Run, end: End) -> Result<(), RpcError> {
        let given = Usage {
            prompt_tokens: run.prompt_tokens,
            completion_tokens: run.tokens,
        };
        let (step, result) = match end {
            End::Done(done) => {
                let step = Step::Done {
                    finish: done.finish,
                    usage: done.usage,
                };
                let span = Span::current();
                span.record("gen_ai.usage.input_tokens", done.usage.prompt_tokens);
                span.record("gen_ai.usage.output_tokens", done.usage.completion_tokens);
                (step, Ok(()))
            }
            End::Final(error) | End::Fault(error) => {
                let text = format!("{}: {error}", error.code.as_str());
                (
                    Step::Failed {
                        error: text,
                        usage: given,
                    },
                    Err(error),
                )
            }
            End::Cancelled => (
                Step::Cancelled { usage: given },
                Err(RpcError::new(Code::Cancelled, "the caller went away")),
            ),
        };
        Span::current().record("tether.attempts", run.attempts);
        let recorded = self
            .store
            .step(run.holder, step.clone(), clock::now().unix_ms)
            .await;
        if let Err(error) = recorded {
            tracing::error!(job = %run.holder.job, %error, "the end of a job could not be recorded");
            if !matches!(error, StoreError::Refused { .. }) {
                self.record_later(run.holder, step, run.held);
            }
            return result.and(Err(RpcError::new(
                Code::Internal,
                "the answer could not be recorded, so that it does not count",
            )));
        }
        result?;
        // The answer is whole and recorded; a gateway that is gone by now changes neither.
        let patience = Duration::from_millis(self.config.stall_timeout_ms);
        let _ = tokio::time::timeout(patience, run.call.send(&run.done)).await;
        Ok(())
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

fn failed_here() -> RpcError {
    RpcError::new(Code::Internal, "the orchestrator failed on this request")
}
