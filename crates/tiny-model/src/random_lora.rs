//! An untrained LoRA adapter for the [random model](crate::random_hf), in the layout of PEFT.
//!
//! It changes what the model says; what it says means as little as before. Two seeds are two adapters.

use std::fs;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use serde_json::json;

use crate::random_hf::{RANDOM_SHAPE, WriteError, floats, safetensors_of};

/// Columns of each `A` and rows of each `B`.
pub const RANK: usize = 4;
/// What is multiplied by `B·A / RANK`.
pub const ALPHA: f32 = 6.0;
/// The parts of each layer that it changes; the others are left as they are.
pub const TARGETS: [&str; 5] = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"];

/// Half the width of the uniform numbers.
const SPREAD: f32 = 0.25;

/// Writes the adapter into `folder`, which is made if need be; the same seed gives the same bytes.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_random_lora(folder: &Path, seed: u64) -> Result<(), WriteError> {
    fs::create_dir_all(folder)?;
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut tensors = Vec::new();
    for (name, sizes) in RANDOM_SHAPE.weights() {
        let Some(module) = name.strip_suffix(".weight") else {
            continue;
        };
        if !TARGETS.iter().any(|target| module.ends_with(target)) {
            continue;
        }
        let pair = [("A", vec![RANK, sizes[1]]), ("B", vec![sizes[0], RANK])];
        for (part, sizes) in pair {
            let name = format!("base_model.model.{module}.lora_{part}.weight");
            let bytes = floats(&sizes, || chance.random_range(-SPREAD..SPREAD));
            tensors.push((name, sizes, bytes));
        }
    }
    fs::write(
        folder.join("adapter_model.safetensors"),
        safetensors_of(&tensors)?,
    )?;
    // As PEFT writes it.
    let config = json!({
        "auto_mapping": null,
        "base_model_name_or_path": "random-hf",
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "layers_pattern": null,
        "layers_to_transform": null,
        "lora_alpha": ALPHA,
        "lora_dropout": 0.05,
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": RANK,
        "rank_pattern": {},
        "alpha_pattern": {},
        "revision": null,
        "target_modules": TARGETS,
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    fs::write(folder.join("adapter_config.json"), format!("{config:#}\n"))?;
    Ok(())
}

/// The weights of a base with an adapter added: `W + (alpha / r) · B·A`, in plain loops over numbers
/// of 64 bits, for whoever wants to know whether somebody else adds it rightly.
///
/// # Errors
/// When either is no file of 32-bit safetensors.
///
/// # Panics
/// When the adapter was not made for the base.
pub fn merged(base: &[u8], adapter: &[u8]) -> Result<Vec<u8>, WriteError> {
    let (base, adapter) = (
        SafeTensors::deserialize(base)?,
        SafeTensors::deserialize(adapter)?,
    );
    let numbers = |bytes: &[u8]| -> Vec<f64> {
        let (fours, _) = bytes.as_chunks();
        (fours
            .iter()
            .map(|four| f64::from(f32::from_le_bytes(*four))))
        .collect()
    };
    let mut sums = Vec::new();
    for (name, weights) in base.iter() {
        let mut sum = numbers(weights.data());
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let part = |part| adapter.tensor(&format!("base_model.model.{module}.lora_{part}.weight"));
        if let (Ok(a), Ok(b)) = (part("A"), part("B")) {
            let (rank, inputs) = (a.shape()[0], a.shape()[1]);
            let (a, b) = (numbers(a.data()), numbers(b.data()));
            for (at, weight) in sum.iter_mut().enumerate() {
                let (row, column) = (at / inputs, at % inputs);
                let product: f64 = (0..rank)
                    .map(|k| b[row * rank + k] * a[k * inputs + column])
                    .sum();
                *weight += f64::from(ALPHA) / rank as f64 * product;
            }
        }
        let bytes = sum.iter().flat_map(|it| (*it as f32).to_le_bytes());
        sums.push((name.to_owned(), weights.shape().to_vec(), bytes.collect()));
    }
    Ok(safetensors_of(&sums)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_writes_the_same_pairs() {
        let read = |seed| {
            let folder = tempfile::tempdir().unwrap();
            write_random_lora(folder.path(), seed).unwrap();
            fs::read(folder.path().join("adapter_model.safetensors")).unwrap()
        };
        let bytes = read(1);
        assert_eq!(bytes, read(1));
        assert_ne!(bytes, read(2));
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.len(), 2 * TARGETS.len() * RANDOM_SHAPE.layers);
        let down = "base_model.model.model.layers.1.mlp.down_proj.lora_A.weight";
        assert_eq!(tensors.tensor(down).unwrap().shape(), [RANK, 128]);
    }
}
