//! The `config.json` of a Hugging Face directory, as far as packing needs it.

use serde::Deserialize;
use std::io::Read;

/// Most bytes of a `config.json`; the largest in use have some 100 KB.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// What packing needs of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) context_tokens: Option<u32>,
    pub(crate) cache_width: Option<u32>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(flatten)]
    text: Text,
    text_config: Option<Text>,
}

/// Where a model of several modalities keeps it.
#[derive(Deserialize)]
struct Text {
    max_position_embeddings: Option<u32>,
    num_hidden_layers: Option<u32>,
    num_attention_heads: Option<u32>,
    num_key_value_heads: Option<u32>,
    head_dim: Option<u32>,
    hidden_size: Option<u32>,
}

impl Text {
    fn cache_width(&self) -> Option<u32> {
        let heads = self.num_attention_heads.filter(|heads| *heads > 0)?;
        let width = match self.head_dim {
            Some(width) => width,
            None => self.hidden_size? / heads,
        };
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        cache_width(self.num_hidden_layers?, kv_heads, width, width)
    }
}

/// Keys and values of one token over all layers; nothing where it cannot be.
pub(crate) fn cache_width(layers: u32, heads: u32, key: u32, value: u32) -> Option<u32> {
    let width = layers
        .checked_mul(heads)?
        .checked_mul(key.checked_add(value)?)?;
    (width > 0).then_some(width)
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
    let Raw { text, text_config } =
        serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let nested = text_config.as_ref();
    Ok(Config {
        context_tokens: (text.max_position_embeddings).or_else(|| nested?.max_position_embeddings),
        cache_width: text.cache_width().or_else(|| nested?.cache_width()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_width_of_the_cache_follows_from_heads_and_layers() {
        let width = |text: &str| read(text.as_bytes()).expect("JSON").cache_width;
        let llama = r#"{"num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "hidden_size": 4096}"#;
        assert_eq!(width(llama), Some(65_536));
        let nested = format!(r#"{{"text_config": {llama}}}"#);
        assert_eq!(width(&nested), Some(65_536));
        assert_eq!(width("{}"), None);
        let absurd = r#"{"num_hidden_layers": 4294967295, "num_attention_heads": 4294967295,
            "head_dim": 4294967295}"#;
        assert_eq!(width(absurd), None);
    }
}
