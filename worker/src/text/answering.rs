//! An answer being given: everything that follows from its tokens, one by one. Pure.
//!
//! The text, the calls, the grammar and the counts are functions of the tokens from the first on, so
//! whoever has a transcript goes on where it ends. [T-INF-11]

use crate::text::fold::{Detokenize, Fold, Step};
use crate::text::grammar::{Grammar, GrammarError};
use crate::text::retelling::Retelling;
use crate::text::sampler::{Counts, Given, choose};
use std::collections::BTreeSet;
use tether_wire::infer::{Chunk, Finish, Sampling, Usage};
use tether_wire::rpc::{Code, RpcError};

/// An answer so far.
pub struct Answering<D> {
    fold: Fold<D>,
    grammar: Option<Grammar>,
    /// The request's field that the grammar follows from.
    param: &'static str,
    sampling: Sampling,
    counts: Counts,
    /// Tokens of the prompt, where something depends on them.
    prompt: BTreeSet<u32>,
    eos: BTreeSet<u32>,
    /// Number of tokens of the model.
    vocabulary: usize,
    retelling: Retelling,
}

impl<D: Detokenize> Answering<D> {
    /// An answer without tokens.
    pub(crate) fn new(
        fold: Fold<D>,
        sampling: Sampling,
        prompt: &[u32],
        eos: BTreeSet<u32>,
        vocabulary: usize,
    ) -> Self {
        #[expect(clippy::float_cmp, reason = "exactly one is none")]
        let prompt = if sampling.repetition_penalty == 1.0 {
            BTreeSet::new()
        } else {
            prompt.iter().copied().collect()
        };
        Self {
            fold,
            grammar: None,
            param: "response_format",
            sampling,
            counts: Counts::new(),
            prompt,
            eos,
            vocabulary,
            retelling: Retelling::default(),
        }
    }

    /// With a grammar, which follows from this field of the request.
    pub(crate) fn with_grammar(mut self, grammar: Option<Grammar>, param: &'static str) -> Self {
        (self.grammar, self.param) = (grammar, param);
        self
    }

    /// Tokens so far.
    #[must_use]
    pub fn drawn(&self) -> u32 {
        self.fold.drawn()
    }

    /// Why the answer ended, once it has.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.fold.finish()
    }

    /// Exact counts.
    #[must_use]
    pub fn usage(&self, prompt_tokens: u32) -> Usage {
        self.fold.usage(prompt_tokens)
    }

    /// How tokens are drawn.
    #[must_use]
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Draws the next token, a function of these logits and of the tokens so far.
    ///
    /// # Errors
    /// When the grammar allows none, or the logits are no numbers.
    pub fn draw(&mut self, logits: &[f32]) -> Result<u32, RpcError> {
        let mask = self.grammar.as_mut().map(Grammar::mask).transpose();
        let mask = mask.map_err(|error| broken(&error, self.param))?;
        let allows = mask.as_ref().map(|mask| move |id: u32| mask.allows(id));
        let given = Given {
            sampling: &self.sampling,
            drawn: &self.counts,
            prompt: &self.prompt,
            allowed: allows.as_ref().map(|allows| allows as &dyn Fn(u32) -> bool),
        };
        // A model may have more rows than its tokenizer has tokens; they mean nothing.
        let logits = &logits[..logits.len().min(self.vocabulary)];
        choose(self.fold.drawn(), logits, given).ok_or_else(|| {
            RpcError::new(
                Code::Internal,
                "the model gave no logits that are numbers for any token that may come",
            )
        })
    }

    /// Takes the next token; nothing when the answer has ended already.
    ///
    /// # Errors
    /// When the grammar does not allow it.
    pub fn take(&mut self, token: u32) -> Result<Option<Step>, RpcError> {
        if self.finish().is_some() {
            return Ok(None);
        }
        let mut is_whole = false;
        if let Some(grammar) = &mut self.grammar {
            if self.eos.contains(&token) {
                if !grammar.may_end() {
                    let early = GrammarError("the answer ends before its form is whole".into());
                    return Err(broken(&early, self.param));
                }
            } else {
                let taken = grammar.take(token);
                taken.map_err(|error| broken(&error, self.param))?;
                is_whole = grammar.is_over();
            }
        }
        *self.counts.entry(token).or_default() += 1;
        Ok(self.fold.push_and(token, is_whole))
    }

    /// Takes what was given already.
    ///
    /// # Errors
    /// When that cannot have been an answer to this request.
    pub fn take_transcript(&mut self, transcript: &[u32]) -> Result<(), RpcError> {
        let wrong = |why: String| RpcError::new(Code::Invalid, why).with_param("transcript");
        for (at, token) in transcript.iter().enumerate() {
            if *token as usize >= self.vocabulary {
                let why = format!("the transcript's token {token} at {at} is none of the model");
                return Err(wrong(why));
            }
            let taken = self.take(*token).map_err(|error| {
                wrong(format!(
                    "the transcript does not follow the form that is asked for, at {at}: {error}"
                ))
            })?;
            let Some(step) = taken else {
                return Err(wrong(format!(
                    "the transcript goes on behind the answer's end, which is at {at}"
                )));
            };
            self.retelling.take(step.chunk);
        }
        Ok(())
    }

    /// What was given already, to be told to the worker; once.
    #[cfg_attr(
        not(feature = "mistralrs"),
        expect(dead_code, reason = "needs the engine")
    )]
    pub(crate) fn retelling(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.retelling).into_pieces()
    }
}

/// The answer cannot follow its grammar: the same everywhere, so another worker would not do better.
fn broken(error: &GrammarError, param: &str) -> RpcError {
    RpcError::new(Code::Invalid, format!("{param}: {error}")).with_param(param)
}
