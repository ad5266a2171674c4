//! A small reader of GGUF files: enough for the reference forward pass and for tests.
//!
//! Independent of candle on purpose: the exporter writes with candle, this reads,
//! and a mistake in either shows. It trusts nothing: lengths are checked before memory is taken.

use std::collections::BTreeMap;

/// Most metadata entries, tensors or elements of one array that are accepted.
const MAX_ENTRIES: u64 = 1 << 20;
/// GGML types that are read and written here.
pub(crate) const F32: u32 = 0;
pub(crate) const Q8_0: u32 = 8;
/// Values in one Q8_0 block.
pub(crate) const Q8_BLOCK: usize = 32;
/// Bytes of one Q8_0 block: an f16 scale and the values.
const Q8_BLOCK_BYTES: usize = 2 + Q8_BLOCK;

/// Why a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GgufError {
    /// Not GGUF, cut short, or with impossible sizes.
    #[error("malformed gguf: {0}")]
    Malformed(&'static str),
    /// A key or tensor that a Llama model needs is not there, or of another type.
    #[error("gguf lacks {0}")]
    Missing(String),
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer type.
    Integer(i64),
    /// Any floating-point type.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A string.
    Text(String),
    /// An array.
    Array(Vec<Value>),
}

/// Where a tensor lies, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Rows first, as in `[out, in]` (GGUF stores them the other way round).
    pub sizes: Vec<usize>,
    /// GGML type: 0 is F32, 8 is Q8_0.
    pub kind: u32,
    offset: usize,
}

/// A parsed header over the file's bytes.
#[derive(Debug)]
pub struct Gguf<'a> {
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// Where the metadata's entries are in the file.
    pub(crate) entries: std::ops::Range<usize>,
    data: &'a [u8],
}

impl<'a> Gguf<'a> {
    /// Parses the header.
    ///
    /// # Errors
    /// [`GgufError::Malformed`] when the bytes are not a GGUF file of version 2 or 3.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, GgufError> {
        let mut cursor = Cursor { bytes, at: 0 };
        if cursor.take(4)? != b"GGUF" {
            return Err(GgufError::Malformed("no magic"));
        }
        if !matches!(cursor.u32()?, 2 | 3) {
            return Err(GgufError::Malformed("unknown version"));
        }
        let tensor_count = cursor.count()?;
        let metadata_count = cursor.count()?;
        let first = cursor.at;
        let mut metadata = BTreeMap::new();
        for _ in 0..metadata_count {
            let key = cursor.text()?;
            let kind = cursor.u32()?;
            metadata.insert(key, cursor.value(kind, 0)?);
        }
        let entries = first..cursor.at;
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let name = cursor.text()?;
            tensors.insert(name, cursor.tensor_info()?);
        }
        let start = cursor.at.next_multiple_of(32);
        let data = bytes
            .get(start..)
            .ok_or(GgufError::Malformed("no tensor data"))?;
        Ok(Self {
            metadata,
            tensors,
            entries,
            data,
        })
    }

    /// An integer of the metadata.
    ///
    /// # Errors
    /// [`GgufError::Missing`] when it is absent, negative or no integer.
    pub fn integer(&self, key: &str) -> Result<usize, GgufError> {
        match self.metadata.get(key) {
            Some(Value::Integer(value)) => usize::try_from(*value).ok(),
            _ => None,
        }
        .ok_or_else(|| GgufError::Missing(key.to_owned()))
    }

    /// A floating-point number of the metadata.
    ///
    /// # Errors
    /// [`GgufError::Missing`] when it is absent or of another type.
    pub fn float(&self, key: &str) -> Result<f64, GgufError> {
        match self.metadata.get(key) {
            Some(Value::Float(value)) => Ok(*value),
            _ => Err(GgufError::Missing(key.to_owned())),
        }
    }

    /// A tensor's values as f32, row by row; F32 and Q8_0 are understood.
    ///
    /// # Errors
    /// [`GgufError::Missing`] when it is absent, of another size or type, or cut short.
    pub fn values(&self, name: &str, sizes: &[usize]) -> Result<Vec<f32>, GgufError> {
        let missing = || GgufError::Missing(format!("tensor {name} of {sizes:?}"));
        let info = self.tensors.get(name).ok_or_else(missing)?;
        if info.sizes != sizes {
            return Err(missing());
        }
        let count: usize = sizes.iter().product();
        let length = match info.kind {
            0 => count * 4,
            8 => count / Q8_BLOCK * Q8_BLOCK_BYTES,
            _ => return Err(missing()),
        };
        let end = info.offset.checked_add(length).ok_or_else(missing)?;
        let bytes = self.data.get(info.offset..end).ok_or_else(missing)?;
        Ok(if info.kind == 0 {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        } else {
            bytes
                .chunks_exact(Q8_BLOCK_BYTES)
                .flat_map(dequantised)
                .collect()
        })
    }
}

/// A Hugging Face weight name as GGUF has it.
#[must_use]
pub fn tensor_name(name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
        "model.norm.weight" => "output_norm.weight".to_owned(),
        "lm_head.weight" => "output.weight".to_owned(),
        _ => [
            ("model.layers.", "blk."),
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "ffn_norm"),
            ("self_attn.q_proj", "attn_q"),
            ("self_attn.k_proj", "attn_k"),
            ("self_attn.v_proj", "attn_v"),
            ("self_attn.o_proj", "attn_output"),
            ("mlp.gate_proj", "ffn_gate"),
            ("mlp.up_proj", "ffn_up"),
            ("mlp.down_proj", "ffn_down"),
        ]
        .iter()
        .fold(name.to_owned(), |name, (from, to)| name.replace(from, to)),
    }
}

/// The values of one Q8_0 block.
fn dequantised(block: &[u8]) -> impl Iterator<Item = f32> + '_ {
    let scale = half_to_f32(u16::from_le_bytes([block[0], block[1]]));
    block[2..]
        .iter()
        .map(move |value| scale * f32::from(value.cast_signed()))
}

/// IEEE 754 binary16 to binary32.
fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from((bits >> 10) & 0x1f);
    let fraction = f32::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], GgufError> {
        let end = self
            .at
            .checked_add(length)
            .ok_or(GgufError::Malformed("length"))?;
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(GgufError::Malformed("cut short"))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Result<u64, GgufError> {
        match self.u64()? {
            count if count <= MAX_ENTRIES => Ok(count),
            _ => Err(GgufError::Malformed("too many entries")),
        }
    }

    fn size(&mut self) -> Result<usize, GgufError> {
        usize::try_from(self.u64()?).map_err(|_| GgufError::Malformed("size"))
    }

    fn text(&mut self) -> Result<String, GgufError> {
        let length = self.size()?;
        let bytes = self.take(length)?.to_vec();
        String::from_utf8(bytes).map_err(|_| GgufError::Malformed("text"))
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::Integer(self.array().map(u8::from_le_bytes)?.into()),
            1 => Value::Integer(self.array().map(i8::from_le_bytes)?.into()),
            2 => Value::Integer(self.array().map(u16::from_le_bytes)?.into()),
            3 => Value::Integer(self.array().map(i16::from_le_bytes)?.into()),
            4 => Value::Integer(self.u32()?.into()),
            5 => Value::Integer(self.array().map(i32::from_le_bytes)?.into()),
            6 => Value::Float(self.array().map(f32::from_le_bytes)?.into()),
            7 => Value::Bool(self.take(1)?[0] != 0),
            8 => Value::Text(self.text()?),
            9 if depth == 0 => {
                let kind = self.u32()?;
                let count = self.count()?;
                let values: Result<_, _> = (0..count).map(|_| self.value(kind, 1)).collect();
                Value::Array(values?)
            }
            10 | 11 => Value::Integer(self.u64()?.cast_signed()),
            12 => Value::Float(self.array().map(f64::from_le_bytes)?),
            _ => return Err(GgufError::Malformed("value type")),
        })
    }

    fn tensor_info(&mut self) -> Result<TensorInfo, GgufError> {
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(GgufError::Malformed("dimensions"));
        }
        let sizes: Result<Vec<usize>, _> = (0..dimensions).map(|_| self.size()).collect();
        let mut sizes = sizes?;
        sizes.reverse();
        Ok(TensorInfo {
            sizes,
            kind: self.u32()?,
            offset: self.size()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_become_floats() {
        for (bits, value) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x0001, 2f32.powi(-24)),
        ] {
            assert!((half_to_f32(bits) - value).abs() < 1e-9, "{bits:#x}");
        }
        assert!(half_to_f32(0x7c00).is_infinite());
    }

    #[test]
    fn hostile_headers_are_refused_before_memory_is_taken() {
        assert!(Gguf::parse(b"").is_err());
        assert!(Gguf::parse(b"GGML\x02\0\0\0").is_err());
        let mut huge = b"GGUF\x03\0\0\0".to_vec();
        huge.extend(u64::MAX.to_le_bytes());
        huge.extend(1u64.to_le_bytes());
        assert_eq!(
            Gguf::parse(&huge).err(),
            Some(GgufError::Malformed("too many entries"))
        );
        let mut long_key = b"GGUF\x03\0\0\0".to_vec();
        long_key.extend(0u64.to_le_bytes());
        long_key.extend(1u64.to_le_bytes());
        long_key.extend(u64::MAX.to_le_bytes());
        assert!(Gguf::parse(&long_key).is_err());
    }
}
