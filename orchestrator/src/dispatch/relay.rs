//! The answer of one worker into the log.
//!
//! The worker is read only as fast as the quickest of those who read the answer, so that a slow
//! gateway holds the worker back and grows no memory.

use super::attempt::{Attempt, Opened};
use super::check::Check;
use super::hear::Heard;
use super::log::{AnswerLog, MAX_LOG_BYTES, TooLong};
use super::outcome::End;
use super::receipt::{self, Verdict};
use super::recording::Recording;
use super::run::Run;
use super::{Dispatcher, Interrupt, Interrupts};
use crate::clock;
use crate::job::Step;
use std::future::Future;
use std::time::Duration;
use tether_wire::NodeId;
use tether_wire::codec;
use tether_wire::infer::{AnswerEvent, Chunk, Done, WorkOrder};
use tether_wire::rpc::{Code, RpcError};
use tokio::time::timeout;

/// How long the worker may take to end the call after the end of the answer.
const END_GRACE: Duration = Duration::from_millis(100);

impl Dispatcher {
    /// Takes the answer from what was heard first to its end.
    pub(super) async fn relay(
        &self,
        run: &mut Run,
        log: &AnswerLog,
        attempt: &mut Attempt,
        first: Heard,
        interrupt: &mut Interrupts,
    ) -> End {
        let mut recording = Recording::default();
        let worker = attempt.worker();
        let Attempt {
            order,
            check,
            opened,
            ..
        } = attempt;
        let opened = opened.as_mut().expect("what was heard came by a call");
        let taken = self.take(run, log, opened, check, first, &mut recording, interrupt);
        let end = taken.await;
        // What follows is recorded behind it, and a whole answer counts only with both.
        match (end, recording.settled().await) {
            (End::Done(_), Err(unrecorded)) => unrecorded,
            (End::Done(done), Ok(())) => End::Done(self.judge(worker, order, check, done)),
            (end, _) => end,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "what an answer goes through")]
    async fn take<'a>(
        &'a self,
        run: &mut Run,
        log: &AnswerLog,
        opened: &mut Opened,
        check: &mut Check,
        first: Heard,
        recording: &mut Recording<'a>,
        interrupt: &mut Interrupts,
    ) -> End {
        let mut heard = first;
        loop {
            let (pieces, done) = match heard {
                Heard::Pieces(pieces) => (pieces, None),
                Heard::Done(done) => {
                    // Lets the worker end the call by itself: a reset would look like a cancel.
                    let _ = timeout(END_GRACE, opened.call.next()).await;
                    run.progress.counted(done.usage.prompt_tokens);
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
            opened.vigil.reads(clock::now().mono_ms);
            let hearing = self.hear(run, opened, check);
            tokio::pin!(hearing);
            heard = loop {
                tokio::select! {
                    biased;
                    why = &mut *interrupt => return self.interrupted(why),
                    recorded = recording.done() => if let Err(end) = recorded {
                        return end;
                    },
                    heard = &mut hearing => match heard {
                        Ok(heard) => break heard,
                        Err(end) => return end,
                    },
                }
            };
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
            recording.begin(Box::pin(self.persist(run.holder, Step::Streaming)));
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

async fn append(log: &AnswerLog, event: &AnswerEvent) -> Result<(), End> {
    let appended = log.append(&codec::encode(event)).await;
    appended.map_err(|TooLong { most_bytes }| {
        let (code, why) = if most_bytes < MAX_LOG_BYTES {
            (
                Code::Overloaded,
                ", its part of what all answers may have here together",
            )
        } else {
            (Code::Internal, "")
        };
        let why = format!("the answer has more than {most_bytes} bytes{why}");
        End::Final(RpcError::new(code, why))
    })
}

/// The future's outcome, unless the request ends from outside before.
pub(super) async fn unless<T>(
    interrupt: &mut Interrupts,
    future: impl Future<Output = T>,
) -> Result<T, Interrupt> {
    tokio::select! {
        biased;
        why = interrupt => Err(why),
        value = future => Ok(value),
    }
}
