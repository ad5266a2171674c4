//! The logits processor: chooses each token of one answer, and says so at once.
//!
//! mistral.rs calls it once for each step of a sequence, with the prompt and the tokens so far; it
//! gives back logits of which only the chosen one can win, so what was recorded is what was drawn.
//! When the answer is over it fails instead, which ends the sequence at once: mistral.rs notices the
//! end of a stream only when it has whole characters to send.
//!
//! Tokens that were given already are forced in the same way: the steps are those of the answer that
//! gave them, and only what is behind them is drawn and said.

use crate::engine::child::answer::{Answer, Times};
use crate::text::answering::Answering;
use crate::text::logprobs::logprob;
use crate::text::prompt::Prompt;
use crate::text::tokenizer::TextTokenizer;
use mistralrs::{CustomLogitsProcessor, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::rpc::{Code, RpcError};

/// Replayed tokens after which it is said that the answer makes progress.
const REPLAYED_PER_SIGN: u32 = 16;

/// The processor of one answer.
pub(super) struct Chooser {
    prompt_len: usize,
    /// Tokens that were given already.
    transcript: Vec<u32>,
    tokenizer: Arc<TextTokenizer>,
    answer: Answer,
    progress: Mutex<Progress>,
}

struct Progress {
    answering: Answering<Arc<TextTokenizer>>,
    times: Option<Times>,
    failed: bool,
}

impl Chooser {
    /// `answering` took the transcript already.
    pub(super) fn new(
        prompt: &Prompt,
        transcript: Vec<u32>,
        tokenizer: Arc<TextTokenizer>,
        answering: Answering<Arc<TextTokenizer>>,
        answer: Answer,
    ) -> Self {
        Self {
            prompt_len: prompt.tokens.len(),
            transcript,
            tokenizer,
            answer,
            progress: Mutex::new(Progress {
                answering,
                times: None,
                failed: false,
            }),
        }
    }

    /// Whether the answer has ended, well or not, or is not wanted any more.
    pub(super) fn is_over(&self) -> bool {
        self.answer.cancellation().is_cancelled() || self.progress().is_over()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token at this position; nothing when the answer is over, with or before it.
    fn next(&self, position: u32, logits: &[f32]) -> Option<u32> {
        let mut progress = self.progress();
        if self.answer.cancellation().is_cancelled() || progress.is_over() {
            return None;
        }
        if let Some(given) = self.transcript.get(position as usize) {
            if position.is_multiple_of(REPLAYED_PER_SIGN) {
                self.answer.replayed();
            }
            return Some(*given);
        }
        match self.draw(&mut progress, position, logits) {
            Ok(token) => (!progress.is_over()).then_some(token),
            Err(error) => {
                progress.failed = true;
                self.answer.failed(error);
                None
            }
        }
    }

    fn draw(
        &self,
        progress: &mut Progress,
        position: u32,
        logits: &[f32],
    ) -> Result<u32, RpcError> {
        let answering = &mut progress.answering;
        let drawn = answering.drawn();
        if position != drawn {
            return Err(RpcError::new(
                Code::Internal,
                format!("the engine is at token {position} of an answer that has {drawn}"),
            ));
        }
        let token = answering.draw(logits)?;
        let times = progress.times.get_or_insert_with(Times::first_token);
        times.token();
        let times = *times;
        if let Some(mut step) = answering.take(token)? {
            if let Some(top) = answering.sampling().top_logprobs {
                let known = &logits[..logits.len().min(self.tokenizer.vocabulary())];
                let bytes = |id| self.tokenizer.bytes(id);
                step.chunk.logprobs = vec![logprob(known, token, usize::from(top), bytes)];
            }
            self.answer.chunk(step.chunk);
            if let Some(finish) = step.finish {
                let prompt_tokens = u32::try_from(self.prompt_len).unwrap_or(u32::MAX);
                let usage = answering.usage(prompt_tokens);
                self.answer.done(finish, usage, times);
            }
        }
        Ok(token)
    }
}

impl Progress {
    fn is_over(&self) -> bool {
        self.failed || self.answering.finish().is_some()
    }
}

impl CustomLogitsProcessor for Chooser {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
        let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let position = context.len().saturating_sub(self.prompt_len);
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        let token = self
            .next(position, &values)
            .ok_or_else(|| candle_core::Error::msg("the answer is over"))?;
        let mut only = vec![0f32; values.len()];
        if let Some(chosen) = only.get_mut(token as usize) {
            *chosen = 1.0;
        }
        Tensor::from_vec(only, logits.shape(), logits.device())
    }
}
