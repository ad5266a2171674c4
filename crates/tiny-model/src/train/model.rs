//! The Llama forward pass in candle, differentiable, for training.

use std::collections::BTreeMap;

use candle_core::{D, DType, Device, Result, Tensor, Var};
use candle_nn::ops::{log_softmax, rms_norm_slow, silu, softmax};
use candle_nn::rotary_emb::rope_slow;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::lesson::Batch;
use crate::shape::{Shape, rotary_tables};

/// Width of the uniform start of the matrices, times the root of their input width.
const INITIAL_SPREAD: f32 = 1.0;
/// Score of a position that may not be seen.
const UNSEEN: f32 = -1e9;

/// A model whose weights can be trained; named as Hugging Face names them.
#[derive(Debug, Clone)]
pub struct Llama {
    shape: Shape,
    weights: BTreeMap<String, Var>,
    cosines: Tensor,
    sines: Tensor,
}

impl Llama {
    /// A model at a random start.
    ///
    /// # Errors
    /// When candle fails.
    pub fn random(shape: &Shape, seed: u64) -> Result<Self> {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let mut weights = BTreeMap::new();
        for (name, sizes) in shape.weights() {
            let values = initial(&mut chance, &name, &sizes);
            weights.insert(name, Var::from_vec(values, sizes, &Device::Cpu)?);
        }
        let (cosines, sines) = rotary_tables(shape, shape.context_tokens);
        let table = (shape.context_tokens, shape.head_width / 2);
        Ok(Self {
            shape: shape.clone(),
            weights,
            cosines: Tensor::from_vec(cosines, table, &Device::Cpu)?,
            sines: Tensor::from_vec(sines, table, &Device::Cpu)?,
        })
    }

    /// The sizes.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The trainable weights, in a fixed order.
    #[must_use]
    pub fn variables(&self) -> Vec<Var> {
        self.weights.values().cloned().collect()
    }

    /// A weight by its Hugging Face name.
    ///
    /// # Panics
    /// When the model has no such weight.
    #[must_use]
    pub fn weight(&self, name: &str) -> &Tensor {
        self.weights[name].as_tensor()
    }

    /// The weighted mean loss over what a batch teaches.
    ///
    /// # Errors
    /// When candle fails.
    pub fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let inputs = Tensor::new(batch.inputs.as_slice(), &Device::Cpu)?;
        let hidden = self.hidden(&inputs, batch.rows, batch.length)?;
        let positions = Tensor::new(batch.positions.as_slice(), &Device::Cpu)?;
        let logits = self.logits(&hidden.index_select(&positions, 0)?)?;
        let targets = Tensor::new(batch.targets.as_slice(), &Device::Cpu)?.unsqueeze(1)?;
        let weights = Tensor::new(batch.weights.as_slice(), &Device::Cpu)?.unsqueeze(1)?;
        let total = f64::from(batch.weights.iter().sum::<f32>());
        let likelihoods = log_softmax(&logits, D::Minus1)?.gather(&targets, 1)?;
        (likelihoods * weights)?.sum_all()? * (-1.0 / total)
    }

    /// Logits for each row of hidden states.
    ///
    /// # Errors
    /// When candle fails.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        hidden.matmul(&self.weight("lm_head.weight").t()?)
    }

    /// Hidden states, `(rows × length, hidden)`, of tokens given row by row.
    ///
    /// # Errors
    /// When candle fails.
    pub fn hidden(&self, inputs: &Tensor, rows: usize, length: usize) -> Result<Tensor> {
        let mask = causal_mask(length)?;
        let mut state = self
            .weight("model.embed_tokens.weight")
            .index_select(inputs, 0)?;
        for layer in 0..self.shape.layers {
            let part = |part: &str| self.weight(&format!("model.layers.{layer}.{part}.weight"));
            let input = self.norm(&state, part("input_layernorm"))?;
            let attended = self.attend(layer, &input, &mask, rows, length)?;
            state = (state + attended.matmul(&part("self_attn.o_proj").t()?)?)?;
            let input = self.norm(&state, part("post_attention_layernorm"))?;
            let gate = silu(&input.matmul(&part("mlp.gate_proj").t()?)?)?;
            let up = input.matmul(&part("mlp.up_proj").t()?)?;
            state = (state + (gate * up)?.matmul(&part("mlp.down_proj").t()?)?)?;
        }
        self.norm(&state, self.weight("model.norm.weight"))
    }

    fn norm(&self, state: &Tensor, weight: &Tensor) -> Result<Tensor> {
        rms_norm_slow(state, weight, self.shape.norm_epsilon)
    }

    fn attend(
        &self,
        layer: usize,
        input: &Tensor,
        mask: &Tensor,
        rows: usize,
        length: usize,
    ) -> Result<Tensor> {
        let Shape {
            heads,
            kv_heads,
            head_width,
            ..
        } = self.shape;
        let project = |part: &str, heads: usize| -> Result<Tensor> {
            let weight = self.weight(&format!("model.layers.{layer}.self_attn.{part}.weight"));
            let projected = input.matmul(&weight.t()?)?;
            projected
                .reshape((rows, length, heads, head_width))?
                .transpose(1, 2)?
                .contiguous()
        };
        let spread = |kv: Tensor| -> Result<Tensor> {
            kv.unsqueeze(2)?
                .broadcast_as((rows, kv_heads, heads / kv_heads, length, head_width))?
                .reshape((rows, heads, length, head_width))
        };
        let query = rope_slow(&project("q_proj", heads)?, &self.cosines, &self.sines)?;
        let key = spread(rope_slow(
            &project("k_proj", kv_heads)?,
            &self.cosines,
            &self.sines,
        )?)?;
        let value = spread(project("v_proj", kv_heads)?)?;
        let scale = 1.0 / (head_width as f64).sqrt();
        let scores = (query.matmul(&key.transpose(2, 3)?.contiguous()?)? * scale)?;
        let weights = softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
        weights
            .matmul(&value)?
            .transpose(1, 2)?
            .reshape((rows * length, heads * head_width))
    }
}

fn causal_mask(length: usize) -> Result<Tensor> {
    let values: Vec<f32> = (0..length)
        .flat_map(|from| (0..length).map(move |to| if to > from { UNSEEN } else { 0.0 }))
        .collect();
    Tensor::from_vec(values, (length, length), &Device::Cpu)?.to_dtype(DType::F32)
}

fn initial(chance: &mut ChaCha8Rng, name: &str, sizes: &[usize]) -> Vec<f32> {
    let count: usize = sizes.iter().product();
    if sizes.len() == 1 {
        return vec![1.0; count];
    }
    let width = if name.contains("embed") {
        0.05
    } else {
        INITIAL_SPREAD / (sizes[1] as f32).sqrt()
    };
    (0..count)
        .map(|_| chance.random_range(-width..width))
        .collect()
}
