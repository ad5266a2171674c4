//! From a `submit` call to a run: who calls, what for, and whether it may run or runs already.

use super::progress::Progress;
use super::run::Run;
use super::running::{Entered, Place};
use super::{Dispatcher, log};
use crate::clock;
use crate::job::{NewJob, Repeat};
use crate::store::{Holder, Reserved, StoreError};
use rand::Rng;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_net::Incoming;
use tether_telemetry::trace;
use tether_wire::codec;
use tether_wire::infer::{InferRequest, MAX_REQUEST_BYTES};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, Role};
use tokio::sync::SemaphorePermit;
use tracing::{Instrument, Span, field};

/// Time for a gateway to send a request after it opened the call.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What callers are told to wait when too many requests are under way.
const OVERLOADED_RETRY_MS: u64 = 1_000;
/// How long before the caller's time is over it is told so, at most.
const TELL_MS: u64 = 100;
/// Seeds that we choose fit a double, so that every reader of JSON gets them exactly.
const SEED_BITS: u32 = 53;

/// Bytes of all answers under way from which on no further request is taken.
const MAX_HELD_BYTES: usize = 1024 * 1024 * 1024;

/// A request that came, and is to be answered.
pub(super) struct Asked {
    request: InferRequest,
    /// Of what the tenant asked, before the seed is filled in.
    hash: Digest,
    began: Instant,
    deadline: tokio::time::Instant,
}

impl Dispatcher {
    /// Takes a call's request. What comes back holds a permit.
    pub(super) async fn receive(
        &self,
        call: &mut Incoming,
    ) -> Result<(Asked, SemaphorePermit<'_>), RpcError> {
        let began = Instant::now();
        if call.peer().role != Role::Gateway {
            return Err(RpcError::new(
                Code::Forbidden,
                format!("a {} may not submit requests", call.peer().role),
            ));
        }
        if self.draining.is_cancelled() || self.node.get().is_none() {
            return Err(RpcError::new(
                Code::Unavailable,
                "the orchestrator is starting or stopping",
            )
            .with_retry_after_ms(OVERLOADED_RETRY_MS));
        }
        let overloaded =
            |why| RpcError::new(Code::Overloaded, why).with_retry_after_ms(OVERLOADED_RETRY_MS);
        let permit = (self.permits.try_acquire())
            .map_err(|_| overloaded("too many requests are under way"))?;
        if self.running.bytes() > MAX_HELD_BYTES {
            return Err(overloaded("the answers under way are too long together"));
        }
        let request = receive(call).await?;
        let hash = Digest::of(&codec::encode(&(
            &request.model,
            &request.input,
            &request.sampling,
            &request.output,
        )));
        let limit = Duration::from_millis(self.config.answer_timeout_ms);
        // A little before the caller gives up by itself, so that it can still be told.
        let asked = (call.head().timeout_ms)
            .map(|ms| Duration::from_millis(ms.saturating_sub(TELL_MS.min(ms / 10))));
        let allowed = asked.map_or(limit, |asked| asked.min(limit));
        let asked = Asked {
            request,
            hash,
            began,
            deadline: tokio::time::Instant::from_std(began + allowed),
        };
        Ok((asked, permit))
    }

    /// Comes with a request: its run is begun, or joined where it is under way. With the time that
    /// the caller has where the run does not keep it, which has that of the first one.
    pub(super) async fn enter(
        self: &Arc<Self>,
        asked: Asked,
        call: &Incoming,
    ) -> Result<(log::Reader, Option<tokio::time::Instant>), RpcError> {
        let job = asked.request.correlation;
        loop {
            match self.running.enter(job, asked.hash) {
                Entered::First(place, reader) => {
                    let span = run_span(call, &asked.request);
                    // A task of its own: the caller's going away must not end it before it is
                    // recorded.
                    self.open
                        .spawn(self.clone().run(asked, place).instrument(span));
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

    /// Makes a request a job. What comes back is reserved, on the disk.
    pub(super) async fn take_in(&self, asked: Asked, _place: &Place) -> Result<Run, RpcError> {
        let Asked {
            mut request,
            hash,
            began,
            deadline,
        } = asked;
        let resume = request.resume.take();
        let started = resume.as_ref().and_then(|it| it.started.as_ref());
        let permitted = self.permit(&request, started)?;
        let model = permitted.model;
        Span::current().record("gen_ai.request.model", model.to_string());
        let limit = permitted.limit;
        request.sampling.max_tokens = request.sampling.max_tokens.or(limit);
        let seed = (request.sampling.seed)
            .or(started.map(|started| started.seed))
            .unwrap_or_else(|| rand::rng().random::<u64>() >> (u64::BITS - SEED_BITS));
        let now_ms = clock::now().unix_ms;
        let job = self.new_job(&request, hash, &model, seed, now_ms);
        let held = self.jobs.hold(request.correlation);
        // One that begins anew has the seed of its first run.
        let (fence, seed) = match self.store.reserve(job).await {
            Ok(Reserved::New { fence, seed }) => (fence, seed),
            Ok(Reserved::Repeated(repeat, job)) => {
                tracing::info!(job = %job.correlation, state = job.state.as_str(), "key repeated");
                return Err(conflict(repeat));
            }
            Err(error) => return Err(unrecorded(&error, self.config.retry_after_ms)),
        };
        request.sampling.seed = Some(seed);
        let has_logprobs = request.sampling.top_logprobs.is_some();
        Ok(Run {
            holder: Holder {
                job: request.correlation,
                owner: self.id,
                fence,
            },
            held,
            request,
            model,
            digest: permitted.digest,
            rules: permitted.rules,
            degraded_from: permitted.degraded_from,
            limit,
            may_degrade: resume.as_ref().is_none_or(|it| it.started.is_none()),
            hash,
            seed,
            created_ms: now_ms,
            began,
            deadline,
            progress: Progress::new(resume, has_logprobs),
        })
    }

    /// What is recorded of a request before it runs.
    pub(super) fn new_job(
        &self,
        request: &InferRequest,
        hash: Digest,
        model: &ModelRef,
        seed: u64,
        now_ms: u64,
    ) -> NewJob {
        NewJob {
            correlation: request.correlation,
            tenant: request.tenant.clone(),
            retry_token: request.retry_token.clone(),
            request_hash: hash,
            model: model.clone(),
            seed,
            owner: self.id,
            lease_until_ms: now_ms.saturating_add(self.config.answer_timeout_ms),
            max_tokens: request.sampling.max_tokens,
            now_ms,
        }
    }
}

/// The span of a run, in the trace of the call that began it.
fn run_span(call: &Incoming, request: &InferRequest) -> Span {
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
    trace::set_parent(&span, call.head().traceparent.as_deref());
    span
}

async fn receive(call: &mut Incoming) -> Result<InferRequest, RpcError> {
    let item = tokio::time::timeout(RECEIVE_TIMEOUT, call.recv(MAX_REQUEST_BYTES))
        .await
        .map_err(|_| RpcError::new(Code::Deadline, "the request did not come in time"))??
        .ok_or_else(|| RpcError::new(Code::Invalid, "the call holds no request"))?;
    let request: InferRequest =
        codec::decode("request", &item, MAX_REQUEST_BYTES).map_err(|e| RpcError::invalid(&e))?;
    request.check().map_err(|e| RpcError::invalid(&e))?;
    Ok(request)
}

/// What a repeated key is answered with, as long as answers are not kept.
fn conflict(repeat: Repeat) -> RpcError {
    RpcError::new(
        Code::Conflict,
        match repeat {
            Repeat::AnotherRequest => {
                "this idempotency key was already used for another request; use a new key"
            }
            Repeat::StillRunning => "the request with this idempotency key is still running",
            Repeat::AlreadyAnswered => {
                "the request with this idempotency key was already answered; its answer is not kept"
            }
            Repeat::BeginAnew => "the request with this idempotency key may run again",
        },
    )
}

fn unrecorded(error: &StoreError, retry_after_ms: u64) -> RpcError {
    tracing::error!(%error, "a job could not be reserved");
    RpcError::new(
        Code::Unavailable,
        "the request could not be recorded, so that it was not run",
    )
    .with_retry_after_ms(retry_after_ms)
}
