//! Text to tokens and back, by a Hugging Face `tokenizer.json`.
//!
//! A GGUF file carries a tokenizer too, but without the pattern that splits text before merging, so
//! counts made from it would only be nearly right. `tokenizer.json` beside the weights is required.

use crate::text::fold::Detokenize;
use crate::text::template::SpecialTokens;
use crate::text::vocabulary::Vocabulary;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;
use tokenizers::{OffsetReferential, OffsetType, Tokenizer};

/// Largest `tokenizer.json`; the largest in use have some 30 MB.
const MAX_TOKENIZER_BYTES: u64 = 128 * 1024 * 1024;
/// Largest of the smaller JSON files beside it.
const MAX_CONFIG_BYTES: u64 = 16 * 1024 * 1024;
/// Ends of a turn, where no file names one.
const USUAL_ENDS: [&str; 6] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "</s>",
];

/// Why the text files of a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The tokenizer's file is not there.
    #[error("the model needs {0} beside its weights")]
    Missing(String),
    /// A file cannot be read.
    #[error("cannot read {file}: {why}")]
    Unreadable {
        /// Its name.
        file: String,
        /// In words of the system, or of the parser.
        why: String,
    },
    /// Nothing says which token ends an answer.
    #[error(
        "no file names the token that ends an answer: add generation_config.json with eos_token_id"
    )]
    NoEnd,
}

/// Reads a file of at most `limit` bytes; nothing when it does not exist.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TextError> {
    let unreadable = |why: String| TextError::Unreadable {
        file: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        why,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(unreadable(format!("it has more than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Reads a JSON file of a model; `null` when it does not exist.
pub(crate) fn read_json(path: &Path) -> Result<Value, TextError> {
    let Some(bytes) = read_bounded(path, MAX_CONFIG_BYTES)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|error| TextError::Unreadable {
        file: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        why: error.to_string(),
    })
}

/// A tokenizer, and the tokens that end an answer.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    eos: BTreeSet<u32>,
    /// Tokens that are told apart from text: ends and beginnings of turns and the like.
    special: BTreeSet<u32>,
    max_token_bytes: u32,
    size: usize,
    vocabulary: Vocabulary,
}

impl TextTokenizer {
    /// Reads `file` in the model's folder, and the configurations beside it.
    ///
    /// # Errors
    /// Names the file that is missing or wrong.
    pub fn load(root: &Path, file: &str) -> Result<Self, TextError> {
        let bytes = read_bounded(&root.join(file), MAX_TOKENIZER_BYTES)?
            .ok_or_else(|| TextError::Missing(file.to_owned()))?;
        let mut inner = Tokenizer::from_bytes(bytes).map_err(|error| TextError::Unreadable {
            file: file.to_owned(),
            why: error.to_string(),
        })?;
        // What was right for training would make counts wrong.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|error| TextError::Unreadable {
                file: file.to_owned(),
                why: error.to_string(),
            })?;
        let config = read_json(&root.join("tokenizer_config.json"))?;
        let declared = [
            read_json(&root.join("generation_config.json"))?,
            read_json(&root.join("config.json"))?,
        ];
        let eos = ends(&inner, &config, &declared);
        if eos.is_empty() {
            return Err(TextError::NoEnd);
        }
        let max_token_bytes = inner.get_vocab(true).keys().map(String::len).max();
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        let added = inner.get_added_tokens_decoder();
        let beyond = added.keys().max().map_or(0, |id| *id as usize + 1);
        let size = inner.get_vocab_size(true).max(beyond);
        Ok(Self {
            vocabulary: Vocabulary::new(&inner, size),
            size,
            inner,
            eos,
            special,
            max_token_bytes: max_token_bytes
                .and_then(|most| u32::try_from(most).ok())
                .map_or(u32::MAX, |most| most.max(1)),
        })
    }

    /// Tokens that end an answer.
    #[must_use]
    pub fn eos(&self) -> &BTreeSet<u32> {
        &self.eos
    }

    /// Number of tokens; ids are below it. A model may have more rows than that, which mean nothing.
    #[must_use]
    pub fn vocabulary(&self) -> usize {
        self.size
    }

    /// The bytes of text that a token stands for, which may be part of a character; none of one that
    /// is special or no token.
    #[must_use]
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.vocabulary.bytes(id)
    }

    /// The token that is spelt so and no text, where there is one.
    pub(crate) fn special(&self, spelling: &str) -> Option<u32> {
        let id = self.inner.token_to_id(spelling)?;
        self.special.contains(&id).then_some(id)
    }

    /// Most bytes of text that one token stands for, by the longest entry of the vocabulary: its
    /// way to write bytes and blanks as characters makes that more than it is, never less.
    #[must_use]
    pub fn max_token_bytes(&self) -> u32 {
        self.max_token_bytes
    }

    /// The tokens of a text. `special` adds what the tokenizer puts around a whole text; a rendered
    /// chat has it already.
    ///
    /// # Errors
    /// In the tokenizer's words.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, String> {
        let encoding = self
            .inner
            .encode_fast(text, special)
            .map_err(|error| error.to_string())?;
        Ok(encoding.get_ids().to_vec())
    }
}

impl TextTokenizer {
    /// The special tokens that [`TextTokenizer::encode`] finds in a text, ascending, and where.
    pub(crate) fn specials(&self, text: &str) -> Vec<(u32, Range<usize>)> {
        let added = self.inner.get_added_vocabulary();
        let split = added.extract_and_normalize(self.inner.get_normalizer(), text);
        split
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .filter_map(|(_, (start, end), found)| {
                let mut found = found.as_ref()?.iter().map(|token| token.id);
                let id = found.find(|id| self.special.contains(id))?;
                Some((id, start..end))
            })
            .collect()
    }
}

impl Detokenize for TextTokenizer {
    fn detokenize(&self, tokens: &[u32]) -> String {
        // The only failure is a decoder that was built wrongly; then there is no text to give.
        self.inner.decode(tokens, true).unwrap_or_default()
    }
}

/// The names in `tokenizer_config.json`.
#[must_use]
pub(crate) fn special_tokens(config: &Value) -> SpecialTokens {
    SpecialTokens {
        bos: token_name(&config["bos_token"]),
        eos: token_name(&config["eos_token"]),
        pad: token_name(&config["pad_token"]),
        unk: token_name(&config["unk_token"]),
    }
}

/// A token by its text, or an object with its `content`.
fn token_name(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value["content"].as_str());
    text.map(str::to_owned)
}

fn ends(tokenizer: &Tokenizer, config: &Value, declared: &[Value]) -> BTreeSet<u32> {
    let known = |id: u64| {
        u32::try_from(id)
            .ok()
            .filter(|id| tokenizer.id_to_token(*id).is_some())
    };
    let mut eos: BTreeSet<u32> = declared
        .iter()
        .flat_map(|file| match &file["eos_token_id"] {
            Value::Array(ids) => ids.iter().filter_map(Value::as_u64).collect(),
            one => Vec::from_iter(one.as_u64()),
        })
        .filter_map(known)
        .collect();
    let named = token_name(&config["eos_token"]);
    eos.extend(named.and_then(|name| tokenizer.token_to_id(&name)));
    if eos.is_empty() {
        eos.extend(
            USUAL_ENDS
                .iter()
                .filter_map(|name| tokenizer.token_to_id(name)),
        );
    }
    eos
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::fold::{Fold, Limits};

    /// A byte-level tokenizer of the small model, without any of its other files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        let tokenizer = tether_tiny_model::file("tokenizer.json").expect("committed");
        std::fs::write(folder.path().join("tokenizer.json"), tokenizer).expect("write");
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).expect("write");
        }
        folder
    }

    fn load(files: &[(&str, &str)]) -> Result<TextTokenizer, TextError> {
        TextTokenizer::load(folder(files).path(), "tokenizer.json")
    }

    #[test]
    fn any_text_survives_there_and_back_token_by_token() {
        let tokenizer = load(&[]).expect("loads");
        for text in ["Hello, world!", " naïve 🌍🏳️‍🌈 \n\n\t日本語", "", "  "] {
            let tokens = tokenizer.encode(text, false).expect("encodes");
            let limits = Limits {
                eos: tokenizer.eos().clone(),
                max_tokens: u32::MAX,
                ..Limits::default()
            };
            let mut fold = Fold::new(&tokenizer, limits);
            let folded: String = tokens
                .iter()
                .filter_map(|token| fold.push(*token))
                .map(|step| step.chunk.text)
                .collect();
            assert_eq!(folded, text);
        }
    }

    #[test]
    fn every_way_to_name_the_end_is_understood() {
        let one = load(&[("generation_config.json", r#"{"eos_token_id": 1}"#)]).expect("one");
        assert_eq!(one.eos().len(), 1);
        let two = load(&[(
            "generation_config.json",
            r#"{"eos_token_id": [1, 2, 999999]}"#,
        )]);
        assert_eq!(two.expect("two").eos(), &BTreeSet::from([1, 2]));
        let named = load(&[(
            "tokenizer_config.json",
            r#"{"eos_token": {"content": "<|end|>"}}"#,
        )]);
        assert_eq!(named.expect("named").eos().len(), 1);
        let usual = load(&[]).expect("a usual name");
        assert_eq!(usual.eos(), one.eos());
    }

    #[test]
    fn what_is_missing_or_broken_is_named() {
        let empty = tempfile::tempdir().expect("folder");
        let error = TextTokenizer::load(empty.path(), "tokenizer.json").expect_err("missing");
        assert!(
            error.to_string().contains("needs tokenizer.json beside"),
            "{error}"
        );
        let error = load(&[("generation_config.json", "{")]).expect_err("broken");
        assert!(
            error.to_string().contains("generation_config.json"),
            "{error}"
        );
        std::fs::write(empty.path().join("tokenizer.json"), "{}").expect("write");
        let error = TextTokenizer::load(empty.path(), "tokenizer.json").expect_err("broken");
        assert!(matches!(error, TextError::Unreadable { .. }), "{error}");
    }

    #[test]
    fn a_file_over_its_limit_is_not_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("big");
        std::fs::write(&path, [0; 11]).expect("write");
        assert!(read_bounded(&path, 11).expect("fits").is_some());
        assert!(read_bounded(&path, 10).is_err());
    }
}
