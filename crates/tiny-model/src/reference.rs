//! A plain forward pass over a GGUF Llama, one token at a time.
//!
//! It reads the file as llama.cpp does (query and key rows permuted, rotary pairs interleaved),
//! in f32 over dequantised weights and with no tensor library, so it is slow, simple,
//! and an independent check of what training and export produced.

use crate::gguf::{Gguf, GgufError};
use crate::shape::{Shape, rotary_tables};

/// A model read from a GGUF file.
#[derive(Debug)]
pub struct Reference {
    shape: Shape,
    embeddings: Vec<f32>,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    output: Vec<f32>,
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

#[derive(Debug)]
struct Block {
    attention_norm: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    merge: Vec<f32>,
    feed_norm: Vec<f32>,
    gate: Vec<f32>,
    up: Vec<f32>,
    down: Vec<f32>,
}

/// A sequence being read or written, with what each block remembers of it.
#[derive(Debug)]
pub struct Sequence<'m> {
    model: &'m Reference,
    length: usize,
    keys: Vec<Vec<f32>>,
    values: Vec<Vec<f32>>,
}

impl Reference {
    /// Reads a Llama model.
    ///
    /// # Errors
    /// When the bytes are no GGUF, or lack something that a Llama model needs.
    pub fn from_gguf(bytes: &[u8]) -> Result<Self, GgufError> {
        let file = Gguf::parse(bytes)?;
        let shape = shape_of(&file)?;
        let (hidden, feed) = (shape.hidden, shape.feed_forward);
        let queries = shape.heads * shape.head_width;
        let keys = shape.kv_heads * shape.head_width;
        let block = |layer: usize| -> Result<Block, GgufError> {
            let read = |part: &str, sizes: &[usize]| {
                file.values(&format!("blk.{layer}.{part}.weight"), sizes)
            };
            Ok(Block {
                attention_norm: read("attn_norm", &[hidden])?,
                query: read("attn_q", &[queries, hidden])?,
                key: read("attn_k", &[keys, hidden])?,
                value: read("attn_v", &[keys, hidden])?,
                merge: read("attn_output", &[hidden, queries])?,
                feed_norm: read("ffn_norm", &[hidden])?,
                gate: read("ffn_gate", &[feed, hidden])?,
                up: read("ffn_up", &[feed, hidden])?,
                down: read("ffn_down", &[hidden, feed])?,
            })
        };
        let (cosines, sines) = rotary_tables(&shape, shape.context_tokens);
        Ok(Self {
            embeddings: file.values("token_embd.weight", &[shape.vocabulary, hidden])?,
            blocks: (0..shape.layers).map(block).collect::<Result<_, _>>()?,
            norm: file.values("output_norm.weight", &[hidden])?,
            output: file.values("output.weight", &[shape.vocabulary, hidden])?,
            shape,
            cosines,
            sines,
        })
    }

    /// The model's sizes.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// An empty sequence.
    #[must_use]
    pub fn sequence(&self) -> Sequence<'_> {
        let none = || vec![Vec::new(); self.shape.layers];
        Sequence {
            model: self,
            length: 0,
            keys: none(),
            values: none(),
        }
    }

    /// The most likely continuation of `prompt`: at most `max_tokens`, without the ending token.
    #[must_use]
    pub fn continue_greedily(&self, prompt: &[u32], max_tokens: usize, end: u32) -> Vec<u32> {
        let mut sequence = self.sequence();
        let mut logits = Vec::new();
        for &token in prompt {
            logits = sequence.push(token);
        }
        let mut answer = Vec::new();
        while answer.len() < max_tokens && sequence.length < self.shape.context_tokens {
            let token = most_likely(&logits);
            if token == end {
                break;
            }
            answer.push(token);
            logits = sequence.push(token);
        }
        answer
    }
}

impl Sequence<'_> {
    /// Appends a token and gives the logits of what may follow.
    ///
    /// # Panics
    /// When the token is outside the vocabulary or the context is full.
    pub fn push(&mut self, token: u32) -> Vec<f32> {
        let model = self.model;
        let shape = &model.shape;
        assert!(self.length < shape.context_tokens, "the context is full");
        let row = token as usize * shape.hidden;
        let mut state = model.embeddings[row..row + shape.hidden].to_vec();
        for layer in 0..shape.layers {
            let block = &model.blocks[layer];
            let attended = self.attend(
                layer,
                &normed(&state, &block.attention_norm, shape.norm_epsilon),
            );
            add(&mut state, &product(&block.merge, &attended));
            let input = normed(&state, &block.feed_norm, shape.norm_epsilon);
            let mut gated = product(&block.gate, &input);
            for (gate, up) in gated.iter_mut().zip(product(&block.up, &input)) {
                *gate = *gate / (1.0 + (-*gate).exp()) * up;
            }
            add(&mut state, &product(&block.down, &gated));
        }
        self.length += 1;
        product(
            &model.output,
            &normed(&state, &model.norm, shape.norm_epsilon),
        )
    }

    fn attend(&mut self, layer: usize, input: &[f32]) -> Vec<f32> {
        let (shape, block) = (&self.model.shape, &self.model.blocks[layer]);
        let width = shape.head_width;
        let stride = shape.kv_heads * width;
        let mut queries = product(&block.query, input);
        let mut keys = product(&block.key, input);
        self.rotate(&mut queries);
        self.rotate(&mut keys);
        self.keys[layer].extend(keys);
        self.values[layer].extend(product(&block.value, input));
        let scale = 1.0 / (width as f32).sqrt();
        let mut attended = vec![0.0; queries.len()];
        for (head, query) in queries.chunks_exact(width).enumerate() {
            let at = head / (shape.heads / shape.kv_heads) * width;
            let mut weights: Vec<f32> = self.keys[layer]
                .chunks_exact(stride)
                .map(|key| dot(query, &key[at..at + width]) * scale)
                .collect();
            soften(&mut weights);
            let out = &mut attended[head * width..(head + 1) * width];
            for (weight, value) in weights.iter().zip(self.values[layer].chunks_exact(stride)) {
                for (sum, part) in out.iter_mut().zip(&value[at..at + width]) {
                    *sum += weight * part;
                }
            }
        }
        attended
    }

    /// Rotates neighbouring pairs, as llama.cpp does for this architecture.
    fn rotate(&self, heads: &mut [f32]) {
        let half = self.model.shape.head_width / 2;
        let angles = self.length * half..(self.length + 1) * half;
        let (cosines, sines) = (
            &self.model.cosines[angles.clone()],
            &self.model.sines[angles],
        );
        for (index, pair) in heads.chunks_exact_mut(2).enumerate() {
            let (cosine, sine) = (cosines[index % half], sines[index % half]);
            let (x, y) = (pair[0], pair[1]);
            pair[0] = x * cosine - y * sine;
            pair[1] = x * sine + y * cosine;
        }
    }
}

/// The index of the largest logit; the first one where several are equal.
#[must_use]
pub fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (index, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = index;
        }
    }
    u32::try_from(best).expect("a vocabulary has far fewer than 2^32 tokens")
}

fn shape_of(file: &Gguf<'_>) -> Result<Shape, GgufError> {
    let hidden = file.integer("llama.embedding_length")?;
    let heads = file.integer("llama.attention.head_count")?;
    let vocabulary = file
        .tensors
        .get("token_embd.weight")
        .map_or(0, |info| info.sizes[0]);
    let shape = Shape {
        vocabulary,
        hidden,
        layers: file.integer("llama.block_count")?,
        heads,
        kv_heads: file.integer("llama.attention.head_count_kv")?,
        head_width: file.integer("llama.rope.dimension_count")?,
        feed_forward: file.integer("llama.feed_forward_length")?,
        context_tokens: file.integer("llama.context_length")?,
        rope_base: file.float("llama.rope.freq_base")? as f32,
        norm_epsilon: file.float("llama.attention.layer_norm_rms_epsilon")? as f32,
    };
    Ok(shape)
}

fn normed(state: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let mean = dot(state, state) / state.len() as f32;
    let scale = 1.0 / (mean + epsilon).sqrt();
    state
        .iter()
        .zip(weight)
        .map(|(value, weight)| value * scale * weight)
        .collect()
}

fn product(matrix: &[f32], vector: &[f32]) -> Vec<f32> {
    matrix
        .chunks_exact(vector.len())
        .map(|row| dot(row, vector))
        .collect()
}

/// Eight sums side by side, so that the compiler may use wide registers.
fn dot(one: &[f32], other: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    let (ones, one_rest) = one.as_chunks::<8>();
    let (others, other_rest) = other.as_chunks::<8>();
    for (a, b) in ones.iter().zip(others) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = one_rest.iter().zip(other_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn add(state: &mut [f32], change: &[f32]) {
    for (value, change) in state.iter_mut().zip(change) {
        *value += change;
    }
}

fn soften(weights: &mut [f32]) {
    let largest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for weight in weights.iter_mut() {
        *weight = (*weight - largest).exp();
        sum += *weight;
    }
    for weight in weights {
        *weight /= sum;
    }
}
