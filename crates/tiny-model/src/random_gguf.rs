//! An untrained model of any size as a GGUF in Q8_0: something to measure engines with, whose
//! figures are those of arithmetic and not of what surrounds it.
//!
//! Tokenizer, template and all other metadata are the small model's; only the sizes are others. It
//! never ends an answer by itself.

use std::fs;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::embedded::{GGUF_FILE, file};
use crate::gguf::{F32, Gguf, GgufError, Q8_0, Q8_BLOCK, tensor_name};
use crate::random_hf::write_texts;
use crate::shape::Shape;
use crate::template::END_ID;

/// The file with the weights.
pub const RANDOM_GGUF_FILE: &str = "random-q8_0.gguf";

/// The scale of every block, 2⁻¹¹ as an IEEE 754 binary16: weights lie between ±0.062.
const SCALE: u16 = 0x1000;
/// Tensors begin at multiples of so many bytes.
const ALIGNMENT: usize = 32;
/// GGUF's type of an unsigned number of 32 bits.
const U32: u32 = 4;

/// Why the model could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The folder or a file in it could not be written.
    #[error("could not write the model: {0}")]
    Io(#[from] std::io::Error),
    /// The small model's file is not what it should be.
    #[error("the small model: {0}")]
    Gguf(#[from] GgufError),
    /// The sizes cannot be written in Q8_0.
    #[error("rows of {0} values: blocks of Q8_0 have {Q8_BLOCK}")]
    Rows(usize),
}

/// Writes a model of these sizes into `folder`, which is made if need be; the same seed gives the
/// same bytes. The vocabulary must be the small model's.
///
/// # Errors
/// When the folder cannot be written, or rows are no whole number of blocks.
pub fn write_random_gguf(folder: &Path, seed: u64, shape: &Shape) -> Result<(), WriteError> {
    let bytes = weights(shape, seed)?;
    write_texts(folder, shape)?;
    fs::write(folder.join(RANDOM_GGUF_FILE), bytes)?;
    Ok(())
}

fn weights(shape: &Shape, seed: u64) -> Result<Vec<u8>, WriteError> {
    let small = file(GGUF_FILE).unwrap_or_default();
    let parsed = Gguf::parse(small)?;
    let entries = resized(&small[parsed.entries.clone()], shape)?;
    let weights = shape.weights();
    let mut head = b"GGUF".to_vec();
    head.extend(3_u32.to_le_bytes());
    head.extend((weights.len() as u64).to_le_bytes());
    head.extend((parsed.metadata.len() as u64).to_le_bytes());
    head.extend(entries);
    let mut chance = ChaCha8Rng::seed_from_u64(seed);
    let mut data = Vec::new();
    for (name, sizes) in weights {
        let name = tensor_name(&name);
        head.extend((name.len() as u64).to_le_bytes());
        head.extend(name.as_bytes());
        head.extend((sizes.len() as u32).to_le_bytes());
        for size in sizes.iter().rev() {
            head.extend((*size as u64).to_le_bytes());
        }
        head.extend(if sizes.len() == 1 { F32 } else { Q8_0 }.to_le_bytes());
        head.extend((data.len() as u64).to_le_bytes());
        match sizes[..] {
            [width] => data.extend((0..width).flat_map(|_| 1_f32.to_le_bytes())),
            _ => {
                let width = sizes[sizes.len() - 1];
                if !width.is_multiple_of(Q8_BLOCK) {
                    return Err(WriteError::Rows(width));
                }
                let is_output = name == "output.weight";
                for row in 0..sizes[0] {
                    let is_end = is_output && row == END_ID as usize;
                    for _ in 0..width / Q8_BLOCK {
                        data.extend(SCALE.to_le_bytes());
                        let mut block = [0_u8; Q8_BLOCK];
                        chance.fill(&mut block);
                        // Of logits around 0, one that is always 0 is never the greatest.
                        data.extend(if is_end { [0; Q8_BLOCK] } else { block });
                    }
                }
            }
        }
        data.resize(data.len().next_multiple_of(ALIGNMENT), 0);
    }
    head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
    head.extend(data);
    Ok(head)
}

/// The small model's metadata with other sizes.
fn resized(entries: &[u8], shape: &Shape) -> Result<Vec<u8>, GgufError> {
    let mut entries = entries.to_vec();
    for (key, value) in [
        ("llama.context_length", shape.context_tokens),
        ("llama.embedding_length", shape.hidden),
        ("llama.block_count", shape.layers),
        ("llama.feed_forward_length", shape.feed_forward),
        ("llama.rope.dimension_count", shape.head_width),
        ("llama.attention.head_count", shape.heads),
        ("llama.attention.head_count_kv", shape.kv_heads),
        ("llama.attention.key_length", shape.head_width),
        ("llama.attention.value_length", shape.head_width),
    ] {
        let mut entry = (key.len() as u64).to_le_bytes().to_vec();
        entry.extend(key.as_bytes());
        entry.extend(U32.to_le_bytes());
        let found = entries.windows(entry.len()).position(|it| it == entry);
        let at = found.ok_or_else(|| GgufError::Missing(key.to_owned()))? + entry.len();
        let value = u32::try_from(value).map_err(|_| GgufError::Malformed("size"))?;
        entries[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reference::Reference;

    const SMALL: Shape = Shape {
        hidden: 64,
        layers: 2,
        heads: 2,
        kv_heads: 1,
        feed_forward: 96,
        context_tokens: 128,
        ..Shape::TINY
    };

    #[test]
    fn the_same_seed_writes_the_same_model_and_it_can_be_run() {
        let folder = tempfile::tempdir().unwrap();
        write_random_gguf(folder.path(), 1, &SMALL).unwrap();
        let bytes = fs::read(folder.path().join(RANDOM_GGUF_FILE)).unwrap();
        assert_eq!(bytes, weights(&SMALL, 1).unwrap());
        assert_ne!(bytes, weights(&SMALL, 2).unwrap());
        let model = Reference::from_gguf(&bytes).unwrap();
        assert_eq!(*model.shape(), SMALL);
        let answer = model.continue_greedily(&[3, 4, 5], 20, END_ID);
        assert_eq!(answer.len(), 20, "it does not end by itself");
        assert!(folder.path().join("tokenizer.json").is_file());
    }

    #[test]
    fn rows_that_are_no_blocks_are_refused() {
        let odd = Shape {
            hidden: 40,
            ..SMALL
        };
        assert!(matches!(weights(&odd, 1), Err(WriteError::Rows(40))));
    }
}
