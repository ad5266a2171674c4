//! Names, sizes and kinds of the tensors in a file of safetensors:
//! <https://github.com/huggingface/safetensors#format>. Their numbers are not read.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufReader, Read};

/// Most bytes of a header; one of 10,000 tensors has some 1.5 MB.
const MAX_HEADER_BYTES: u64 = 16 * 1024 * 1024;

/// The tensors of one file, or of several that make up a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes(BTreeMap<String, Tensor>);

/// One tensor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Tensor {
    /// How its numbers are written.
    pub dtype: String,
    /// Its sizes.
    pub shape: Vec<u64>,
}

impl Shapes {
    /// Reads a header.
    ///
    /// # Errors
    /// Why it is none.
    pub fn read(file: impl Read) -> Result<Self, String> {
        let mut file = BufReader::new(file);
        let mut len = [0; 8];
        let truncated = |_| "it ends in the middle of its header".to_owned();
        file.read_exact(&mut len).map_err(truncated)?;
        let len = u64::from_le_bytes(len);
        if len > MAX_HEADER_BYTES {
            return Err(format!("it claims a header of {len} bytes"));
        }
        let mut bytes = Vec::new();
        (file.take(len).read_to_end(&mut bytes)).map_err(|error| error.to_string())?;
        if (bytes.len() as u64) < len {
            return Err("it ends in the middle of its header".to_owned());
        }
        let mut values: BTreeMap<String, serde_json::Value> =
            serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
        values.remove("__metadata__");
        let tensors = values.into_iter().map(|(name, value)| {
            let tensor =
                serde_json::from_value(value).map_err(|error| format!("{name}: {error}"))?;
            Ok((name, tensor))
        });
        tensors.collect::<Result<_, String>>().map(Self)
    }

    /// Takes in another file of the same model.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The tensor of a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.0.get(name)
    }

    /// All tensors, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }
}
