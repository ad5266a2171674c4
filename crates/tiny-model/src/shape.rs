//! The sizes of a Llama-style model.

use serde_json::{Value, json};

use crate::template::{BOS_ID, END_ID};

/// Everything about a model's layout that is not its weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; even.
    pub head_width: usize,
    /// Width of the gated feed-forward part.
    pub feed_forward: usize,
    /// Longest sequence in tokens.
    pub context_tokens: usize,
    /// Base of the rotary frequencies.
    pub rope_base: f32,
    /// Added under the root of each RMS norm.
    pub norm_epsilon: f32,
}

impl Shape {
    /// The committed model's.
    pub const TINY: Self = Self {
        vocabulary: 768,
        hidden: 128,
        layers: 4,
        heads: 4,
        kv_heads: 2,
        head_width: 32,
        feed_forward: 256,
        context_tokens: 4096,
        rope_base: 10_000.0,
        norm_epsilon: 1e-5,
    };

    /// Each weight's Hugging Face name with its dimensions, in a fixed order.
    #[must_use]
    pub fn weights(&self) -> Vec<(String, Vec<usize>)> {
        let (queries, keys) = (
            self.heads * self.head_width,
            self.kv_heads * self.head_width,
        );
        let mut weights = vec![(
            "model.embed_tokens.weight".to_owned(),
            vec![self.vocabulary, self.hidden],
        )];
        for layer in 0..self.layers {
            let parts = [
                ("input_layernorm", vec![self.hidden]),
                ("self_attn.q_proj", vec![queries, self.hidden]),
                ("self_attn.k_proj", vec![keys, self.hidden]),
                ("self_attn.v_proj", vec![keys, self.hidden]),
                ("self_attn.o_proj", vec![self.hidden, queries]),
                ("post_attention_layernorm", vec![self.hidden]),
                ("mlp.gate_proj", vec![self.feed_forward, self.hidden]),
                ("mlp.up_proj", vec![self.feed_forward, self.hidden]),
                ("mlp.down_proj", vec![self.hidden, self.feed_forward]),
            ];
            weights.extend(
                parts.map(|(part, sizes)| (format!("model.layers.{layer}.{part}.weight"), sizes)),
            );
        }
        weights.push(("model.norm.weight".to_owned(), vec![self.hidden]));
        weights.push((
            "lm_head.weight".to_owned(),
            vec![self.vocabulary, self.hidden],
        ));
        weights
    }

    /// Number of parameters.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let sizes = self.weights();
        sizes
            .iter()
            .map(|(_, sizes)| sizes.iter().product::<usize>())
            .sum()
    }

    /// `config.json` of a Hugging Face `LlamaForCausalLM`.
    #[must_use]
    pub fn hugging_face_config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_width,
            "intermediate_size": self.feed_forward,
            "max_position_embeddings": self.context_tokens,
            "rope_theta": f64::from(self.rope_base),
            "rope_scaling": null,
            "rms_norm_eps": 1e-5,
            "hidden_act": "silu",
            "attention_bias": false,
            "mlp_bias": false,
            "tie_word_embeddings": false,
            "bos_token_id": BOS_ID,
            "eos_token_id": END_ID,
            "torch_dtype": "float32",
            "use_cache": true,
        })
    }
}

/// Cosine and sine of each rotary angle: `context × head_width / 2` values each, position by position.
#[must_use]
pub fn rotary_tables(shape: &Shape, positions: usize) -> (Vec<f32>, Vec<f32>) {
    let half = shape.head_width / 2;
    let (mut cosines, mut sines) = (Vec::new(), Vec::new());
    for position in 0..positions {
        for pair in 0..half {
            let angle = position as f32 / shape.rope_base.powf(pair as f32 / half as f32);
            cosines.push(angle.cos());
            sines.push(angle.sin());
        }
    }
    (cosines, sines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tiny_shape_fits_q8_blocks_and_stays_small() {
        assert!(Shape::TINY.parameters() < 1_000_000);
        for (name, sizes) in Shape::TINY.weights() {
            assert_eq!(sizes[sizes.len() - 1] % 32, 0, "{name}");
        }
    }
}
