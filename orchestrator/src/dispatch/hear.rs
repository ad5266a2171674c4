//! What comes next of a worker's answer, or that the worker is left.
//!
//! A worker of which nothing is heard, or whose next piece is overdue by its own pace
//! ([`super::vigil`]), is left as soon as there is another that can go on. Where there
//! is none it may be starved and come back: before it gave anything it is waited for a little, and
//! from then on its answer is lost only with its link. [T-LNK-5]

use super::attempt::{Attempt, Opened};
use super::breaking::Trial;
use super::check::{Check, Seen};
use super::log::MAX_LOG_BYTES;
use super::outcome::{End, of_worker_error, told};
use super::reach::is_given_up;
use super::run::Run;
use super::vigil;
use super::{Dispatcher, Interrupt};
use crate::clock;
use std::time::Duration;
use tether_net::Call;
use tether_wire::NodeId;
use tether_wire::codec;
use tether_wire::infer::{AnswerEvent, Chunk, Done, MAX_EVENT_BYTES};
use tether_wire::rpc::{Code, RpcError};
use tokio::time::sleep_until;

/// What is to be given.
pub(super) enum Heard {
    /// One piece; or, of an answer that was begun elsewhere, all that were given there.
    Pieces(Vec<Chunk>),
    /// The end.
    Done(Done),
}

impl Dispatcher {
    /// Waits for what comes next. Until the worker says that it turned to the request, the request
    /// waits its turn, and only that wait is bounded. [T-INF-8] Losing interest in the future loses
    /// what is read at that moment.
    pub(super) async fn hear(
        &self,
        run: &Run,
        opened: &mut Opened,
        check: &mut Check,
    ) -> Result<Heard, End> {
        let worker = opened.worker;
        let now_ms = || clock::now().mono_ms;
        loop {
            let wake = instant(opened.vigil.wake_ms());
            let seen = tokio::select! {
                biased;
                // What is there is read, however late this task has its turn.
                seen = next(&mut opened.call, check) => seen,
                () = sleep_until(wake) => {
                    self.look(run, opened).await?;
                    continue;
                }
                () = &mut opened.quiet, if !opened.is_quiet => {
                    opened.is_quiet = true;
                    opened.vigil.quiet(now_ms());
                    continue;
                }
            };
            opened.lively();
            match seen {
                // It waited long enough: not once more, at the end of another queue.
                Err(End::Fault(fault))
                    if opened.vigil.is_queued() && fault.code == Code::Overloaded =>
                {
                    return Err(self.gave_back(fault, run));
                }
                Err(end) => return Err(end),
                Ok(Seen::Nothing | Seen::Accepted(_)) => {}
                Ok(Seen::Begun(begun)) => {
                    tracing::debug!(
                        tokens = run.progress.transcript().len(),
                        "its turn at the worker"
                    );
                    is_counted(run, worker, begun.prompt_tokens)?;
                    let given = u32::try_from(run.progress.transcript().len());
                    let tokens = begun
                        .prompt_tokens
                        .saturating_add(given.unwrap_or(u32::MAX));
                    opened.vigil.begun(tokens, now_ms());
                }
                Ok(Seen::Again(chunk)) => {
                    opened.vigil.told_again(now_ms());
                    told_again(run, opened, chunk, check)?;
                    if !check.is_behind() && !opened.again.is_empty() {
                        return Ok(Heard::Pieces(std::mem::take(&mut opened.again)));
                    }
                }
                Ok(Seen::Chunk(chunk)) => {
                    opened.vigil.piece(now_ms());
                    opened.trial.iter_mut().for_each(Trial::piece);
                    return Ok(Heard::Pieces(vec![chunk]));
                }
                Ok(Seen::Done(done)) => {
                    is_counted(run, worker, done.usage.prompt_tokens)?;
                    return Ok(Heard::Done(done));
                }
            }
        }
    }

    /// Looks after what does not come: whether the worker is left.
    async fn look(&self, run: &Run, opened: &mut Opened) -> Result<(), End> {
        opened.hear_link();
        let now_ms = clock::now().mono_ms;
        let silent = opened.vigil.silent(now_ms);
        let worker = opened.worker;
        Err(match opened.vigil.judge(now_ms) {
            vigil::Verdict::Wait => return Ok(()),
            vigil::Verdict::NoTurn => self.queue_is_full(worker, run),
            vigil::Verdict::Stalled => self.is_stalled(worker).await,
            vigil::Verdict::Doubt => {
                // Never the last that it has: what comes late is more than nothing.
                if !is_given_up(run, silent) {
                    let can = self.can_leave(run, worker);
                    opened.planned = can.then(|| self.planned(run)).flatten();
                    if opened.planned.is_none() {
                        return Ok(());
                    }
                }
                opened.is_left = true;
                if opened.is_quiet {
                    self.is_silent(worker).await
                } else {
                    self.is_stalled(worker).await
                }
            }
        })
    }

    /// The request ends from outside while an attempt has given nothing.
    pub(super) fn cut(&self, why: Interrupt, run: &Run, attempt: &Attempt) -> End {
        let opened = attempt.opened.as_ref();
        let is_queued = opened.is_some_and(|it| it.vigil.is_queued());
        match why {
            Interrupt::Deadline if is_queued && !run.progress.has_begun() => {
                self.queue_is_full(attempt.worker(), run)
            }
            why => self.interrupted(why),
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
fn is_counted(run: &Run, worker: NodeId, prompt_tokens: u32) -> Result<(), End> {
    if run.progress.counts(prompt_tokens) {
        return Ok(());
    }
    let (short, before) = (worker.short(), run.progress.prompt_tokens());
    let why = format!("worker {short} counts {prompt_tokens} tokens of a prompt that had {before}");
    Err(End::Fault(RpcError::new(Code::Internal, why)))
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
