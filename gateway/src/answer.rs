//! The events of an answer, checked as they come. Pure.
//!
//! A stream that ends without its `Done` did not end well, and is never shown as if it had. [T-INF-8]

use tether_wire::infer::{Accepted, AnswerEvent, Done};
use tether_wire::rpc::{Code, RpcError};

/// Most bytes of text that one answer may have; a context of a million tokens has less.
pub(crate) const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What a tenant gets of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Text, never empty.
    Text(String),
    /// The end.
    Done(Done),
}

/// How far an answer is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    accepted: Option<Accepted>,
    /// Position of the next token. [T-INF-7]
    position: u32,
    bytes: usize,
    done: bool,
}

impl Progress {
    /// The worker that answers; a worker that took over before anything was said replaces the
    /// first.
    pub(crate) fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref()
    }

    /// Takes an event; gives what is to be passed on.
    pub(crate) fn take(&mut self, event: AnswerEvent) -> Result<Option<Piece>, RpcError> {
        if self.done {
            return Err(broken("there is more after its end"));
        }
        match event {
            AnswerEvent::Begun(_) | AnswerEvent::Unknown => Ok(None),
            AnswerEvent::Accepted(accepted) => {
                if self.position == 0 || self.accepted.is_none() {
                    self.accepted = Some(accepted);
                }
                Ok(None)
            }
            _ if self.accepted.is_none() => Err(broken("no worker has taken it")),
            AnswerEvent::Chunk(chunk) => {
                if chunk.position != self.position {
                    return Err(broken(&format!(
                        "a piece for position {} came where {} was due",
                        chunk.position, self.position
                    )));
                }
                let positions = chunk.positions().unwrap_or(u32::MAX);
                self.position = self.position.saturating_add(positions);
                self.bytes = self.bytes.saturating_add(chunk.text.len());
                if self.bytes > MAX_ANSWER_BYTES {
                    return Err(broken("it is longer than any answer may be"));
                }
                Ok((!chunk.text.is_empty()).then_some(Piece::Text(chunk.text)))
            }
            AnswerEvent::Done(done) => {
                self.done = true;
                Ok(Some(Piece::Done(done)))
            }
        }
    }

    /// The call ended: well only after `Done`.
    pub(crate) fn ended(&self) -> Result<(), RpcError> {
        if self.done {
            return Ok(());
        }
        Err(broken("it ended before its end was said"))
    }
}

fn broken(why: &str) -> RpcError {
    RpcError::new(Code::Internal, format!("the answer is broken: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::{Chunk, Finish, Usage};
    use tether_wire::{Digest, NodeId};

    fn accepted(worker: u8) -> AnswerEvent {
        AnswerEvent::Accepted(Accepted {
            worker: NodeId([worker; 32]),
            model: "tiny@1.0".parse().expect("valid"),
            digest: Digest([2; 32]),
            seed: 1,
        })
    }

    fn chunk(position: u32, tokens: usize, text: &str) -> AnswerEvent {
        AnswerEvent::Chunk(Chunk::new(position, vec![7; tokens], text))
    }

    fn done() -> AnswerEvent {
        AnswerEvent::Done(Done {
            finish: Finish::Stop,
            usage: Usage::default(),
            receipt: None,
        })
    }

    #[test]
    fn text_passes_and_held_back_tokens_count() {
        let mut progress = Progress::default();
        assert_eq!(progress.take(accepted(1)), Ok(None));
        assert_eq!(progress.take(accepted(2)), Ok(None), "another took over");
        assert_eq!(progress.take(chunk(0, 2, "")), Ok(None));
        assert_eq!(
            progress.take(chunk(2, 1, "é")),
            Ok(Some(Piece::Text("é".into())))
        );
        assert_eq!(progress.take(accepted(3)), Ok(None));
        assert_eq!(progress.take(AnswerEvent::Unknown), Ok(None));
        assert!(progress.ended().is_err(), "not yet");
        assert!(matches!(progress.take(done()), Ok(Some(Piece::Done(_)))));
        assert_eq!(progress.ended(), Ok(()));
        assert_eq!(progress.accepted().expect("taken").worker, NodeId([2; 32]));
        assert!(progress.take(done()).is_err());
    }

    #[test]
    fn gaps_repetitions_and_endless_answers_are_broken_answers() {
        for wrong in [1, 3] {
            let mut progress = Progress::default();
            progress.take(accepted(1)).expect("taken");
            progress.take(chunk(0, 2, "ab")).expect("in order");
            assert!(progress.take(chunk(wrong, 1, "c")).is_err(), "{wrong}");
        }
        assert!(Progress::default().take(chunk(0, 1, "a")).is_err());
        let mut progress = Progress::default();
        progress.take(accepted(1)).expect("taken");
        let long = "x".repeat(MAX_ANSWER_BYTES + 1);
        assert!(progress.take(chunk(0, 1, &long)).is_err());
    }
}
