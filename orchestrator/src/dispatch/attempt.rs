//! One attempt: one order to one worker, and its answer into the log.
//!
//! The worker is read only as fast as the quickest of those who read the answer, so that a slow
//! gateway holds the worker back and grows no memory.
//!
//! A worker of which nothing is heard, or whose next piece is overdue by its own pace
//! ([`super::vigil`]), is left as soon as there is another that can go on. Where there
//! is none it may be starved and come back: before it gave anything it is waited for a little, and
//! from then on its answer is lost only with its link. [T-LNK-5]

use super::breaking::Trial;
use super::check::{Check, Seen};
use super::log::{AnswerLog, MAX_LOG_BYTES, TooLong};
use super::outcome::{End, of_worker_error, told};
use super::receipt::{self, Verdict};
use super::recording::Recording;
use super::run::Run;
use super::turn::size;
use super::vigil::{self, Vigil};
use super::watch::Left;
use super::{Dispatcher, Interrupt, Interrupts, elsewhere};
use crate::clock;
use crate::fleet::Candidate;
use crate::job::Step;
use crate::store::StoreError;
use std::future::Future;
use std::time::{Duration, Instant};
use tether_net::Call;
use tether_wire::NodeId;
use tether_wire::codec;
use tether_wire::infer::{Accepted, AnswerEvent, Chunk, Done, MAX_EVENT_BYTES, WorkOrder};
use tether_wire::rpc::{Code, RpcError};
use tokio::time::{sleep_until, timeout};

/// How long the worker may take to end the call after the end of the answer.
const END_GRACE: Duration = Duration::from_millis(100);

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
    /// Whether it was left in doubt, for another one.
    pub(super) is_left: bool,
    /// What is told again before the log has anything, to be given once all of it is there.
    pub(super) again: Vec<Chunk>,
    pub(super) again_bytes: usize,
}

impl Opened {
    /// With what is known here of its worker and of the request.
    fn known(mut self, candidate: &Candidate, run: &Run, trial: Trial) -> Self {
        self.trial = Some(trial);
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
        trial: Trial,
        interrupt: &mut Interrupts,
    ) -> End {
        let busy = candidate.worker.occupy();
        let had_turn = run.turn.take().map(|_| Instant::now());
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
            opened = self.open(run, candidate, &order, &mut check) => opened,
        };
        let mut opened = match opened {
            Ok(opened) => {
                tracing::debug!("the worker took the order");
                opened.known(candidate, run, trial)
            }
            Err(end) => {
                trial.end(end.outcome());
                return end;
            }
        };
        let mut recording = Recording::default();
        let relayed = self.relay(run, log, &mut opened, &mut check, &mut recording, interrupt);
        let end = relayed.await;
        if opened.is_left {
            self.watch(Left {
                model: order.model.clone(),
                opened,
                busy,
            });
        } else {
            (self.paces).learn(worker, &order.model, opened.vigil.learnt());
            if let (End::Done(_), Some(had_turn)) = (&end, had_turn) {
                let (work, _) = size(&run.request);
                (self.waiting).answered(&order.model, work, had_turn.elapsed());
            }
            if let Some(trial) = opened.trial {
                trial.end(end.outcome());
            }
        }
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
        candidate: &Candidate,
        order: &WorkOrder,
        check: &mut Check,
    ) -> Result<Opened, End> {
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

    /// Takes the answer, one event at a time. Until the worker says that it turned to the request,
    /// the request waits its turn, and only that wait is bounded. [T-INF-8]
    async fn relay<'a>(
        &'a self,
        run: &mut Run,
        log: &AnswerLog,
        opened: &mut Opened,
        check: &mut Check,
        recording: &mut Recording<'a>,
        interrupt: &mut Interrupts,
    ) -> End {
        let worker = opened.worker;
        let now_ms = || clock::now().mono_ms;
        let quiet = opened.call.link().until_unanswered();
        tokio::pin!(quiet);
        let mut is_quiet = false;
        loop {
            let wake = instant(opened.vigil.wake_ms());
            let seen = tokio::select! {
                biased;
                why = &mut *interrupt => return match why {
                    Interrupt::Deadline if opened.vigil.is_queued() && !run.progress.has_begun() => {
                        self.queue_is_full(worker, run)
                    }
                    why => self.interrupted(why),
                },
                recorded = recording.done() => match recorded {
                    Ok(()) => continue,
                    Err(end) => return end,
                },
                // What is there is read, however late this task has its turn.
                seen = next(&mut opened.call, check) => seen,
                () = sleep_until(wake) => {
                    let silent = opened.vigil.silent(now_ms());
                    match opened.vigil.judge(now_ms()) {
                        vigil::Verdict::Wait => {}
                        vigil::Verdict::NoTurn => return self.queue_is_full(worker, run),
                        vigil::Verdict::Stalled => return self.is_stalled(worker).await,
                        vigil::Verdict::Doubt if self.may_leave(run, silent) => {
                            opened.is_left = true;
                            return if is_quiet {
                                self.is_silent(worker).await
                            } else {
                                self.is_stalled(worker).await
                            };
                        }
                        vigil::Verdict::Doubt => {}
                    }
                    continue;
                }
                () = &mut quiet, if !is_quiet => {
                    is_quiet = true;
                    opened.vigil.quiet(now_ms());
                    continue;
                }
            };
            if std::mem::take(&mut is_quiet) {
                opened.vigil.lively();
                quiet.set(opened.call.link().until_unanswered());
            }
            let (pieces, done) = match seen {
                // It waited long enough: not once more, at the end of another queue.
                Err(End::Fault(fault))
                    if opened.vigil.is_queued() && fault.code == Code::Overloaded =>
                {
                    return self.gave_back(fault, run);
                }
                Err(end) => return end,
                Ok(Seen::Nothing | Seen::Accepted(_)) => continue,
                Ok(Seen::Begun(begun)) => {
                    tracing::debug!(
                        tokens = run.progress.transcript().len(),
                        "its turn at the worker"
                    );
                    if let Err(end) = counted(run, worker, begun.prompt_tokens) {
                        return end;
                    }
                    let given = u32::try_from(run.progress.transcript().len());
                    let tokens = begun
                        .prompt_tokens
                        .saturating_add(given.unwrap_or(u32::MAX));
                    opened.vigil.begun(tokens, now_ms());
                    continue;
                }
                Ok(Seen::Again(chunk)) => {
                    opened.vigil.told_again(now_ms());
                    if let Err(end) = told_again(run, opened, chunk, check) {
                        return end;
                    }
                    if check.is_behind() || opened.again.is_empty() {
                        continue;
                    }
                    (std::mem::take(&mut opened.again), None)
                }
                Ok(Seen::Chunk(chunk)) => {
                    opened.vigil.piece(now_ms());
                    opened.trial.iter_mut().for_each(Trial::piece);
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
            let given = self.give(run, log, opened, pieces, recording);
            match unless(interrupt, given).await {
                Ok(Ok(())) => {}
                Ok(Err(end)) => return end,
                Err(why) => return self.interrupted(why),
            }
            if let Some(done) = done {
                return End::Done(done);
            }
            opened.vigil.reads(now_ms());
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
        }
        // Another owner may have begun it.
        if !run.is_streaming && !pieces.is_empty() {
            run.is_streaming = true;
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

/// A moment of our clock, on that of timers.
fn instant(mono_ms: u64) -> tokio::time::Instant {
    let left_ms = mono_ms.saturating_sub(clock::now().mono_ms);
    tokio::time::Instant::now() + Duration::from_millis(left_ms)
}

/// A piece of what was given already: held against the log, or kept until all of it is there.
fn told_again(run: &Run, opened: &mut Opened, chunk: Chunk, check: &Check) -> Result<(), End> {
    if !run.progress.has_begun() {
        opened.again_bytes += chunk.bytes();
        if opened.again_bytes > MAX_LOG_BYTES {
            let why = format!("more than {MAX_LOG_BYTES} bytes are told again");
            return Err(End::Fault(RpcError::new(Code::Internal, why)));
        }
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
pub(super) async fn next(call: &mut Call, check: &mut Check) -> Result<Seen, End> {
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
