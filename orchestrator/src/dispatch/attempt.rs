//! One attempt: one order to one worker, and the relay of its answer.
//!
//! Nothing is kept here but one event: the worker is read only as fast as the gateway takes, so
//! that a slow gateway holds the worker back and grows no memory.
//!
//! While nothing of an answer was given to the gateway, a worker whose link is quiet is as good as
//! lost: another can do the same. From then on it may be starved and come back, and its answer is
//! lost only with its link. [T-LNK-5]

use super::check::{Check, Seen};
use super::outcome::{End, of_worker_error, told};
use super::receipt::{self, Verdict};
use super::recording::Recording;
use super::{Dispatcher, Interrupt, Interrupts, Run};
use crate::clock;
use crate::fleet::Candidate;
use crate::job::Step;
use std::time::{Duration, Instant};
use tether_net::{Call, Link};
use tether_wire::codec;
use tether_wire::infer::{AnswerEvent, Done, MAX_EVENT_BYTES, WorkOrder};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, Role};
use tokio::time::{sleep_until, timeout, timeout_at};

/// How long the worker may take to end the call after the end of the answer.
const END_GRACE: Duration = Duration::from_millis(100);
/// Slack of the worker's deadline over ours, so that ours is the one that is told.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// Bytes of an order for which one more millisecond is given: 4 MB in a second.
const BYTES_PER_MS: usize = 4_096;

/// A call that a worker accepted, and in which words.
struct Opened {
    worker: NodeId,
    call: Call,
    accepted: Vec<u8>,
}

impl Dispatcher {
    /// Gives the request to one worker. Its place is counted as taken until this returns.
    pub(super) async fn attempt(
        &self,
        run: &mut Run,
        candidate: &Candidate,
        interrupt: &mut Interrupts,
    ) -> End {
        let _busy = candidate.worker.occupy();
        // Of the worker that ends the request, not of one that was left for it.
        run.prompt_tokens = 0;
        let worker = candidate.worker.id();
        let order = WorkOrder {
            correlation: run.request.correlation,
            attempt: run.attempts,
            fence: run.holder.fence,
            tenant: run.request.tenant.clone(),
            model: run.model.clone(),
            digest: candidate.offer().digest,
            input: run.request.input.clone(),
            sampling: run.request.sampling.clone(),
            output: run.request.output.clone(),
            transcript: run.request.transcript.clone(),
        };
        debug_assert_eq!(order.sampling.seed, Some(run.seed));
        let mut check = Check::new(worker, &order, candidate.offer().context_tokens);
        let opened = tokio::select! {
            biased;
            why = &mut *interrupt => return self.interrupted(why, run),
            opened = self.open(run, candidate, &order, &mut check) => opened,
        };
        let (call, accepted) = match opened {
            Ok(opened) => opened,
            Err(end) => return end,
        };
        let mut recording = Recording::default();
        let opened = Opened {
            worker,
            call,
            accepted,
        };
        let end = (self.relay(run, opened, &mut check, &mut recording, interrupt)).await;
        // What follows is recorded behind it, and a whole answer counts only with both.
        let end = match (end, recording.settled().await) {
            (End::Done(_), Err(unrecorded)) => unrecorded,
            (end, _) => end,
        };
        if let End::Done(done) = &end {
            self.judge(run, worker, &order, &check, done);
        }
        end
    }

    /// Holds the worker's receipt against what was seen; the tenant does not get one that is wrong.
    /// The answer counts nevertheless: its tokens came, whatever the worker signs.
    fn judge(&self, run: &mut Run, worker: NodeId, order: &WorkOrder, check: &Check, done: &Done) {
        let Some(node) = self.node.get() else { return };
        let verdict = receipt::judge(&receipt::Seen {
            mesh: &node.mesh(),
            worker,
            order,
            given: check.given(),
            done,
        });
        self.metrics.receipt(verdict.label());
        if let Verdict::Wrong(why) = verdict {
            tracing::warn!(%worker, why, "the worker's receipt is wrong, and withheld");
            run.done = codec::encode(&AnswerEvent::Done(Done {
                receipt: None,
                ..done.clone()
            }));
        }
    }

    /// Records the attempt and opens the call, side by side; the worker must accept in time.
    async fn open(
        &self,
        run: &Run,
        candidate: &Candidate,
        order: &WorkOrder,
        check: &mut Check,
    ) -> Result<(Call, Vec<u8>), End> {
        let worker = candidate.worker.id();
        let step = Step::Dispatched {
            worker,
            digest: order.digest,
            attempt: order.attempt,
            numerics_class: candidate.offer().numerics_class.clone(),
        };
        let (recorded, opened) = tokio::join!(
            self.store.step(run.holder, step, clock::now().unix_ms),
            self.accepted(run, worker, order, check),
        );
        if let Err(error) = recorded {
            tracing::error!(job = %run.holder.job, %error, "an attempt could not be recorded");
            return Err(End::Final(RpcError::new(
                Code::Internal,
                "the request could not be recorded",
            )));
        }
        opened
    }

    async fn accepted(
        &self,
        run: &Run,
        worker: NodeId,
        order: &WorkOrder,
        check: &mut Check,
    ) -> Result<(Call, Vec<u8>), End> {
        let link = self.link(worker).await.map_err(End::Fault)?;
        let body = codec::encode(order);
        let began = Instant::now();
        let extra_ms = u64::try_from(body.len() / BYTES_PER_MS).unwrap_or(u64::MAX);
        let patience =
            Duration::from_millis(self.config.accept_timeout_ms.saturating_add(extra_ms));
        let left = run
            .deadline
            .saturating_duration_since(tokio::time::Instant::now());
        let by = tokio::time::Instant::from_std(began + patience);
        let exchange = async {
            let mut call = link
                .call(method::INFER, Some(left + DEADLINE_SLACK), &body)
                .await
                .map_err(End::Fault)?;
            call.finish_sending().await;
            loop {
                let (seen, item) = next(&mut call, check).await?;
                match seen {
                    Seen::Accepted(_) => return Ok((call, item)),
                    Seen::Nothing => {}
                    Seen::Begun(_) | Seen::Chunk(_) | Seen::Done(_) => {
                        return Err(End::Fault(RpcError::new(
                            Code::Internal,
                            "the worker answers what it did not accept",
                        )));
                    }
                }
            }
        };
        let exchange = async {
            tokio::select! {
                biased;
                opened = exchange => opened,
                () = link.until_quiet() => Err(self.is_silent(worker).await),
            }
        };
        match timeout_at(by, exchange).await {
            Ok(opened) => {
                if opened.is_ok() {
                    self.metrics.accepted(began.elapsed());
                }
                opened
            }
            Err(_) => {
                self.fleet
                    .suspect(worker, "it did not accept an order in time")
                    .await;
                Err(End::Fault(RpcError::new(
                    Code::Unavailable,
                    format!("worker {} does not answer", worker.short()),
                )))
            }
        }
    }

    /// The worker's link is quiet, or was lost at this moment.
    async fn is_silent(&self, worker: NodeId) -> End {
        self.fleet.suspect(worker, "its link is silent").await;
        End::Fault(RpcError::new(
            Code::Unavailable,
            format!("nothing is heard of worker {}", worker.short()),
        ))
    }

    /// The link to a worker: the one that it opened to us, or a new one. One that is quiet is not
    /// dialled: a worker that was restarted links by itself, and others may serve at once.
    async fn link(&self, worker: NodeId) -> Result<Link, RpcError> {
        let unreachable = |why: String| {
            RpcError::new(
                Code::Unavailable,
                format!("worker {} cannot be reached: {why}", worker.short()),
            )
        };
        let Some(node) = self.node.get() else {
            return Err(unreachable("this node is starting".to_owned()));
        };
        // Only one that is up, as it is for candidates.
        if let Some(link) = node.linked(&worker) {
            if link.is_quiet() {
                self.fleet.suspect(worker, "its link is silent").await;
                return Err(unreachable("nothing is heard of it".to_owned()));
            }
            return Ok(link);
        }
        let patience = Duration::from_millis(self.config.dial_timeout_ms);
        let why = match timeout(patience, node.link(worker, Role::Worker)).await {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no link within {} ms", patience.as_millis()),
        };
        (self.fleet.unreachable(worker, "it cannot be linked")).await;
        Err(unreachable(why))
    }

    /// Passes the answer on, one event at a time. Until the worker says that it turned to the
    /// request, the request waits its turn, and only that wait is bounded. [T-INF-8]
    async fn relay<'a>(
        &'a self,
        run: &mut Run,
        opened: Opened,
        check: &mut Check,
        recording: &mut Recording<'a>,
        interrupt: &mut Interrupts,
    ) -> End {
        let Opened {
            worker,
            mut call,
            accepted,
        } = opened;
        let within = |ms| tokio::time::Instant::now() + Duration::from_millis(ms);
        let mut queued = true;
        let mut by = within(self.config.queue_timeout_ms);
        let quiet = call.link().until_quiet();
        tokio::pin!(quiet);
        loop {
            let event = tokio::select! {
                biased;
                why = &mut *interrupt => return match why {
                    Interrupt::Deadline if queued => self.queue_is_full(worker),
                    why => self.interrupted(why, run),
                },
                () = sleep_until(by) => {
                    if queued {
                        return self.queue_is_full(worker);
                    }
                    self.fleet.suspect(worker, "its answer stalled").await;
                    return End::Fault(RpcError::new(
                        Code::Unavailable,
                        format!("worker {} sends nothing any more", worker.short()),
                    ));
                }
                recorded = recording.done() => match recorded {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                event = next(&mut call, check) => event,
                () = &mut quiet, if !run.streamed => return self.is_silent(worker).await,
            };
            match event {
                // It waited long enough: not once more, at the end of another queue.
                Err(End::Fault(fault)) if queued && fault.code == Code::Overloaded => {
                    return End::Final(told(fault, false, self.config.retry_after_ms));
                }
                Err(end) => return end,
                Ok((Seen::Nothing | Seen::Accepted(_), _)) => {}
                Ok((Seen::Begun(begun), _)) => {
                    run.prompt_tokens = begun.prompt_tokens;
                    queued = false;
                    by = within(self.config.first_token_timeout_ms);
                }
                Ok((Seen::Chunk(_), item)) => {
                    queued = false;
                    let sent = if run.streamed {
                        self.pass_on(run, &item).await
                    } else {
                        let step = Step::Streaming;
                        recording.begin(self.store.step(run.holder, step, clock::now().unix_ms));
                        (self.begin(run, &accepted, &item, check.tokens(), recording)).await
                    };
                    if let Err(end) = sent {
                        return end;
                    }
                    run.tokens = check.tokens();
                    by = within(self.config.stall_timeout_ms);
                }
                Ok((Seen::Done(done), item)) => {
                    // Lets the worker end the call by itself: a reset would look like a cancel.
                    let _ = timeout(END_GRACE, call.next()).await;
                    if !run.streamed
                        && let Err(end) = self.pass_on(run, &accepted).await
                    {
                        return end;
                    }
                    run.done = item;
                    return End::Done(done);
                }
            }
        }
    }

    /// The request's turn did not come in time. Others would let it wait as well, and it was not
    /// this worker's fault.
    fn queue_is_full(&self, worker: NodeId) -> End {
        tracing::info!(%worker, "it had no turn for the request in time");
        let fault = RpcError::new(Code::Overloaded, "no turn in time");
        End::Final(told(fault, false, self.config.retry_after_ms))
    }

    /// The first piece: the gateway learns only now which worker answers, so that a retry before
    /// this leaves no trace in the answer. That it begins is on its way to the disk before it is sent.
    async fn begin(
        &self,
        run: &mut Run,
        accepted: &[u8],
        item: &[u8],
        tokens: u32,
        recording: &mut Recording<'_>,
    ) -> Result<(), End> {
        run.streamed = true;
        self.metrics.first_chunk(run.began.elapsed());
        let passing = async {
            self.pass_on(run, accepted).await?;
            self.pass_on(run, item).await?;
            run.tokens = tokens;
            Ok(())
        };
        tokio::pin!(passing);
        tokio::select! {
            biased;
            recorded = recording.done() => {
                // Given is given, also where it could not be recorded.
                let passed = passing.await;
                recorded.and(passed)
            }
            passed = &mut passing => passed,
        }
    }

    async fn pass_on(&self, run: &mut Run, item: &[u8]) -> Result<(), End> {
        let patience = Duration::from_millis(self.config.stall_timeout_ms);
        match timeout(patience, run.call.send(item)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::debug!(%error, "the gateway takes no more");
                Err(End::Cancelled)
            }
            Err(_) => {
                tracing::warn!("the gateway took nothing for too long");
                Err(End::Cancelled)
            }
        }
    }
}

/// The next event of the worker, checked, with its bytes.
async fn next(call: &mut Call, check: &mut Check) -> Result<(Seen, Vec<u8>), End> {
    let item = match call.next().await {
        Ok(Some(item)) => item,
        Ok(None) => {
            return Err(End::Fault(RpcError::new(
                Code::Unavailable,
                "the worker ended its answer without finishing it",
            )));
        }
        Err(error) => return Err(of_worker_error(error)),
    };
    let event: AnswerEvent = codec::decode("answer", &item, MAX_EVENT_BYTES)
        .map_err(|error| End::Fault(RpcError::new(Code::Internal, error.to_string())))?;
    match check.take(event) {
        Ok(seen) => Ok((seen, item)),
        Err(error) => Err(End::Fault(error)),
    }
}
