//! One order: taken, or taken over from a former owner of its job, and its answer passed on.
//! [T-INF-7] [T-INF-11] [T-INF-15]

use super::Shared;
use crate::clock::{now_ms, now_ns};
use crate::engine::EngineDone;
use crate::fences::Turn;
use crate::models::Served;
use crate::pace::Finished;
use crate::receipts::Draft;
use crate::under_way::{Given, Making, Registered, Standing};
use std::time::Duration;
use tether_net::Incoming;
use tether_telemetry::trace;
use tether_wire::infer::{Accepted, AnswerEvent, Begun, Chunk, Done, MAX_EVENT_BYTES, WorkOrder};
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{TenantId, codec};

/// Answers an order.
pub(super) async fn answer(
    shared: &Shared,
    call: &mut Incoming,
    order: WorkOrder,
) -> Result<(), RpcError> {
    let tenant = order.tenant.clone();
    let (mut draft, mut standing, mut registered) = match taken_over(shared, &order).await? {
        Some((standing, told)) => {
            let mut registered = shared.under_way.register(&order);
            let mut draft = Draft::begin(&order);
            let telling = tell_again(shared, call, &order, &standing, told, &mut draft);
            let taker = tokio::select! {
                biased;
                taker = registered.taker() => Some(taker),
                told = telling => {
                    told?;
                    None
                }
            };
            if let Some(taker) = taker {
                let _ = taker.send(standing);
                return Err(taken_by_another());
            }
            (draft, standing, registered)
        }
        None => {
            let (standing, registered) = begin(shared, call, &order).await?;
            (Draft::begin(&order), standing, registered)
        }
    };
    drop(order);
    let taker = tokio::select! {
        biased;
        taker = registered.taker() => Some(taker),
        relayed = relay(shared, &tenant, call, &mut standing, &mut draft) => {
            relayed?;
            None
        }
    };
    if let Some(taker) = taker {
        // Who is gone needs it no more, and then nobody does.
        let _ = taker.send(standing);
        return Err(taken_by_another());
    }
    let Standing {
        served,
        making,
        begun,
        drawn_from,
        given,
    } = standing;
    let done = match making {
        Making::Engine(answer) => {
            let done = answer.end().await?;
            if begun.flatten().is_none() {
                spend(shared, &tenant, done.usage.prompt_tokens);
            }
            finished(shared, &served, draft.began_ms(), &done);
            done
        }
        Making::Ended(done) => done,
    };
    let event = Done {
        finish: done.finish,
        usage: done.usage,
        receipt: draft.seal(&done, &served, &shared.signer),
    };
    let standing = Standing {
        served,
        making: Making::Ended(done),
        begun,
        drawn_from,
        given,
    };
    // First, so that a caller that is dead and takes nothing keeps nobody from it.
    shared.under_way.keep(registered, standing);
    send(call, &AnswerEvent::Done(event)).await
}

/// The answer that a former owner of the job left here, and how it is told behind the order's
/// transcript; nothing where it has to be made. [T-INF-15]
async fn taken_over(
    shared: &Shared,
    order: &WorkOrder,
) -> Result<Option<(Standing, Vec<Chunk>)>, RpcError> {
    let Some(standing) = shared.under_way.take(order).await else {
        return Ok(None);
    };
    // What was drawn elsewhere has no likelihoods here, and no receipt of this worker.
    if order.transcript.len() < standing.drawn_from {
        return Ok(None);
    }
    let Some(told) = standing.given.told(&order.transcript) else {
        return Ok(None);
    };
    let turn = Turn::of(order);
    let mut fences = shared.fences();
    if let Err(seen) = fences.check(order.correlation, turn) {
        return Err(super::came_before(turn, seen));
    }
    fences.taken(order.correlation, turn);
    let tokens = order.transcript.len();
    tracing::info!(
        tokens,
        fence = order.fence,
        "an answer goes on for the next owner of its job"
    );
    Ok(Some((standing, told)))
}

/// Tells the next owner what there is of an answer.
async fn tell_again(
    shared: &Shared,
    call: &mut Incoming,
    order: &WorkOrder,
    standing: &Standing,
    told: Vec<Chunk>,
    draft: &mut Draft,
) -> Result<(), RpcError> {
    accept(shared, call, order).await?;
    if let Some(Some(prompt_tokens)) = standing.begun {
        send(call, &AnswerEvent::Begun(Begun { prompt_tokens })).await?;
    }
    for chunk in told {
        draft.take(&chunk);
        send(call, &AnswerEvent::Chunk(chunk)).await?;
    }
    Ok(())
}

/// Takes an order, and gives it to the engine in its turn.
async fn begin(
    shared: &Shared,
    call: &mut Incoming,
    order: &WorkOrder,
) -> Result<(Standing, Registered), RpcError> {
    let (model, place) = shared.admit(order)?;
    let mut registered = shared.under_way.register(order);
    accept(shared, call, order).await?;
    let turn = shared.turn(&order.digest, model, place);
    let turn = tokio::select! {
        turn = tokio::time::timeout(shared.queue_timeout, turn) => turn,
        () = shared.stopping.cancelled() => return Err(handed_over()),
        // There is nothing to give yet.
        _ = registered.taker() => return Err(taken_by_another()),
    };
    let Ok(turn) = turn else {
        shared.metrics.shed("queue-timeout");
        let ms = shared.queue_timeout.as_millis();
        return Err(RpcError::new(
            Code::Overloaded,
            format!("its turn did not come within {ms} ms"),
        )
        .with_retry_after_ms(shared.retry_after_ms()));
    };
    let (served, held) = turn?;
    // The slot is free as soon as the engine is done with it, not when the caller has read everything,
    // nor when the caller goes.
    let answer = served
        .engine
        .generate(order.clone().into(), Box::new(held))?;
    let standing = Standing {
        served,
        making: Making::Engine(answer),
        begun: None,
        drawn_from: order.transcript.len(),
        given: Given::default(),
    };
    Ok((standing, registered))
}

async fn accept(shared: &Shared, call: &mut Incoming, order: &WorkOrder) -> Result<(), RpcError> {
    let accepted = Accepted {
        worker: shared.id,
        model: order.model.clone(),
        digest: order.digest,
        seed: order.sampling.seed.unwrap_or_default(),
        // All of it is known to the orchestrator.
        numerics_class: String::new(),
        created_ms: 0,
        degraded_from: None,
        max_tokens: None,
    };
    send(call, &AnswerEvent::Accepted(accepted)).await
}

/// Says when the engine turns to it, and passes chunks on as they come. A caller that reads too
/// slowly fills the answer's buffer, and is cut off by the supervisor. When the worker stops, what
/// the engine gave is sent before the answer is handed over. Dropping the future loses nothing of the
/// answer: what came is in `standing`, whether it was sent or not.
async fn relay(
    shared: &Shared,
    tenant: &TenantId,
    call: &mut Incoming,
    standing: &mut Standing,
    draft: &mut Draft,
) -> Result<(), RpcError> {
    let Standing {
        making: Making::Engine(answer),
        begun,
        given,
        ..
    } = standing
    else {
        return Ok(());
    };
    if begun.is_none() {
        let prompt_tokens = tokio::select! {
            prompt_tokens = answer.begun() => prompt_tokens,
            () = shared.stopping.cancelled() => return Err(handed_over()),
        };
        *begun = Some(prompt_tokens);
        if let Some(prompt_tokens) = prompt_tokens {
            spend(shared, tenant, prompt_tokens);
            send(call, &AnswerEvent::Begun(Begun { prompt_tokens })).await?;
        }
    }
    loop {
        let chunk = tokio::select! {
            chunk = answer.chunk() => chunk,
            () = shared.stopping.cancelled() => {
                for chunk in answer.given() {
                    draft.take(&chunk);
                    send(call, &AnswerEvent::Chunk(chunk)).await?;
                }
                return Err(handed_over());
            }
        };
        let Some(chunk) = chunk else { return Ok(()) };
        given.add(&chunk);
        if draft.take(&chunk) {
            spend(shared, tenant, chunk.positions().unwrap_or(u32::MAX));
        }
        send(call, &AnswerEvent::Chunk(chunk)).await?;
    }
}

fn spend(shared: &Shared, tenant: &TenantId, tokens: u32) {
    shared.rates().spent(tenant, tokens, now_ms());
}

/// The worker stops, and the time that it had for what ran is over.
fn handed_over() -> RpcError {
    RpcError::new(
        Code::Unavailable,
        "this worker drained and stopped: the answer is handed over, and another worker can give it",
    )
}

/// The job has another owner by now, who gave an order for it here.
fn taken_by_another() -> RpcError {
    RpcError::new(
        Code::Conflict,
        "an order of the job's next owner took the place of this one",
    )
}

async fn send(call: &mut Incoming, event: &AnswerEvent) -> Result<(), RpcError> {
    let bytes = codec::encode(event);
    if bytes.len() > MAX_EVENT_BYTES {
        let why = format!("the engine made a piece of {} bytes", bytes.len());
        return Err(RpcError::new(Code::Internal, why));
    }
    call.send(&bytes).await
}

/// Counts an answer and records what the engine's process measured, as spans of this trace. (OBS-1)
fn finished(shared: &Shared, served: &Served, began_ms: u64, done: &EngineDone) {
    let usage = done.usage;
    let model = served.offer.model.to_string();
    let ended_ns = now_ns();
    let first_ns = ended_ns.saturating_sub(done.decode_ms.saturating_mul(1_000_000));
    let start_ns = first_ns.saturating_sub(done.prefill_ms.saturating_mul(1_000_000));
    let input = ("gen_ai.usage.input_tokens", i64::from(usage.prompt_tokens));
    let output = (
        "gen_ai.usage.output_tokens",
        i64::from(usage.completion_tokens),
    );
    let span = tracing::Span::current();
    span.record(input.0, input.1);
    span.record(output.0, output.1);
    trace::record_finished(
        "engine.prefill",
        start_ns,
        first_ns,
        &[(input.0, input.1.into())],
    );
    trace::record_finished(
        "engine.decode",
        first_ns,
        ended_ns,
        &[(output.0, output.1.into())],
    );
    shared.metrics.answered(
        &model,
        usage.prompt_tokens,
        usage.completion_tokens,
        Duration::from_millis(done.prefill_ms),
        Duration::from_millis(done.decode_ms),
    );
    shared.pace().finished(Finished {
        tokens: usage.completion_tokens,
        first_token_ms: done.prefill_ms,
        began_ms,
        ended_ms: ended_ns / 1_000_000,
    });
}
