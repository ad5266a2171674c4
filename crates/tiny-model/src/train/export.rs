//! Writes a trained model as a GGUF in Q8_0, laid out as llama.cpp's converter does.

use std::io::Cursor;

use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Result, Tensor};
use tokenizers::Tokenizer;

use super::model::Llama;
use super::tokenizer::tokens_and_merges;
use crate::embedded::{NAME, VERSION};
use crate::gguf::tensor_name;
use crate::shape::Shape;
use crate::template::{BOS_ID, CHAT_TEMPLATE, END_ID, SPECIAL_TOKENS};

/// `general.file_type`: mostly Q8_0.
const MOSTLY_Q8_0: u32 = 7;
/// `tokenizer.ggml.token_type` of a text token and of a control token.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The bytes of the GGUF file.
///
/// # Errors
/// When candle or the tokenizer fails.
pub fn gguf(model: &Llama, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u8>> {
    let metadata = metadata(model.shape(), tokenizer)?;
    let tensors = tensors(model)?;
    let metadata: Vec<(&str, &Value)> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors)?;
    Ok(file.into_inner())
}

fn metadata(shape: &Shape, tokenizer: &Tokenizer) -> anyhow::Result<Vec<(&'static str, Value)>> {
    let size = |value: usize| u32::try_from(value).map(Value::U32);
    let text = |value: &str| Value::String(value.to_owned());
    let texts = |values: &[String]| Value::Array(values.iter().map(|value| text(value)).collect());
    let (tokens, merges) = tokens_and_merges(tokenizer)?;
    let types = tokens.iter().map(|token| {
        let special = SPECIAL_TOKENS.contains(&token.as_str());
        Value::I32(if special { CONTROL } else { NORMAL })
    });
    Ok(vec![
        ("general.architecture", text("llama")),
        ("general.type", text("model")),
        ("general.name", text(NAME)),
        ("general.version", text(VERSION)),
        ("general.license", text("MIT OR Apache-2.0")),
        ("general.file_type", Value::U32(MOSTLY_Q8_0)),
        ("general.quantization_version", Value::U32(2)),
        ("general.alignment", Value::U32(32)),
        ("llama.context_length", size(shape.context_tokens)?),
        ("llama.embedding_length", size(shape.hidden)?),
        ("llama.block_count", size(shape.layers)?),
        ("llama.feed_forward_length", size(shape.feed_forward)?),
        ("llama.vocab_size", size(shape.vocabulary)?),
        ("llama.rope.dimension_count", size(shape.head_width)?),
        ("llama.rope.freq_base", Value::F32(shape.rope_base)),
        ("llama.attention.head_count", size(shape.heads)?),
        ("llama.attention.head_count_kv", size(shape.kv_heads)?),
        ("llama.attention.key_length", size(shape.head_width)?),
        ("llama.attention.value_length", size(shape.head_width)?),
        (
            "llama.attention.layer_norm_rms_epsilon",
            Value::F32(shape.norm_epsilon),
        ),
        ("tokenizer.ggml.model", text("gpt2")),
        ("tokenizer.ggml.pre", text("qwen2")),
        ("tokenizer.ggml.token_type", Value::Array(types.collect())),
        ("tokenizer.ggml.tokens", texts(&tokens)),
        ("tokenizer.ggml.merges", texts(&merges)),
        ("tokenizer.ggml.bos_token_id", Value::U32(BOS_ID)),
        ("tokenizer.ggml.eos_token_id", Value::U32(END_ID)),
        ("tokenizer.ggml.padding_token_id", Value::U32(END_ID)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.chat_template", text(CHAT_TEMPLATE)),
    ])
}

fn tensors(model: &Llama) -> Result<Vec<(String, QTensor)>> {
    let shape = model.shape();
    let mut tensors = Vec::new();
    for (name, sizes) in shape.weights() {
        let weight = model.weight(&name);
        let weight = if name.contains("q_proj") {
            interleaved(weight, shape.heads)?
        } else if name.contains("k_proj") {
            interleaved(weight, shape.kv_heads)?
        } else {
            weight.clone()
        };
        let kind = if sizes.len() == 1 {
            GgmlDType::F32
        } else {
            GgmlDType::Q8_0
        };
        tensors.push((tensor_name(&name), QTensor::quantize(&weight, kind)?));
    }
    Ok(tensors)
}

/// Rows of each head from "first halves, second halves" to neighbouring pairs.
fn interleaved(weight: &Tensor, heads: usize) -> Result<Tensor> {
    let (rows, columns) = weight.dims2()?;
    weight
        .reshape((heads, 2, rows / heads / 2, columns))?
        .transpose(1, 2)?
        .contiguous()?
        .reshape((rows, columns))
}
