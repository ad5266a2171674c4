//! mistral.rs by its own interface, without anything of ours: what `tether bench throughput` holds
//! the mesh against.

use mistralrs::{GgufModelBuilder, Model, RequestBuilder, Response, TextMessageRole, TokenSource};
use std::path::Path;

/// A model, loaded as mistral.rs's documentation has it.
pub struct Alone {
    model: Model,
}

impl Alone {
    /// Loads a GGUF file and the tokenizer beside it, for at most so many answers at once.
    ///
    /// # Errors
    /// mistral.rs's words.
    pub async fn load(folder: &Path, weights: &str, at_once: usize) -> Result<Self, String> {
        let root = folder.to_str().ok_or("a path that is not UTF-8")?;
        let builder = GgufModelBuilder::new(root, vec![weights.to_owned()])
            .with_tok_model_id(root)
            .with_force_cpu()
            .with_token_source(TokenSource::None)
            .with_prefix_cache_n(None)
            .with_max_num_seqs(at_once);
        let model = builder
            .build()
            .await
            .map_err(|error| format!("{error:#}"))?;
        Ok(Self { model })
    }

    /// The most likely answer of at most so many tokens, and how many it has.
    ///
    /// # Errors
    /// mistral.rs's words, or that it did not say how many.
    pub async fn answer(&self, question: &str, tokens: u32) -> Result<(String, u64), String> {
        let request = RequestBuilder::new()
            .add_message(TextMessageRole::User, question)
            .set_deterministic_sampler()
            .set_sampler_max_len(tokens as usize);
        let asked = self.model.stream_chat_request(request).await;
        let mut stream = asked.map_err(|error| format!("{error:#}"))?;
        let (mut text, mut count) = (String::new(), None);
        while let Some(response) = stream.next().await {
            match response {
                Response::Chunk(chunk) => {
                    for choice in &chunk.choices {
                        text += choice.delta.content.as_deref().unwrap_or_default();
                    }
                    count = chunk.usage.map(|it| it.completion_tokens as u64).or(count);
                }
                Response::Done(_) => {}
                _ => return Err("mistral.rs failed".to_owned()),
            }
        }
        Ok((text, count.ok_or("an answer without usage")?))
    }
}
