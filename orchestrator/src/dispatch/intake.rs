//! From a `submit` call to a job on the disk: who calls, what for, and whether it may run.

use super::{Dispatcher, Run};
use crate::clock;
use crate::job::{NewJob, Repeat};
use crate::store::{Holder, Reserved, StoreError};
use rand::Rng;
use std::time::{Duration, Instant};
use tether_net::Incoming;
use tether_wire::codec;
use tether_wire::infer::{InferRequest, MAX_REQUEST_BYTES};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, Role};
use tokio::sync::SemaphorePermit;
use tracing::Span;

/// Time for a gateway to send a request after it opened the call.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// What callers are told to wait when too many requests are under way.
const OVERLOADED_RETRY_MS: u64 = 1_000;
/// How long before the caller's time is over it is told so, at most.
const TELL_MS: u64 = 100;
/// Seeds that we choose fit a double, so that every reader of JSON gets them exactly.
const SEED_BITS: u32 = 53;

impl Dispatcher {
    /// Takes a request in. What comes back is reserved, on the disk, and holds a permit.
    pub(super) async fn take_in(
        &self,
        mut call: Incoming,
    ) -> Result<(Run, SemaphorePermit<'_>), RpcError> {
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
        let permit = self.permits.try_acquire().map_err(|_| {
            RpcError::new(Code::Overloaded, "too many requests are under way")
                .with_retry_after_ms(OVERLOADED_RETRY_MS)
        })?;
        let mut request = receive(&mut call).await?;
        let span = Span::current();
        span.record("tether.correlation_id", request.correlation.to_hex());
        span.record("tether.tenant", request.tenant.as_str());
        let (model, digest) = self.resolve(&request.model)?;
        span.record("gen_ai.request.model", model.to_string());
        let servable = {
            let fleet = self.fleet.snapshot();
            let mut candidates = self.candidates(&fleet, &model, &digest);
            candidates.next().is_some()
        };
        if !servable {
            return Err(self.nothing_serves(&model.to_string()));
        }
        // The hash is of what the tenant asked, before the seed is filled in.
        let request_hash = Digest::of(&codec::encode(&(
            &request.model,
            &request.input,
            &request.sampling,
            &request.output,
        )));
        let seed = (request.sampling.seed)
            .unwrap_or_else(|| rand::rng().random::<u64>() >> (u64::BITS - SEED_BITS));
        let limit = Duration::from_millis(self.config.answer_timeout_ms);
        // A little before the caller gives up by itself, so that it can still be told.
        let asked = (call.head().timeout_ms)
            .map(|ms| Duration::from_millis(ms.saturating_sub(TELL_MS.min(ms / 10))));
        let allowed = asked.map_or(limit, |asked| asked.min(limit));
        let now_ms = clock::now().unix_ms;
        let job = NewJob {
            correlation: request.correlation,
            tenant: request.tenant.clone(),
            retry_token: request.retry_token.clone(),
            // A gateway does not say whether the caller gave it.
            keyed: true,
            request_hash,
            model: model.clone(),
            seed,
            owner: self.id,
            lease_until_ms: now_ms.saturating_add(self.config.answer_timeout_ms),
            deadline_ms: now_ms
                .saturating_add(u64::try_from(allowed.as_millis()).unwrap_or(u64::MAX)),
            max_tokens: request.sampling.max_tokens,
            now_ms,
        };
        let held = self.jobs.hold(request.correlation);
        // A job that begins anew has the seed of its first run, so that the same answer is made.
        let (fence, seed) = match self.store.reserve(job).await {
            Ok(Reserved::New { fence, seed }) => (fence, seed),
            Ok(Reserved::Repeated(repeat, job)) => {
                tracing::info!(job = %job.correlation, state = job.state.as_str(), "key repeated");
                return Err(conflict(repeat));
            }
            Err(error) => return Err(unrecorded(&error, self.config.retry_after_ms)),
        };
        request.sampling.seed = Some(seed);
        let run = Run {
            holder: Holder {
                job: request.correlation,
                owner: self.id,
                fence,
            },
            held,
            call,
            request,
            model,
            digest,
            seed,
            began,
            deadline: tokio::time::Instant::from_std(began + allowed),
            attempts: 0,
            streamed: false,
            prompt_tokens: 0,
            tokens: 0,
            done: Vec::new(),
        };
        Ok((run, permit))
    }

    /// The model that a tenant means, and its artifact. Where there is none: [`Code::NotFound`] for
    /// what no live worker names.
    fn resolve(&self, text: &str) -> Result<(ModelRef, Digest), RpcError> {
        match self.catalogue.load().resolve(text) {
            Ok(entry) => Ok((entry.model.clone(), entry.digest)),
            // The catalogue follows the fleet a moment later: what is offered now is known now.
            Err(unknown) => {
                let fleet = self.fleet.snapshot();
                if let Some(offer) = fleet.find(text) {
                    return Ok((offer.model.clone(), offer.digest));
                }
                // Named by a worker that does not serve it: not now, rather than not at all.
                Err((fleet.withheld(text)).map_or(unknown, |_| self.nothing_serves(text)))
            }
        }
    }
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
