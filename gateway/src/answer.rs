//! The events of an answer, checked as they come. Pure.
//!
//! A stream that ends without its `Done` did not end well, and is never shown as if it had. [T-INF-8]
//! Where the one that gave it is lost, another tells it from its beginning and goes on. [T-INF-13]

mod again;

use again::{Again, Amount, Differs, Told};
use tether_wire::NodeId;
use tether_wire::infer::{
    Accepted, AnswerEvent, CallDelta, Chunk, Done, MAX_CALL_ID_BYTES, MAX_TOOL_CALLS,
    MAX_TRANSCRIPT_TOKENS, Started, TokenLogprob, is_tool_name,
};
use tether_wire::receipt::hash::Given;
use tether_wire::rpc::{Code, RpcError};

/// Most bytes of text and calls that one answer may have; a context of a million tokens has less.
pub(crate) const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// What a tenant gets of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Piece {
    /// More of it.
    Part(Part),
    /// The end.
    Done(Done),
}

/// More of an answer; something of it is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Part {
    pub(crate) text: String,
    /// One for each token, where they were asked for.
    pub(crate) logprobs: Vec<TokenLogprob>,
    /// Calls of tools, whose deltas are in order.
    pub(crate) calls: Vec<CallDelta>,
}

impl Part {
    /// Whether it has no text beside its calls.
    pub(crate) fn only_calls(&self) -> bool {
        self.text.is_empty() && !self.calls.is_empty()
    }
}

/// How far an answer is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Whether logarithmic probabilities were asked for.
    logprobs: bool,
    accepted: Option<Accepted>,
    /// What was given, [T-INF-7] and its tokens as far as they can be gone on from.
    amount: Amount,
    given: Given,
    transcript: Vec<u32>,
    /// Who gave it last, and in which class.
    worker: Option<NodeId>,
    numerics_class: String,
    /// While it is told again.
    again: Option<Again>,
    bytes: usize,
    /// Calls that have begun.
    calls: u32,
    done: bool,
}

impl Progress {
    pub(crate) fn new(logprobs: bool) -> Self {
        Self {
            logprobs,
            ..Self::default()
        }
    }

    /// The worker that answers; a worker that took over before anything was said replaces the
    /// first.
    pub(crate) fn accepted(&self) -> Option<&Accepted> {
        self.accepted.as_ref()
    }

    /// What another one needs to go on; nothing before it began.
    pub(crate) fn started(&self) -> Option<Started> {
        let accepted = self.accepted.as_ref()?;
        // Without all their ids tokens cannot be gone on from.
        let is_named = self.transcript.len() == self.amount.positions as usize;
        Some(Started {
            model: Some(accepted.model.clone()),
            degraded_from: accepted.degraded_from.clone(),
            digest: accepted.digest,
            seed: accepted.seed,
            numerics_class: self.numerics_class.clone(),
            worker: self.worker,
            transcript: if is_named {
                self.transcript.clone()
            } else {
                Vec::new()
            },
        })
    }

    /// Another one tells it from its beginning.
    pub(crate) fn begin_again(&mut self) {
        self.again = Some(Again::default());
    }

    /// Takes an event; gives what is to be passed on.
    pub(crate) fn take(&mut self, event: AnswerEvent) -> Result<Option<Piece>, RpcError> {
        if self.done {
            return Err(broken("there is more after its end"));
        }
        match event {
            AnswerEvent::Begun(_) | AnswerEvent::Unknown => Ok(None),
            AnswerEvent::Accepted(accepted) => {
                self.worker = Some(accepted.worker);
                self.numerics_class.clone_from(&accepted.numerics_class);
                if self.amount == Amount::default() || self.accepted.is_none() {
                    self.accepted = Some(accepted);
                }
                Ok(None)
            }
            _ if self.accepted.is_none() => Err(broken("no worker has taken it")),
            AnswerEvent::Chunk(chunk) => {
                let Some(chunk) = self.new_of(chunk)? else {
                    return Ok(None);
                };
                let part = self.chunk(chunk)?;
                Ok((part != Part::default()).then_some(Piece::Part(part)))
            }
            AnswerEvent::Done(_) if self.again.is_some() && self.amount != Amount::default() => {
                Err(broken("it ends before all was told that was given"))
            }
            AnswerEvent::Done(done) => {
                self.done = true;
                Ok(Some(Piece::Done(done)))
            }
        }
    }

    /// What of a piece is new.
    fn new_of(&mut self, chunk: Chunk) -> Result<Option<Chunk>, RpcError> {
        let due = match &self.again {
            Some(again) => again.position(),
            None => self.amount.positions,
        };
        if chunk.position != due {
            return Err(broken(&format!(
                "a piece for position {} came where {due} was due",
                chunk.position
            )));
        }
        let Some(again) = &mut self.again else {
            return Ok(Some(chunk));
        };
        match again.take(chunk, &self.amount, &self.given) {
            Ok(Told::Known) => Ok(None),
            Ok(Told::Rest(rest)) => {
                self.again = None;
                Ok(Some(rest))
            }
            Err(Differs) => Err(broken("it goes on as another answer than was given")),
        }
    }

    fn chunk(&mut self, chunk: Chunk) -> Result<Part, RpcError> {
        self.amount.add(&chunk);
        self.given.take(&chunk);
        if self.transcript.len() + chunk.tokens.len() <= MAX_TRANSCRIPT_TOKENS {
            self.transcript.extend_from_slice(&chunk.tokens);
        }
        // Those without an id have none. [T-INF-12]
        let told = if self.logprobs { chunk.tokens.len() } else { 0 };
        if chunk.logprobs.len() != told {
            return Err(broken(&format!(
                "a piece of {} tokens has {} logprobs where {told} were due",
                chunk.tokens.len(),
                chunk.logprobs.len()
            )));
        }
        self.bytes = self.bytes.saturating_add(chunk.text.len());
        for call in &chunk.calls {
            self.call(call)?;
        }
        if self.bytes > MAX_ANSWER_BYTES {
            return Err(broken("it is longer than any answer may be"));
        }
        Ok(Part {
            text: chunk.text,
            logprobs: chunk.logprobs,
            calls: chunk.calls,
        })
    }

    /// A call begins behind those before it, with its id and its tool; later deltas have neither.
    fn call(&mut self, delta: &CallDelta) -> Result<(), RpcError> {
        let first = match (&delta.id, &delta.name) {
            (Some(id), Some(name)) => {
                self.bytes = self.bytes.saturating_add(id.len() + name.len());
                let fits = id.len() <= MAX_CALL_ID_BYTES && is_tool_name(name);
                Some(fits && usize::try_from(self.calls).is_ok_and(|it| it < MAX_TOOL_CALLS))
            }
            (None, None) => None,
            _ => Some(false),
        };
        self.bytes = self.bytes.saturating_add(delta.arguments.len());
        let in_order = match first {
            Some(fits) => fits && delta.index == self.calls,
            None => delta.index < self.calls,
        };
        if !in_order {
            return Err(broken("a call of a tool is not where it belongs"));
        }
        self.calls += u32::from(first.is_some());
        Ok(())
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
    use tether_wire::Digest;
    use tether_wire::infer::{Chunk, Finish, Usage};

    fn accepted(worker: u8) -> AnswerEvent {
        AnswerEvent::Accepted(Accepted {
            worker: NodeId([worker; 32]),
            model: "tiny@1.0".parse().expect("valid"),
            digest: Digest([2; 32]),
            seed: 1,
            numerics_class: String::new(),
            created_ms: 0,
            degraded_from: None,
            max_tokens: None,
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
            Ok(Some(Piece::Part(Part {
                text: "é".into(),
                ..Part::default()
            })))
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

    /// [T-INF-13]
    #[test]
    fn an_answer_told_again_goes_on_where_it_was_and_another_one_breaks() {
        let begun = || {
            let mut progress = Progress::default();
            progress.take(accepted(1)).expect("taken");
            progress.take(chunk(0, 2, "ab")).expect("in order");
            progress.begin_again();
            progress.take(accepted(2)).expect("taken");
            progress
        };
        let mut progress = begun();
        let started = progress.started().expect("it began");
        assert_eq!((started.transcript, started.seed), (vec![7, 7], 1));
        assert_eq!(
            started.worker,
            Some(NodeId([2; 32])),
            "the last that had it"
        );
        assert_eq!(progress.take(chunk(0, 1, "a")), Ok(None));
        let rest = progress.take(chunk(1, 2, "bc")).expect("the same");
        let Some(Piece::Part(part)) = rest else {
            panic!("{rest:?}")
        };
        assert_eq!(part.text, "c");
        assert_eq!(progress.accepted().expect("taken").worker, NodeId([1; 32]));
        assert!(matches!(progress.take(done()), Ok(Some(Piece::Done(_)))));
        let wrong = [chunk(0, 2, "xb"), chunk(1, 1, "a"), done()];
        for wrong in wrong {
            assert!(begun().take(wrong.clone()).is_err(), "{wrong:?}");
        }
        assert_eq!(Progress::default().started(), None);
    }

    fn call(index: u32, id: Option<&str>, arguments: &str) -> CallDelta {
        CallDelta {
            index,
            id: id.map(str::to_owned),
            name: id.map(|_| "say".to_owned()),
            arguments: arguments.to_owned(),
        }
    }

    fn calling(calls: Vec<CallDelta>) -> AnswerEvent {
        AnswerEvent::Chunk(Chunk {
            calls,
            ..Chunk::default()
        })
    }

    #[test]
    fn calls_of_tools_pass_in_their_order_and_others_break_the_answer() {
        let begun = || {
            let mut progress = Progress::default();
            progress.take(accepted(1)).expect("taken");
            let calls = vec![call(0, Some("a"), ""), call(0, None, "{}")];
            let piece = progress.take(calling(calls.clone())).expect("in order");
            let part = Part {
                calls,
                ..Part::default()
            };
            assert_eq!(piece, Some(Piece::Part(part)));
            progress
        };
        let next = calling(vec![call(1, Some("b"), "{"), call(0, None, " ")]);
        assert!(begun().take(next).is_ok());
        let mut unnamed = call(1, Some("b"), "");
        unnamed.name = None;
        let mut odd = call(1, Some("b"), "");
        odd.name = Some("no name".to_owned());
        for wrong in [
            call(1, None, "{"),
            call(0, Some("a"), ""),
            call(2, Some("c"), ""),
            call(1, Some(&"x".repeat(MAX_CALL_ID_BYTES + 1)), ""),
            unnamed,
            odd,
        ] {
            assert!(
                begun().take(calling(vec![wrong.clone()])).is_err(),
                "{wrong:?}"
            );
        }
        let mut progress = begun();
        for index in 1..128 {
            let more = calling(vec![call(index, Some("b"), "")]);
            progress.take(more).expect("as many as there may be");
        }
        let more = calling(vec![call(128, Some("b"), "")]);
        assert!(progress.take(more).is_err());
        let long = calling(vec![call(0, None, &"x".repeat(MAX_ANSWER_BYTES))]);
        assert!(begun().take(long).is_err());
    }

    #[test]
    fn each_token_has_its_logprob_where_they_were_asked_for_and_none_elsewhere() {
        let likely = TokenLogprob {
            token: 7,
            logprob: -0.5,
            bytes: b"a".to_vec(),
            top: Vec::new(),
        };
        let take = |asked, tokens: usize, logprobs: usize| {
            let mut progress = Progress::new(asked);
            progress.take(accepted(1)).expect("taken");
            progress.take(AnswerEvent::Chunk(Chunk {
                logprobs: vec![likely.clone(); logprobs],
                ..Chunk::new(0, vec![7; tokens], "")
            }))
        };
        let Ok(Some(Piece::Part(part))) = take(true, 2, 2) else {
            panic!("tokens without text have logprobs");
        };
        assert_eq!(part.logprobs.len(), 2);
        assert_eq!(take(false, 2, 0), Ok(None));
        assert_eq!(take(true, 0, 0), Ok(None));
        for (asked, tokens, logprobs) in [(true, 2, 0), (true, 2, 3), (false, 2, 2)] {
            assert!(take(asked, tokens, logprobs).is_err());
        }
    }
}
