//! The logits processor: chooses each token of one answer, and says so at once.
//!
//! mistral.rs calls it once for each step of a sequence, with the prompt and the tokens so far; it
//! gives back logits of which only the chosen one can win, so what was recorded is what was drawn.

use super::stream::Stream;
use crate::engine::child::answer::{Answer, Times};
use crate::text::fold::Fold;
use crate::text::prompt::Prompt;
use crate::text::sampler::{Counts, choose};
use crate::text::tokenizer::TextTokenizer;
use mistralrs::{CustomLogitsProcessor, Tensor};
use std::sync::{Arc, Mutex, PoisonError};
use tether_wire::infer::Sampling;
use tether_wire::rpc::{Code, RpcError};

/// The processor of one answer.
pub(super) struct Chooser {
    prompt_len: usize,
    vocabulary: usize,
    sampling: Sampling,
    answer: Answer,
    stream: Stream,
    progress: Mutex<Progress>,
}

struct Progress {
    fold: Fold<Arc<TextTokenizer>>,
    drawn: Counts,
    times: Option<Times>,
}

impl Chooser {
    pub(super) fn new(
        prompt: &Prompt,
        vocabulary: usize,
        sampling: Sampling,
        fold: Fold<Arc<TextTokenizer>>,
        answer: Answer,
        stream: Stream,
    ) -> Self {
        Self {
            prompt_len: prompt.tokens.len(),
            vocabulary,
            sampling,
            answer,
            stream,
            progress: Mutex::new(Progress {
                fold,
                drawn: Counts::new(),
                times: None,
            }),
        }
    }

    /// The token at this position; the answer's end closes the stream.
    fn next(&self, position: u32, logits: &[f32]) -> Result<u32, String> {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let Progress { fold, drawn, times } = &mut *progress;
        if fold.finish().is_some() || self.answer.cancellation().is_cancelled() {
            // A step that was under way when the answer ended; whatever it draws is dropped.
            self.stream.close();
            return Ok(0);
        }
        if position != fold.drawn() {
            return Err(format!(
                "the engine is at token {position} of an answer that has {}",
                fold.drawn()
            ));
        }
        // A model may have more rows than its tokenizer has tokens; they mean nothing.
        let logits = &logits[..logits.len().min(self.vocabulary)];
        let token = choose(position, logits, &self.sampling, drawn)
            .ok_or("the model gave no logits that are numbers")?;
        *drawn.entry(token).or_default() += 1;
        let times = times.get_or_insert_with(Times::first_token);
        times.token();
        if let Some(step) = fold.push(token) {
            self.answer.chunk(step.chunk);
            if let Some(finish) = step.finish {
                let prompt_tokens = u32::try_from(self.prompt_len).unwrap_or(u32::MAX);
                self.answer.done(finish, fold.usage(prompt_tokens), *times);
                self.stream.close();
            }
        }
        Ok(token)
    }
}

impl CustomLogitsProcessor for Chooser {
    fn apply(&self, logits: &Tensor, context: &[u32]) -> mistralrs::Result<Tensor> {
        let values: Vec<f32> = logits.flatten_all()?.to_vec1()?;
        let position = context.len().saturating_sub(self.prompt_len);
        let position = u32::try_from(position).unwrap_or(u32::MAX);
        let token = match self.next(position, &values) {
            Ok(token) => token,
            Err(why) => {
                self.answer.failed(RpcError::new(Code::Internal, why));
                self.stream.close();
                0
            }
        };
        let mut only = vec![0f32; values.len()];
        if let Some(chosen) = only.get_mut(token as usize) {
            *chosen = 1.0;
        }
        Tensor::from_vec(only, logits.shape(), logits.device())
    }
}
