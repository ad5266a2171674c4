//! A second, untrained model in Hugging Face layout: what a provider's own model looks like.
//!
//! Its answers mean nothing; it exists so that loading safetensors, packing a second artifact
//! and placing two models can be tested offline. It shares the small model's tokenizer.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

use crate::embedded::file;
use crate::shape::Shape;
use crate::template::{generation_config, tokenizer_config};

/// Half the width of the uniform weights.
const SPREAD: f32 = 0.08;

/// The random model's sizes: half of the small model's.
pub const RANDOM_SHAPE: Shape = Shape {
    hidden: 64,
    layers: 2,
    heads: 2,
    kv_heads: 1,
    feed_forward: 128,
    context_tokens: 2048,
    ..Shape::TINY
};

/// Why the model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder or a file in it could not be written.
    #[error("could not write the model: {0}")]
    Io(#[from] io::Error),
    /// The weights could not be laid out.
    #[error("could not lay out the weights: {0}")]
    Weights(#[from] SafeTensorError),
}

/// Writes the model into `folder`, which is made if need be; the same seed gives the same bytes.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_random_hf(folder: &Path, seed: u64) -> Result<(), WriteError> {
    write_random_hf_of(folder, seed, &RANDOM_SHAPE)
}

/// The same in sizes of your own; the vocabulary stays.
///
/// # Errors
/// When the folder cannot be written.
pub fn write_random_hf_of(folder: &Path, seed: u64, shape: &Shape) -> Result<(), WriteError> {
    write_texts(folder, shape)?;
    fs::write(folder.join("model.safetensors"), weights(shape, seed)?)?;
    Ok(())
}

/// Everything but the weights.
pub(crate) fn write_texts(folder: &Path, shape: &Shape) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let texts = [
        ("config.json", shape.hugging_face_config()),
        (
            "tokenizer_config.json",
            tokenizer_config(shape.context_tokens),
        ),
        ("generation_config.json", generation_config()),
    ];
    for (name, value) in texts {
        fs::write(folder.join(name), format!("{value:#}\n"))?;
    }
    let tokenizer = file("tokenizer.json").expect("the committed model has a tokenizer");
    fs::write(folder.join("tokenizer.json"), tokenizer)
}

fn weights(shape: &Shape, seed: u64) -> Result<Vec<u8>, SafeTensorError> {
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let drawn: Vec<(String, Vec<usize>, Vec<u8>)> = shape
        .weights()
        .into_iter()
        .map(|(name, sizes)| {
            let bytes = floats(&sizes, || {
                if sizes.len() == 1 {
                    1.0
                } else {
                    chance.random_range(-SPREAD..SPREAD)
                }
            });
            (name, sizes, bytes)
        })
        .collect();
    safetensors_of(&drawn)
}

/// The bytes of as many drawn numbers as a tensor of these sizes has.
pub(crate) fn floats(sizes: &[usize], mut draw: impl FnMut() -> f32) -> Vec<u8> {
    let count: usize = sizes.iter().product();
    (0..count).flat_map(|_| f32::to_le_bytes(draw())).collect()
}

/// A file of names, sizes and bytes of 32-bit numbers.
pub(crate) fn safetensors_of(
    tensors: &[(String, Vec<usize>, Vec<u8>)],
) -> Result<Vec<u8>, SafeTensorError> {
    let mut views = BTreeMap::new();
    for (name, sizes, bytes) in tensors {
        views.insert(
            name.as_str(),
            TensorView::new(Dtype::F32, sizes.clone(), bytes)?,
        );
    }
    // Readers expect this key; without it some refuse the file.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize(views, Some(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    #[test]
    fn the_same_seed_writes_the_same_complete_model() {
        let folders = [1, 1, 2].map(|seed| {
            let folder = tempfile::tempdir().unwrap();
            write_random_hf(folder.path(), seed).unwrap();
            folder
        });
        let read = |at: usize, name: &str| fs::read(folders[at].path().join(name)).unwrap();
        assert_eq!(read(0, "model.safetensors"), read(1, "model.safetensors"));
        assert_ne!(read(0, "model.safetensors"), read(2, "model.safetensors"));
        let bytes = read(0, "model.safetensors");
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        for (name, sizes) in RANDOM_SHAPE.weights() {
            assert_eq!(tensors.tensor(&name).unwrap().shape(), sizes, "{name}");
        }
        for name in [
            "config.json",
            "tokenizer_config.json",
            "generation_config.json",
            "tokenizer.json",
        ] {
            assert!(
                serde_json::from_slice::<serde_json::Value>(&read(0, name)).is_ok(),
                "{name}"
            );
        }
    }
}
