//! Whether what a worker answers is what was ordered. Pure. [T-INF-7] [T-INF-8]
//!
//! Tenants are billed by what passes here, so that nothing is taken on trust: positions have no
//! gaps, and the counts at the end agree with what was said and seen before.

use tether_wire::infer::{
    Accepted, AnswerEvent, Begun, Chunk, Done, MAX_UNSEEN_TOKENS, PromptSize, WorkOrder,
};
use tether_wire::receipt::hash::Given;
use tether_wire::rpc::{Code, RpcError};
use tether_wire::{Digest, ModelRef, NodeId};

/// What was ordered, as far as an answer can be held against it.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    worker: NodeId,
    model: ModelRef,
    digest: Digest,
    seed: u64,
    /// Most tokens that the prompt can have, and that the answer may have.
    most_prompt: u32,
    most_tokens: u32,
    logprobs: bool,
    accepted: bool,
    prompt_tokens: Option<u32>,
    chunks: bool,
    position: u32,
    /// What was given already, and is told again first. [T-INF-11]
    transcript: Vec<u32>,
    /// Tokens that may still come without an id: what is billed must be seen in some way.
    unnamed_left: u32,
    given: Given,
    done: bool,
}

/// A checked event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    /// The worker took the order.
    Accepted(Accepted),
    /// The engine turned to the request.
    Begun(Begun),
    /// A piece of what was given already.
    Again(Chunk),
    /// The next piece.
    Chunk(Chunk),
    /// The end, with counts that agree.
    Done(Done),
    /// Something of a later version, to be ignored.
    Nothing,
}

impl Check {
    /// For the answer of one worker to one order.
    /// `context_tokens`: of the model that is asked, prompt and answer together. Each is held against
    /// it alone: servers beside a worker are not believed, and their counts estimates. [T-INF-8]
    pub(crate) fn new(worker: NodeId, order: &WorkOrder, context_tokens: u32) -> Self {
        let most_prompt = PromptSize::of(&order.input, &order.output).most_tokens();
        let max_tokens = order.sampling.max_tokens.unwrap_or(u32::MAX);
        Self {
            worker,
            model: order.model.clone(),
            digest: order.digest,
            seed: order.sampling.seed.unwrap_or_default(),
            most_prompt: most_prompt.min(context_tokens),
            most_tokens: max_tokens.min(context_tokens),
            logprobs: order.sampling.top_logprobs.is_some(),
            accepted: false,
            prompt_tokens: None,
            chunks: false,
            position: 0,
            transcript: order.transcript.clone(),
            unnamed_left: MAX_UNSEEN_TOKENS,
            given: Given::default(),
            done: false,
        }
    }

    /// Tokens that were seen.
    #[cfg(test)]
    fn tokens(&self) -> u32 {
        self.position
    }

    /// Tokens of the prompt, once the worker told them.
    pub(crate) fn prompt_tokens(&self) -> Option<u32> {
        self.prompt_tokens
    }

    /// What was seen of the answer, as its receipt says it.
    pub(crate) fn given(&self) -> &Given {
        &self.given
    }

    /// Looks at the next event.
    ///
    /// # Errors
    /// [`Code::Internal`]: the worker breaks the protocol.
    pub(crate) fn take(&mut self, event: AnswerEvent) -> Result<Seen, RpcError> {
        let short = self.worker.short();
        let wrong = |what: String| RpcError::new(Code::Internal, format!("worker {short} {what}"));
        if self.done {
            return Err(wrong("goes on after the end".to_owned()));
        }
        match event {
            AnswerEvent::Unknown => Ok(Seen::Nothing),
            AnswerEvent::Accepted(_) if self.accepted => {
                Err(wrong("accepts the same order twice".to_owned()))
            }
            AnswerEvent::Accepted(it) => {
                let agrees = it.worker == self.worker
                    && it.model == self.model
                    && it.digest == self.digest
                    && it.seed == self.seed;
                if !agrees {
                    return Err(wrong("accepts another order than it was given".to_owned()));
                }
                self.accepted = true;
                Ok(Seen::Accepted(it))
            }
            AnswerEvent::Begun(_) | AnswerEvent::Chunk(_) | AnswerEvent::Done(_)
                if !self.accepted =>
            {
                Err(wrong("answers what it did not accept".to_owned()))
            }
            AnswerEvent::Begun(_) if self.prompt_tokens.is_some() || self.chunks => {
                Err(wrong("begins an answer that it began already".to_owned()))
            }
            AnswerEvent::Begun(begun) => {
                self.believe(begun.prompt_tokens).map_err(wrong)?;
                self.prompt_tokens = Some(begun.prompt_tokens);
                Ok(Seen::Begun(begun))
            }
            AnswerEvent::Chunk(chunk) => {
                if chunk.position != self.position {
                    return Err(wrong(format!(
                        "sends position {} where {} is next",
                        chunk.position, self.position
                    )));
                }
                let total = (chunk.positions())
                    .and_then(|count| self.position.checked_add(count))
                    .filter(|total| *total <= self.most_tokens)
                    .ok_or_else(|| wrong("sends more tokens than were ordered".to_owned()))?;
                let is_told_again = self.is_told_again(&chunk).map_err(wrong)?;
                let asked = if self.logprobs && !is_told_again {
                    chunk.tokens.len()
                } else {
                    0
                };
                if chunk.logprobs.len() != asked {
                    return Err(wrong(format!(
                        "tells how likely {} tokens were where {asked} were asked for",
                        chunk.logprobs.len()
                    )));
                }
                let bytes = u32::try_from(chunk.bytes()).unwrap_or(u32::MAX);
                self.unnamed_left = self
                    .unnamed_left
                    .saturating_add(bytes)
                    .checked_sub(chunk.unnamed)
                    .ok_or_else(|| wrong("counts tokens that nobody sees".to_owned()))?;
                self.position = total;
                self.given.take(&chunk);
                self.chunks = true;
                Ok(if is_told_again {
                    Seen::Again(chunk)
                } else {
                    Seen::Chunk(chunk)
                })
            }
            AnswerEvent::Done(done) => {
                if done.usage.completion_tokens != self.position {
                    return Err(wrong(format!(
                        "counts {} tokens where {} were sent",
                        done.usage.completion_tokens, self.position
                    )));
                }
                if let Some(said) = self.prompt_tokens
                    && said != done.usage.prompt_tokens
                {
                    return Err(wrong(format!(
                        "counts {} tokens of the prompt after it said {said}",
                        done.usage.prompt_tokens
                    )));
                }
                self.believe(done.usage.prompt_tokens).map_err(wrong)?;
                if self.is_behind() {
                    return Err(wrong("ends before all was told that was given".to_owned()));
                }
                self.done = true;
                Ok(Seen::Done(done))
            }
        }
    }

    /// Whether not all of what was given already was told again.
    pub(crate) fn is_behind(&self) -> bool {
        (self.position as usize) < self.transcript.len()
    }

    /// Whether a piece is of what was given already, and not of both.
    fn is_told_again(&self, chunk: &Chunk) -> Result<bool, String> {
        if !self.is_behind() {
            return Ok(false);
        }
        let rest = &self.transcript[self.position as usize..];
        // Each has some of the tokens, so that there is an end of them.
        if chunk.unnamed > 0 || chunk.tokens.is_empty() || !rest.starts_with(&chunk.tokens) {
            return Err("does not go on from what was given".to_owned());
        }
        Ok(true)
    }

    /// Whether a prompt can have so many tokens.
    fn believe(&self, prompt_tokens: u32) -> Result<(), String> {
        if prompt_tokens > self.most_prompt {
            let most = self.most_prompt;
            return Err(format!(
                "counts {prompt_tokens} tokens of a prompt that can have {most} at most"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_wire::infer::{Finish, Input, Output, Sampling, TokenLogprob, Usage};
    use tether_wire::{CorrelationId, TenantId};

    const CONTEXT: u32 = 8_192;

    fn order() -> WorkOrder {
        WorkOrder {
            correlation: CorrelationId([1; 16]),
            attempt: 1,
            fence: 1,
            tenant: TenantId::new("t").expect("valid"),
            model: "tiny@1.0".parse().expect("valid"),
            digest: Digest([7; 32]),
            input: Input::Text("x".into()),
            sampling: Sampling {
                seed: Some(5),
                max_tokens: Some(4),
                ..Sampling::default()
            },
            output: Output::default(),
            transcript: Vec::new(),
        }
    }

    fn accepted() -> Accepted {
        Accepted {
            worker: NodeId([2; 32]),
            model: "tiny@1.0".parse().expect("valid"),
            digest: Digest([7; 32]),
            seed: 5,
            numerics_class: String::new(),
            created_ms: 0,
            degraded_from: None,
            max_tokens: None,
        }
    }

    fn chunk(position: u32, tokens: usize) -> AnswerEvent {
        AnswerEvent::Chunk(Chunk::new(position, vec![1; tokens], "x"))
    }

    fn done(completion_tokens: u32) -> AnswerEvent {
        AnswerEvent::Done(Done {
            finish: Finish::Stop,
            usage: Usage {
                prompt_tokens: 3,
                completion_tokens,
            },
            receipt: None,
        })
    }

    fn begun(prompt_tokens: u32) -> AnswerEvent {
        AnswerEvent::Begun(Begun { prompt_tokens })
    }

    fn check(events: Vec<AnswerEvent>) -> Result<u32, String> {
        check_order(&order(), events)
    }

    fn check_order(order: &WorkOrder, events: Vec<AnswerEvent>) -> Result<u32, String> {
        let mut check = Check::new(NodeId([2; 32]), order, CONTEXT);
        for event in events {
            check.take(event).map_err(|error| {
                assert_eq!(error.code, Code::Internal);
                error.message
            })?;
        }
        Ok(check.tokens())
    }

    #[test]
    fn a_whole_answer_passes_with_its_count() {
        let yes = AnswerEvent::Accepted(accepted());
        let events = vec![
            yes.clone(),
            chunk(0, 2),
            AnswerEvent::Unknown,
            chunk(2, 0),
            chunk(2, 1),
            done(3),
        ];
        assert_eq!(check(events), Ok(3));
        assert_eq!(check(vec![yes.clone(), done(0)]), Ok(0), "an empty answer");
        assert_eq!(check(vec![yes, begun(3), chunk(0, 1), done(1)]), Ok(1));
    }

    /// [T-INF-11]
    #[test]
    fn an_answer_that_goes_on_tells_first_what_was_given() {
        let order = WorkOrder {
            transcript: vec![1, 1],
            ..order()
        };
        let yes = || AnswerEvent::Accepted(accepted());
        let passes = |events| check_order(&order, events);
        assert_eq!(
            passes(vec![yes(), chunk(0, 2), chunk(2, 1), done(3)]),
            Ok(3)
        );
        assert_eq!(
            passes(vec![yes(), chunk(0, 1), chunk(1, 1), done(2)]),
            Ok(2)
        );
        let fails = |events, words: &str| {
            let message = check_order(&order, events).expect_err(words);
            assert!(message.contains(words), "{message}");
        };
        fails(vec![yes(), chunk(2, 1)], "position 2 where 0");
        fails(vec![yes(), chunk(0, 3)], "does not go on");
        fails(
            vec![yes(), chunk(0, 1), done(1)],
            "ends before all was told",
        );
        let other = AnswerEvent::Chunk(Chunk::new(0, vec![1, 2], "x"));
        fails(vec![yes(), other], "does not go on");
        fails(vec![yes(), chunk(0, 2), chunk(2, 3)], "more tokens than");
    }

    #[test]
    fn tokens_without_ids_have_positions_and_no_more_than_the_text_can_stand_for() {
        let order = WorkOrder {
            sampling: Sampling {
                max_tokens: None,
                seed: Some(5),
                ..Sampling::default()
            },
            ..order()
        };
        let unnamed = |position, unnamed| {
            AnswerEvent::Chunk(Chunk {
                position,
                text: "four".into(),
                unnamed,
                ..Chunk::default()
            })
        };
        let mut check = Check::new(NodeId([2; 32]), &order, CONTEXT);
        let yes = AnswerEvent::Accepted(accepted());
        for event in [yes, unnamed(0, 3), unnamed(3, MAX_UNSEEN_TOKENS + 5)] {
            check
                .take(event)
                .expect("as many as there are bytes, and some");
        }
        assert_eq!(check.tokens(), MAX_UNSEEN_TOKENS + 8);
        let more = unnamed(MAX_UNSEEN_TOKENS + 8, 5);
        let error = check.take(more).expect_err("one too many");
        assert!(error.message.contains("nobody sees"), "{error}");
    }

    /// [T-INF-8]
    #[test]
    fn a_prompt_costs_no_more_than_it_can_and_an_answer_fits_the_context() {
        let yes = || AnswerEvent::Accepted(accepted());
        let ends = |prompt_tokens| {
            AnswerEvent::Done(Done {
                finish: Finish::Stop,
                usage: Usage {
                    prompt_tokens,
                    completion_tokens: 0,
                },
                receipt: None,
            })
        };
        let most = 1 + 64 + 4_096;
        assert_eq!(check(vec![yes(), begun(most), ends(most)]), Ok(0));
        for count in [most + 1, u32::MAX] {
            for wrong in [begun(count), ends(count)] {
                let message = check(vec![yes(), wrong]).expect_err("too many");
                assert!(message.contains("can have 4161 at most"), "{message}");
            }
        }
        let mut order = order();
        order.input = Input::Text("x".repeat(100_000));
        order.sampling.max_tokens = None;
        let tell = |event| check_order(&order, vec![yes(), event]).map(|_| ());
        assert_eq!(tell(begun(CONTEXT)), Ok(()));
        assert!(tell(begun(CONTEXT + 1)).is_err());
        assert_eq!(tell(chunk(0, CONTEXT as usize)), Ok(()));
        assert!(tell(chunk(0, CONTEXT as usize + 1)).is_err());
    }

    #[test]
    fn gaps_repeats_and_wrong_counts_are_caught() {
        let yes = || AnswerEvent::Accepted(accepted());
        let fails = |events, words: &str| {
            let message = check(events).expect_err(words);
            assert!(message.contains(words), "{message}");
        };
        fails(vec![yes(), chunk(0, 1), chunk(2, 1)], "position 2 where 1");
        fails(vec![yes(), chunk(0, 2), chunk(1, 1)], "position 1 where 2");
        fails(vec![yes(), chunk(1, 1)], "position 1 where 0");
        fails(vec![yes(), chunk(0, 2), done(3)], "counts 3 tokens where 2");
        fails(vec![yes(), chunk(0, 5)], "more tokens than were ordered");
        fails(vec![yes(), done(0), chunk(0, 1)], "after the end");
        fails(vec![yes(), yes()], "twice");
        fails(vec![chunk(0, 1)], "did not accept");
        fails(vec![done(0)], "did not accept");
        fails(vec![begun(3)], "did not accept");
        fails(vec![yes(), begun(3), begun(3)], "began already");
        fails(vec![yes(), chunk(0, 1), begun(3)], "began already");
        fails(
            vec![yes(), begun(4), done(0)],
            "3 tokens of the prompt after it said 4",
        );
    }

    #[test]
    fn an_acceptance_of_something_else_is_caught() {
        type Change = fn(&mut Accepted);
        let changes: [Change; 4] = [
            |a| a.worker = NodeId([9; 32]),
            |a| a.digest = Digest([9; 32]),
            |a| a.seed = 6,
            |a| a.model = "tiny@1.1".parse().expect("valid"),
        ];
        for change in changes {
            let mut other = accepted();
            change(&mut other);
            assert!(check(vec![AnswerEvent::Accepted(other)]).is_err());
        }
    }

    /// [T-INF-12]
    #[test]
    fn each_token_has_its_logprob_where_they_were_ordered_and_none_elsewhere() {
        let likely = TokenLogprob {
            token: 1,
            logprob: -0.5,
            bytes: b"x".to_vec(),
            top: Vec::new(),
        };
        let take = |ordered, tokens: usize, logprobs: usize| {
            let mut order = order();
            order.sampling.top_logprobs = ordered;
            let chunk = Chunk {
                logprobs: vec![likely.clone(); logprobs],
                ..Chunk::new(0, vec![1; tokens], "x")
            };
            let accepted = AnswerEvent::Accepted(accepted());
            check_order(&order, vec![accepted, AnswerEvent::Chunk(chunk)]).is_ok()
        };
        assert!(take(Some(0), 2, 2) && take(None, 2, 0));
        let again = WorkOrder {
            transcript: vec![1, 1],
            ..order()
        };
        let mut asked = again.clone();
        asked.sampling.top_logprobs = Some(0);
        let events = || vec![AnswerEvent::Accepted(accepted()), chunk(0, 2)];
        assert_eq!(check_order(&asked, events()), Ok(2), "told again without");
        assert!(!take(Some(0), 2, 0) && !take(Some(0), 1, 2) && !take(None, 1, 1));
    }

    #[test]
    fn what_is_told_again_has_tokens_so_that_there_is_an_end_of_it() {
        let order = WorkOrder {
            transcript: vec![1, 1],
            ..order()
        };
        let nothing = AnswerEvent::Chunk(Chunk::new(0, Vec::new(), "x"));
        let events = vec![AnswerEvent::Accepted(accepted()), nothing];
        let message = check_order(&order, events).expect_err("endless");
        assert!(message.contains("does not go on from"), "{message}");
    }
}
