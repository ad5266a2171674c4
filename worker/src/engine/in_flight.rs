//! The answers that an engine works on. No I/O and no clock: messages and ticks in, what to tell
//! the engine out.

use crate::engine::protocol::FromEngine;
use std::collections::HashMap;
use tether_wire::infer::{Chunk, Finish, Usage};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

/// Chunks of one answer that may wait for their reader. A reader that is further behind is cut
/// off: the engine makes one step for all sequences and must never wait for one of them.
pub const MAX_WAITING_CHUNKS: usize = 1_024;

/// The end of an answer, as the engine tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineDone {
    /// Why it ended.
    pub finish: Finish,
    /// Exact counts.
    pub usage: Usage,
    /// Milliseconds from its turn in the engine to its first token.
    pub prefill_ms: u64,
    /// Milliseconds from the first token to the last.
    pub decode_ms: u64,
}

/// Where an answer goes.
#[derive(Debug)]
pub(crate) struct Sink {
    /// Taken when the engine turned to the request, or gave a piece without saying so.
    begun: Option<oneshot::Sender<u32>>,
    chunks: mpsc::Sender<Chunk>,
    end: oneshot::Sender<Result<EngineDone, RpcError>>,
}

/// Where an answer comes from.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) begun: oneshot::Receiver<u32>,
    pub(crate) chunks: mpsc::Receiver<Chunk>,
    pub(crate) end: oneshot::Receiver<Result<EngineDone, RpcError>>,
}

pub(crate) fn channel() -> (Sink, Source) {
    let (chunks, chunks_receiver) = mpsc::channel(MAX_WAITING_CHUNKS);
    let (begun, begun_receiver) = oneshot::channel();
    let (end, end_receiver) = oneshot::channel();
    let source = Source {
        begun: begun_receiver,
        chunks: chunks_receiver,
        end: end_receiver,
    };
    let begun = Some(begun);
    (Sink { begun, chunks, end }, source)
}

impl Sink {
    pub(crate) fn fail(self, error: RpcError) {
        // Who is gone needs no answer.
        let _ = self.end.send(Err(error));
    }
}

/// How long an answer may make no progress, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepLimits {
    pub(crate) first: u32,
    pub(crate) next: u32,
}

/// The answers that are being made.
#[derive(Debug)]
pub(crate) struct InFlight {
    limits: StepLimits,
    answers: HashMap<u64, Answer>,
    /// Ticks since any answer made progress.
    still: u32,
}

#[derive(Debug)]
struct Answer {
    sink: Sink,
    position: u32,
    still: u32,
}

/// What follows from a tick.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Overdue {
    /// Answers to cancel; their readers were told.
    pub(crate) cancel: Vec<u64>,
    /// No answer made progress for a whole step: the engine is stuck.
    pub(crate) is_stuck: bool,
}

impl InFlight {
    pub(crate) fn new(limits: StepLimits) -> Self {
        Self {
            limits,
            answers: HashMap::new(),
            still: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.answers.len()
    }

    pub(crate) fn begin(&mut self, id: u64, sink: Sink) {
        if self.answers.is_empty() {
            self.still = 0;
        }
        self.answers.insert(
            id,
            Answer {
                sink,
                position: 0,
                still: 0,
            },
        );
    }

    /// The reader is gone. Whether the engine has to be told.
    pub(crate) fn forget(&mut self, id: u64) -> bool {
        self.answers.remove(&id).is_some()
    }

    /// The engine said something. Returns an answer to cancel.
    pub(crate) fn on_message(&mut self, message: FromEngine) -> Option<u64> {
        match message {
            FromEngine::Started { id, prompt_tokens } => {
                self.progress(id);
                if let Some(begun) = self.begun(id) {
                    // Who is gone needs no news.
                    let _ = begun.send(prompt_tokens);
                }
                None
            }
            FromEngine::Chunk {
                id,
                position,
                tokens,
                text,
            } => {
                self.progress(id);
                self.begun(id);
                let chunk = Chunk {
                    position,
                    tokens,
                    text,
                };
                self.deliver(id, chunk)
            }
            FromEngine::Done {
                id,
                finish,
                usage,
                prefill_ms,
                decode_ms,
            } => {
                self.still = 0;
                let done = EngineDone {
                    finish,
                    usage,
                    prefill_ms,
                    decode_ms,
                };
                if let Some(answer) = self.answers.remove(&id) {
                    let _ = answer.sink.end.send(Ok(done));
                }
                None
            }
            FromEngine::Failed { id, error } => {
                self.still = 0;
                if let Some(answer) = self.answers.remove(&id) {
                    answer.sink.fail(error);
                }
                None
            }
            FromEngine::Loaded { .. } | FromEngine::LoadFailed { .. } | FromEngine::Pong { .. } => {
                None
            }
        }
    }

    fn progress(&mut self, id: u64) {
        if let Some(answer) = self.answers.get_mut(&id) {
            answer.still = 0;
            self.still = 0;
        }
    }

    fn begun(&mut self, id: u64) -> Option<oneshot::Sender<u32>> {
        self.answers.get_mut(&id)?.sink.begun.take()
    }

    fn deliver(&mut self, id: u64, chunk: Chunk) -> Option<u64> {
        let answer = self.answers.get_mut(&id)?;
        let expected = answer.position;
        let tokens = u32::try_from(chunk.tokens.len()).unwrap_or(u32::MAX);
        let error = if chunk.position == expected {
            answer.position = expected.saturating_add(tokens);
            match answer.sink.chunks.try_send(chunk) {
                Ok(()) => return None,
                Err(TrySendError::Full(_)) => RpcError::new(
                    Code::Overloaded,
                    "the reader is too slow: it left more than 1024 chunks of its answer unread",
                ),
                Err(TrySendError::Closed(_)) => {
                    RpcError::new(Code::Cancelled, "the reader is gone")
                }
            }
        } else {
            let position = chunk.position;
            RpcError::new(
                Code::Internal,
                format!("the engine skipped from token {expected} to {position} of its answer"),
            )
        };
        if let Some(answer) = self.answers.remove(&id) {
            answer.sink.fail(error);
        }
        Some(id)
    }

    /// Time goes by.
    pub(crate) fn tick(&mut self) -> Overdue {
        if self.answers.is_empty() {
            self.still = 0;
            return Overdue::default();
        }
        self.still += 1;
        let limits = self.limits;
        let mut cancel = Vec::new();
        for (id, answer) in &mut self.answers {
            answer.still += 1;
            if answer.still > limits.of(answer.position) {
                cancel.push(*id);
            }
        }
        let is_stuck = cancel.iter().any(|id| {
            let position = self.answers.get(id).map_or(0, |answer| answer.position);
            self.still > limits.of(position)
        });
        for id in &cancel {
            if let Some(answer) = self.answers.remove(id) {
                answer.sink.fail(RpcError::new(
                    Code::Unavailable,
                    "the engine made no progress with this answer in time",
                ));
            }
        }
        Overdue { cancel, is_stuck }
    }

    /// The engine is gone, and with it every answer.
    pub(crate) fn fail_all(self, error: &RpcError) {
        for answer in self.answers.into_values() {
            answer.sink.fail(error.clone());
        }
    }
}

impl StepLimits {
    fn of(self, position: u32) -> u32 {
        if position == 0 { self.first } else { self.next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: StepLimits = StepLimits { first: 5, next: 2 };

    fn chunk(id: u64, position: u32) -> FromEngine {
        FromEngine::Chunk {
            id,
            position,
            tokens: vec![7],
            text: "x".to_owned(),
        }
    }

    fn begin(in_flight: &mut InFlight, id: u64) -> Source {
        let (sink, source) = channel();
        in_flight.begin(id, sink);
        source
    }

    fn end(mut source: Source) -> Result<EngineDone, RpcError> {
        source.end.try_recv().expect("ended")
    }

    #[test]
    fn a_reader_that_is_too_slow_is_cut_off_and_its_neighbour_is_not() {
        let mut in_flight = InFlight::new(LIMITS);
        let mut slow = begin(&mut in_flight, 1);
        let quick = begin(&mut in_flight, 2);
        let limit = u32::try_from(MAX_WAITING_CHUNKS).expect("small");
        for position in 0..limit {
            assert_eq!(in_flight.on_message(chunk(1, position)), None);
        }
        assert_eq!(in_flight.on_message(chunk(1, limit)), Some(1));
        assert_eq!(in_flight.on_message(chunk(2, 0)), None);
        assert_eq!(in_flight.on_message(chunk(1, limit + 1)), None, "forgotten");
        let mut count = 0;
        while slow.chunks.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, limit, "what was delivered stays delivered");
        assert_eq!(end(slow).expect_err("cut off").code, Code::Overloaded);
        assert_eq!(in_flight.len(), 1);
        drop(quick);
    }

    #[test]
    fn a_reader_that_is_gone_is_noticed_at_the_next_chunk() {
        let mut in_flight = InFlight::new(LIMITS);
        drop(begin(&mut in_flight, 1));
        assert_eq!(in_flight.on_message(chunk(1, 0)), Some(1));
        assert!(!in_flight.forget(1));
        let _other = begin(&mut in_flight, 2);
        assert!(in_flight.forget(2));
    }

    #[test]
    fn the_time_for_the_first_token_counts_from_the_turn() {
        let mut in_flight = InFlight::new(LIMITS);
        let mut source = begin(&mut in_flight, 1);
        for _ in 0..LIMITS.first {
            assert_eq!(in_flight.tick(), Overdue::default());
        }
        let started = FromEngine::Started {
            id: 1,
            prompt_tokens: 9,
        };
        assert_eq!(in_flight.on_message(started), None);
        assert_eq!(source.begun.try_recv(), Ok(9));
        for _ in 0..LIMITS.first {
            assert_eq!(in_flight.tick(), Overdue::default());
        }
        assert!(in_flight.tick().is_stuck);
    }

    #[test]
    fn a_gap_in_an_answer_is_an_error_and_never_passed_on() {
        let mut in_flight = InFlight::new(LIMITS);
        let mut source = begin(&mut in_flight, 1);
        assert_eq!(in_flight.on_message(chunk(1, 0)), None);
        assert_eq!(in_flight.on_message(chunk(1, 2)), Some(1));
        assert!(source.chunks.try_recv().is_ok());
        assert!(source.chunks.try_recv().is_err());
        assert_eq!(end(source).expect_err("gap").code, Code::Internal);
    }

    #[test]
    fn one_starved_answer_is_cancelled_and_a_stuck_engine_is_told_apart() {
        let mut in_flight = InFlight::new(LIMITS);
        let starved = begin(&mut in_flight, 1);
        let _fed = begin(&mut in_flight, 2);
        in_flight.on_message(chunk(1, 0));
        let mut overdue = Overdue::default();
        for position in 0..3 {
            in_flight.on_message(chunk(2, position));
            overdue = in_flight.tick();
        }
        assert_eq!(overdue.cancel, [1]);
        assert!(!overdue.is_stuck, "its neighbour makes progress");
        assert_eq!(end(starved).expect_err("late").code, Code::Unavailable);

        assert_eq!(in_flight.tick(), Overdue::default());
        let overdue = in_flight.tick();
        assert_eq!(overdue.cancel, [2]);
        assert!(overdue.is_stuck, "nobody makes progress");
    }

    #[test]
    fn the_first_token_has_more_time_and_idleness_counts_for_nothing() {
        let mut in_flight = InFlight::new(LIMITS);
        for _ in 0..100 {
            assert_eq!(in_flight.tick(), Overdue::default());
        }
        let _reading = begin(&mut in_flight, 1);
        for _ in 0..LIMITS.first {
            assert_eq!(in_flight.tick(), Overdue::default());
        }
        assert!(in_flight.tick().is_stuck);
    }
}
