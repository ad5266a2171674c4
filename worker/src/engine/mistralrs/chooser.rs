//! The logits processor: chooses each token of one answer, and says so at once.
//!
//! mistral.rs calls it once for each step of a sequence, with the prompt and the tokens so far; it
//! gives back logits of which only the chosen one can win, so what was recorded is what was drawn.
//! When the answer is over it fails instead, which ends the sequence at once: mistral.rs notices the
//! end of a stream only when it has whole characters to send.

use crate::engine::child::answer::{Answer, Times};
use crate::text::fold::Fold;
use crate::text::prompt::Prompt;
use crate::text::sampler::{Counts, choose};
use crate::text::tokenizer::TextTokenizer;
use mistralrs::{CustomLogitsProcessor, Tensor};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tether_wire::infer::Sampling;
use tether_wire::rpc::{Code, RpcError};

/// The processor of one answer.
pub(super) struct Chooser {
    prompt_len: usize,
    vocabulary: usize,
    sampling: Sampling,
    answer: Answer,
    progress: Mutex<Progress>,
}

struct Progress {
    fold: Fold<Arc<TextTokenizer>>,
    counts: Counts,
    times: Option<Times>,
    failed: bool,
}

impl Chooser {
    pub(super) fn new(
        prompt: &Prompt,
        vocabulary: usize,
        sampling: Sampling,
        fold: Fold<Arc<TextTokenizer>>,
        answer: Answer,
    ) -> Self {
        Self {
            prompt_len: prompt.tokens.len(),
            vocabulary,
            sampling,
            answer,
            progress: Mutex::new(Progress {
                fold,
                counts: Counts::new(),
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
        match self.draw(&mut progress, position, logits) {
            Ok(token) => (!progress.is_over()).then_some(token),
            Err(why) => {
                progress.failed = true;
                self.answer.failed(RpcError::new(Code::Internal, why));
                None
            }
        }
    }

    fn draw(&self, progress: &mut Progress, position: u32, logits: &[f32]) -> Result<u32, String> {
        let drawn = progress.fold.drawn();
        if position != drawn {
            return Err(format!(
                "the engine is at token {position} of an answer that has {drawn}"
            ));
        }
        // A model may have more rows than its tokenizer has tokens; they mean nothing.
        let logits = &logits[..logits.len().min(self.vocabulary)];
        let token = choose(position, logits, &self.sampling, &progress.counts)
            .ok_or("the model gave no logits that are numbers")?;
        *progress.counts.entry(token).or_default() += 1;
        let times = progress.times.get_or_insert_with(Times::first_token);
        times.token();
        let times = *times;
        if let Some(step) = progress.fold.push(token) {
            self.answer.chunk(step.chunk);
            if let Some(finish) = step.finish {
                let prompt_tokens = u32::try_from(self.prompt_len).unwrap_or(u32::MAX);
                self.answer
                    .done(finish, progress.fold.usage(prompt_tokens), times);
            }
        }
        Ok(token)
    }
}

impl Progress {
    fn is_over(&self) -> bool {
        self.failed || self.fold.finish().is_some()
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
