//! The bytes that each token stands for.
//!
//! Text is made of tokens by the tokenizer's own decoder, which looks at neighbours. A grammar and
//! whoever reads probabilities need each token by itself: its exact bytes, which may be part of a
//! character. Vocabularies write bytes as characters in one of two ways: a printable character for
//! each byte (GPT-2), or `<0xNN>` beside text with `▁` for a blank (SentencePiece).

use serde_json::Value;
use std::collections::HashMap;
use tokenizers::Tokenizer;

/// The bytes of tokens, by their ids; none of those that are not text.
#[derive(Debug)]
pub(crate) struct Vocabulary(Vec<Box<[u8]>>);

/// How a vocabulary writes bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// A printable character for each byte.
    Printable,
    /// `<0xNN>`, and `▁` for a blank.
    Named,
    /// As it is.
    Plain,
}

impl Vocabulary {
    /// Reads every token once. `size` is one more than the greatest id.
    pub(crate) fn new(tokenizer: &Tokenizer, size: usize) -> Self {
        let spelling = spelling(tokenizer);
        let printable = printable();
        let added = tokenizer.get_added_tokens_decoder();
        let bytes = |id: u32| -> Vec<u8> {
            if let Some(token) = added.get(&id) {
                let text = if token.special { "" } else { &token.content };
                return text.as_bytes().to_vec();
            }
            let Some(entry) = tokenizer.id_to_token(id) else {
                return Vec::new();
            };
            match spelling {
                Spelling::Printable => entry
                    .chars()
                    .map(|char| printable.get(&char).copied())
                    .collect::<Option<_>>()
                    .unwrap_or_else(|| entry.into_bytes()),
                Spelling::Named => named_byte(&entry)
                    .map_or_else(|| entry.replace('▁', " ").into_bytes(), |byte| vec![byte]),
                Spelling::Plain => entry.into_bytes(),
            }
        };
        let ids = 0..u32::try_from(size).unwrap_or(u32::MAX);
        Self(ids.map(|id| bytes(id).into_boxed_slice()).collect())
    }

    /// The bytes of a token; none for what is no token, or not text.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        self.0.get(id as usize).map_or(&[], |bytes| bytes)
    }
}

/// The decoder says it.
fn spelling(tokenizer: &Tokenizer) -> Spelling {
    fn kinds(value: &Value, found: &mut Vec<String>) {
        if let Some(kind) = value["type"].as_str() {
            found.push(kind.to_owned());
        }
        let inner = value["decoders"].as_array().into_iter().flatten();
        inner.for_each(|value| kinds(value, found));
    }
    let mut found = Vec::new();
    let decoder = tokenizer.get_decoder().map(serde_json::to_value);
    if let Some(Ok(decoder)) = decoder {
        kinds(&decoder, &mut found);
    }
    let has = |kind: &str| found.iter().any(|it| it == kind);
    if has("ByteLevel") {
        Spelling::Printable
    } else if has("ByteFallback") || has("Metaspace") {
        Spelling::Named
    } else {
        Spelling::Plain
    }
}

/// GPT-2's characters for bytes: those that can be printed are themselves, the others follow from
/// U+0100 on.
fn printable() -> HashMap<char, u8> {
    let is_itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let mut next = 0x100..;
    (0..=u8::MAX)
        .filter_map(|byte| {
            let char = if is_itself(byte) {
                char::from(byte)
            } else {
                char::from_u32(next.next()?)?
            };
            Some((char, byte))
        })
        .collect()
}

/// `<0x0A>` and its like.
fn named_byte(entry: &str) -> Option<u8> {
    let digits = entry.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(json: &str, size: usize) -> Vocabulary {
        let tokenizer = Tokenizer::from_bytes(json).expect("a tokenizer");
        Vocabulary::new(&tokenizer, size)
    }

    #[test]
    fn the_small_models_tokens_are_their_bytes() {
        let json = tether_tiny_model::file("tokenizer.json").expect("committed");
        let tokenizer = Tokenizer::from_bytes(json).expect("a tokenizer");
        let vocabulary = Vocabulary::new(&tokenizer, tokenizer.get_vocab_size(true));
        for text in ["Hello, world!\n", " naïve 🌍 \u{ad}\u{0}\u{7f}", "日本語"] {
            let tokens = tokenizer.encode(text, false).expect("encodes");
            let ids = tokens.get_ids().iter();
            let bytes: Vec<u8> = ids.flat_map(|id| vocabulary.bytes(*id)).copied().collect();
            assert_eq!(bytes, text.as_bytes());
        }
        // Each byte is a token of its own, and the special ones are no text.
        let alone = |byte: u8| (0..512).any(|id| vocabulary.bytes(id) == [byte]);
        assert!((0..=u8::MAX).all(alone));
        assert!((0..5).all(|id| vocabulary.bytes(id).is_empty()));
        assert!(vocabulary.bytes(u32::MAX).is_empty());
    }

    #[test]
    fn bytes_that_are_named_are_read() {
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[
            {"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
            {"id":4,"content":"<tool_call>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}],
            "normalizer":null,"pre_tokenizer":null,"post_processor":null,
            "decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":{"String":"▁"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},
            "model":{"type":"BPE","vocab":{"<s>":0,"<0xC3>":1,"▁a":2,"b":3,"<tool_call>":4,"<0xZZ>":5},"merges":[],"byte_fallback":true}}"#;
        let vocabulary = vocabulary(json, 6);
        assert_eq!(vocabulary.bytes(0), b"");
        assert_eq!(vocabulary.bytes(1), [0xc3]);
        assert_eq!(vocabulary.bytes(2), b" a");
        assert_eq!(vocabulary.bytes(4), b"<tool_call>");
        assert_eq!(vocabulary.bytes(5), b"<0xZZ>");
    }
}
