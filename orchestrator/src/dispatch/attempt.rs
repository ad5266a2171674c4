//! One attempt: one order to one worker, and its answer into the log.
//!
//! The worker is read only as fast as the quickest of those who read the answer, so that a slow
//! gateway holds the worker back and grows no memory.
//!
//! A worker whose link is quiet is as good as lost before it gave anything. From then on it is left
//! as soon as there is another that can go on; where there is none it may be starved and come back,
//! and its answer is lost only with its link. [T-LNK-5]

use super::check::{Check, Seen};
use super::log::{AnswerLog, MAX_LOG_BYTES, TooLong};
use super::outcome::{End, of_worker_error, told};
use super::receipt::{self, Verdict};
use super::recording::Recording;
use super::run::{LOOK, Run};
use super::{Dispatcher, Interrupt, Interrupts, elsewhere};
use crate::clock;
use crate::fleet::Candidate;
use crate::job::Step;
use crate::store::StoreError;
use std::future::Future;
use std::time::{Duration, Instant};
use tether_net::{Call, Link};
use tether_wire::codec;
use tether_wire::infer::{Accepted, AnswerEvent, Chunk, Done, MAX_EVENT_BYTES, WorkOrder};
use tether_wire::rpc::{Code, RpcError, method};
use tether_wire::{NodeId, Role};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

/// How long the worker may take to end the call after the end of the answer.
const END_GRACE: Duration = Duration::from_millis(100);
/// Slack of the worker's deadline over ours, so that ours is the one that is told.
const DEADLINE_SLACK: Duration = Duration::from_millis(500);
/// Bytes of an order for which one more millisecond is given: 4 MB in a second.
const BYTES_PER_MS: usize = 4_096;

/// A call that a worker accepted.
struct Opened {
    worker: NodeId,
    call: Call,
    /// That it did, until the log has it.
    untold: Option<Accepted>,
    numerics_class: String,
    /// What is told again before the log has anything, to be given once all of it is there.
    again: Vec<Chunk>,
}

impl Opened {
    /// With what is known here of its worker and of the request.
    fn known(mut self, candidate: &Candidate, run: &Run) -> Self {
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
}

impl Dispatcher {
    /// Gives the request to one worker. Its place is counted as taken until this returns.
    pub(super) async fn attempt(
        &self,
        run: &mut Run,
        log: &AnswerLog,
        candidate: &Candidate,
        interrupt: &mut Interrupts,
    ) -> End {
        let _busy = candidate.worker.occupy();
        let worker = candidate.worker.id();
        let order = WorkOrder {
            correlation: run.request.correlation,
            attempt: run.progress.attempts(),
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
        let mut check = Check::new(worker, &order, candidate.offer().context_tokens);
        let opened = tokio::select! {
            biased;
            why = &mut *interrupt => return self.interrupted(why),
            opened = self.open(run, worker, &order, &mut check) => opened,
        };
        let opened = match opened {
            Ok(opened) => opened.known(candidate, run),
            Err(end) => return end,
        };
        let mut recording = Recording::default();
        let end = (self.relay(run, log, opened, &mut check, &mut recording, interrupt)).await;
        // What follows is recorded behind it, and a whole answer counts only with both.
        match (end, recording.settled().await) {
            (End::Done(_), Err(unrecorded)) => unrecorded,
            (End::Done(done), Ok(())) => End::Done(self.judge(worker, &order, &check, done)),
            (end, _) => end,
        }
    }

    /// Holds the worker's receipt against what was seen; the tenant does not get one that is wrong.
    /// The answer counts nevertheless: its tokens came, whatever the worker signs.
    fn judge(&self, worker: NodeId, order: &WorkOrder, check: &Check, mut done: Done) -> Done {
        let Some(node) = self.node.get() else {
            return done;
        };
        let verdict = receipt::judge(&receipt::Seen {
            mesh: &node.mesh(),
            worker,
            order,
            given: check.given(),
            done: &done,
        });
        self.metrics.receipt(verdict.label());
        if let Verdict::Wrong(why) = verdict {
            tracing::warn!(%worker, why, "the worker's receipt is wrong, and withheld");
            done.receipt = None;
        }
        done
    }

    /// Records the attempt and opens the call, side by side; the worker must accept in time.
    async fn open(
        &self,
        run: &Run,
        worker: NodeId,
        order: &WorkOrder,
        check: &mut Check,
    ) -> Result<Opened, End> {
        let step = Step::Dispatched {
            worker,
            digest: order.digest,
            attempt: order.attempt,
        };
        let (recorded, opened) = tokio::join!(
            self.store.step(run.holder, step, clock::now().unix_ms),
            self.accepted(run, worker, order, check),
        );
        if let Err(error) = recorded {
            if let StoreError::Refused { .. } = error {
                tracing::warn!(job = %run.holder.job, "the job is another's by now");
                return Err(End::Final(elsewhere()));
            }
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
    ) -> Result<Opened, End> {
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
                match next(&mut call, check).await? {
                    Seen::Accepted(accepted) => {
                        return Ok(Opened {
                            worker,
                            call,
                            untold: Some(accepted),
                            numerics_class: String::new(),
                            again: Vec::new(),
                        });
                    }
                    Seen::Nothing => {}
                    Seen::Begun(_) | Seen::Again(_) | Seen::Chunk(_) | Seen::Done(_) => {
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

    /// Takes the answer, one event at a time. Until the worker says that it turned to the request,
    /// the request waits its turn, and only that wait is bounded. [T-INF-8]
    async fn relay<'a>(
        &'a self,
        run: &mut Run,
        log: &AnswerLog,
        mut opened: Opened,
        check: &mut Check,
        recording: &mut Recording<'a>,
        interrupt: &mut Interrupts,
    ) -> End {
        let worker = opened.worker;
        let within = |ms| tokio::time::Instant::now() + Duration::from_millis(ms);
        let mut queued = true;
        let mut by = within(self.config.queue_timeout_ms);
        let quiet = opened.call.link().until_quiet();
        tokio::pin!(quiet);
        // Whether the worker may be dead. What it gave may be all that there is to be had.
        let mut is_doubted = false;
        loop {
            let seen = tokio::select! {
                biased;
                why = &mut *interrupt => return match why {
                    Interrupt::Deadline if queued && !run.progress.has_begun() => {
                        self.queue_is_full(worker, run)
                    }
                    why => self.interrupted(why),
                },
                () = sleep_until(by) => {
                    if queued {
                        return self.queue_is_full(worker, run);
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
                seen = next(&mut opened.call, check) => seen,
                () = &mut quiet, if !is_doubted => {
                    if !run.progress.has_begun() {
                        return self.is_silent(worker).await;
                    }
                    is_doubted = true;
                    continue;
                }
                () = sleep(LOOK), if is_doubted => {
                    if run.progress.can_go_on() && self.has_other(run) {
                        return self.is_silent(worker).await;
                    }
                    continue;
                }
            };
            if std::mem::take(&mut is_doubted) {
                quiet.set(opened.call.link().until_quiet());
            }
            let (pieces, done) = match seen {
                // It waited long enough: not once more, at the end of another queue.
                Err(End::Fault(fault)) if queued && fault.code == Code::Overloaded => {
                    return self.gave_back(fault, run);
                }
                Err(end) => return end,
                Ok(Seen::Nothing | Seen::Accepted(_)) => continue,
                Ok(Seen::Begun(begun)) => {
                    if let Err(end) = counted(run, worker, begun.prompt_tokens) {
                        return end;
                    }
                    queued = false;
                    by = within(self.config.first_token_timeout_ms);
                    continue;
                }
                Ok(Seen::Again(chunk)) => {
                    queued = false;
                    by = within(self.config.first_token_timeout_ms);
                    if let Err(end) = told_again(run, &mut opened, chunk, check) {
                        return end;
                    }
                    if check.is_behind() || opened.again.is_empty() {
                        continue;
                    }
                    (std::mem::take(&mut opened.again), None)
                }
                Ok(Seen::Chunk(chunk)) => {
                    queued = false;
                    by = within(self.config.stall_timeout_ms);
                    (vec![chunk], None)
                }
                Ok(Seen::Done(done)) => {
                    // Lets the worker end the call by itself: a reset would look like a cancel.
                    let _ = timeout(END_GRACE, opened.call.next()).await;
                    if let Err(end) = counted(run, worker, done.usage.prompt_tokens) {
                        return end;
                    }
                    (Vec::new(), Some(done))
                }
            };
            let given = self.give(run, log, &mut opened, pieces, recording);
            match unless(interrupt, given).await {
                Ok(Ok(())) => {}
                Ok(Err(end)) => return end,
                Err(why) => return self.interrupted(why),
            }
            if let Some(done) = done {
                return End::Done(done);
            }
        }
    }

    /// The request's turn did not come in time. Others would let it wait as well, and it was not
    /// this worker's fault. Who was given some of the answer already is worth another try.
    fn queue_is_full(&self, worker: NodeId, run: &Run) -> End {
        tracing::info!(%worker, "it had no turn for the request in time");
        self.gave_back(RpcError::new(Code::Overloaded, "no turn in time"), run)
    }

    fn gave_back(&self, fault: RpcError, run: &Run) -> End {
        if run.progress.has_begun() {
            return End::Fault(fault);
        }
        End::Final(told(fault, false, self.config.retry_after_ms))
    }

    /// Puts pieces into the log, behind who gives them. That the answer begins is on its way to the
    /// disk before anybody is told.
    async fn give<'a>(
        &'a self,
        run: &mut Run,
        log: &AnswerLog,
        opened: &mut Opened,
        pieces: Vec<Chunk>,
        recording: &mut Recording<'a>,
    ) -> Result<(), End> {
        if !run.progress.has_begun() && !pieces.is_empty() {
            self.metrics.first_chunk(run.began.elapsed());
            let now_ms = clock::now().unix_ms;
            recording.begin(self.store.step(run.holder, Step::Streaming, now_ms));
        }
        let giving = async {
            if let Some(accepted) = opened.untold.take() {
                append(log, &AnswerEvent::Accepted(accepted)).await?;
            }
            for piece in pieces {
                run.progress.gave(&piece, &opened.numerics_class);
                append(log, &AnswerEvent::Chunk(piece)).await?;
            }
            Ok(())
        };
        tokio::pin!(giving);
        tokio::select! {
            biased;
            recorded = recording.done() => {
                // Given is given, also where it could not be recorded.
                let given = giving.await;
                recorded.and(given)
            }
            given = &mut giving => given,
        }
    }
}

/// A piece of what was given already: held against the log, or kept until all of it is there.
fn told_again(run: &Run, opened: &mut Opened, chunk: Chunk, check: &Check) -> Result<(), End> {
    if !run.progress.has_begun() {
        opened.again.push(chunk);
        return Ok(());
    }
    if check.is_behind() || run.progress.agrees(check.given()) {
        return Ok(());
    }
    let why = format!(
        "worker {} makes another text of the tokens that were given",
        opened.worker.short()
    );
    Err(End::Fault(RpcError::new(Code::Internal, why)))
}

/// The prompt costs the same wherever the answer is continued: tenants are billed by it.
fn counted(run: &mut Run, worker: NodeId, prompt_tokens: u32) -> Result<(), End> {
    if run.progress.counted(prompt_tokens) {
        return Ok(());
    }
    let (short, before) = (worker.short(), run.progress.prompt_tokens());
    let why = format!("worker {short} counts {prompt_tokens} tokens of a prompt that had {before}");
    Err(End::Fault(RpcError::new(Code::Internal, why)))
}

async fn append(log: &AnswerLog, event: &AnswerEvent) -> Result<(), End> {
    let appended = log.append(&codec::encode(event)).await;
    appended.map_err(|TooLong| {
        let why = format!("the answer has more than {MAX_LOG_BYTES} bytes");
        End::Final(RpcError::new(Code::Internal, why))
    })
}

/// The future's outcome, unless the request ends from outside before.
async fn unless<T>(
    interrupt: &mut Interrupts,
    future: impl Future<Output = T>,
) -> Result<T, Interrupt> {
    tokio::select! {
        biased;
        why = interrupt => Err(why),
        value = future => Ok(value),
    }
}

/// The next event of the worker, checked.
async fn next(call: &mut Call, check: &mut Check) -> Result<Seen, End> {
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
    check.take(event).map_err(End::Fault)
}
