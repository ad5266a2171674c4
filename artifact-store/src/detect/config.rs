//! The `config.json` of a Hugging Face directory, as far as packing needs it.

use serde::Deserialize;
use std::io::Read;

/// Most bytes of a `config.json`; the largest in use have some 100 KB.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What packing needs of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) context_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct Raw {
    max_position_embeddings: Option<u32>,
    text_config: Option<Text>,
}

/// Where a model of several modalities keeps it.
#[derive(Deserialize)]
struct Text {
    max_position_embeddings: Option<u32>,
}

pub(crate) fn read(file: impl Read) -> Result<Config, String> {
    let mut text = String::new();
    let read = file
        .take(MAX_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(|error| error.to_string())?;
    if read as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    let raw: Raw = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let nested = raw
        .text_config
        .and_then(|text| text.max_position_embeddings);
    Ok(Config {
        context_tokens: raw.max_position_embeddings.or(nested),
    })
}
