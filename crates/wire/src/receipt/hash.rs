//! What the digests of a receipt cover, so that a caller can compute them from what it holds.
//! [T-RCP-3], [T-RCP-4]

use crate::codec;
use crate::id::Digest;
use crate::infer::{CallDelta, Chunk, Input, MAX_TOOL_CALLS, Output, Sampling};
use ciborium::Value;
use serde::Serialize;

/// The digest of what was asked: BLAKE3 of a map `{input, output, sampling}` in the one form that
/// RFC 8949 (section 4.2.1) calls deterministic, without what is left at its default. The seed is
/// always there: it is the one that the answer was drawn from. [T-RCP-3]
#[must_use]
pub fn request(input: &Input, sampling: &Sampling, output: &Output, seed: u64) -> Digest {
    let given = Sampling {
        seed: Some(seed),
        ..sampling.clone()
    };
    let output =
        (!output.is_plain()).then(|| beside_defaults(value(output), value(&Output::default())));
    let asked = [
        ("input", value(input)),
        ("output", output.unwrap_or(Value::Null)),
        (
            "sampling",
            beside_defaults(value(&given), value(&Sampling::default())),
        ),
    ];
    let asked = (asked.into_iter()).map(|(name, value)| (Value::from(name), value));
    Digest::of(&codec::encode(&deterministic(Value::Map(asked.collect()))))
}

/// The digest of an answer's text: BLAKE3 of its UTF-8, which any `b3sum` computes. [T-RCP-4]
#[must_use]
pub fn text(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// The digests of an answer, as it comes.
#[derive(Clone, Default)]
pub struct Given {
    text: Box<blake3::Hasher>,
    tokens: Box<blake3::Hasher>,
    /// Whether any token came without its id.
    has_unnamed: bool,
    calls: Vec<Call>,
}

/// A call of a tool, as it comes.
#[derive(Clone)]
struct Call {
    name: Digest,
    arguments: Box<blake3::Hasher>,
}

impl Given {
    /// Takes the next piece.
    pub fn take(&mut self, chunk: &Chunk) {
        self.take_text(&chunk.text);
        self.take_tokens(&chunk.tokens);
        self.has_unnamed |= chunk.unnamed > 0;
        for delta in &chunk.calls {
            self.take_call(delta);
        }
    }

    /// Takes more of a call. Calls come in their order; one that leaves others out, or is more than
    /// an answer may have, is nothing that a right answer holds, and changes no digest.
    pub fn take_call(&mut self, delta: &CallDelta) {
        let index = delta.index as usize;
        if index == self.calls.len() && index < MAX_TOOL_CALLS {
            let name = delta.name.as_deref().unwrap_or_default();
            self.calls.push(Call {
                name: Digest::of(name.as_bytes()),
                arguments: Box::default(),
            });
        }
        if let Some(call) = self.calls.get_mut(index) {
            call.arguments.update(delta.arguments.as_bytes());
        }
    }

    /// Takes text.
    pub fn take_text(&mut self, text: &str) {
        self.text.update(text.as_bytes());
    }

    /// Takes the ids of tokens.
    pub fn take_tokens(&mut self, tokens: &[u32]) {
        for token in tokens {
            self.tokens.update(&token.to_be_bytes());
        }
    }

    /// Of the text until now.
    #[must_use]
    pub fn text(&self) -> Digest {
        Digest(*self.text.finalize().as_bytes())
    }

    /// Of the calls of tools until now, if any: BLAKE3 of the digests of name and arguments of each.
    /// [T-RCP-4]
    #[must_use]
    pub fn calls(&self) -> Option<Digest> {
        let mut all = blake3::Hasher::new();
        for call in &self.calls {
            all.update(&call.name.0);
            all.update(call.arguments.finalize().as_bytes());
        }
        (!self.calls.is_empty()).then(|| Digest(*all.finalize().as_bytes()))
    }

    /// Of the token ids until now: BLAKE3 of 4 bytes for each, big endian. Nothing where the engine
    /// does not tell them all. [T-RCP-4]
    #[must_use]
    pub fn tokens(&self) -> Option<Digest> {
        (!self.has_unnamed).then(|| Digest(*self.tokens.finalize().as_bytes()))
    }
}

impl std::fmt::Debug for Given {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The digest of a short text is as good as the text.
        f.write_str("Given")
    }
}

fn value(of: &impl Serialize) -> Value {
    Value::serialized(of).expect("our own types serialise to CBOR")
}

/// The fields of a map that say something else than the defaults do.
fn beside_defaults(map: Value, defaults: Value) -> Value {
    match (map, defaults) {
        (Value::Map(fields), Value::Map(defaults)) => Value::Map(
            (fields.into_iter())
                .filter(|field| !defaults.contains(field))
                .collect(),
        ),
        (map, _) => map,
    }
}

/// Every map in the order of its encoded keys, and without fields that are null.
fn deterministic(value: Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.into_iter().map(deterministic).collect()),
        Value::Map(fields) => {
            let mut fields: Vec<_> = (fields.into_iter())
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (codec::encode(&key), (key, deterministic(value))))
                .collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Map(fields.into_iter().map(|(_, field)| field).collect())
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::{Format, Message, Speaker};

    fn asked(input: &Input, sampling: &Sampling, seed: u64) -> Digest {
        request(input, sampling, &Output::default(), seed)
    }

    fn chat(words: &str) -> Input {
        Input::Chat(vec![Message::new(Speaker::User, words)])
    }

    #[test]
    fn a_request_with_defaults_written_out_is_the_same_request() {
        let plain = Sampling::default();
        let once = asked(&chat("hi"), &plain, 7);
        let spelt = Sampling {
            temperature: 1.0,
            seed: Some(7),
            ..Sampling::default()
        };
        assert_eq!(asked(&chat("hi"), &spelt, 7), once);
        // By hand, as another implementation would: keys in the order of their encoded bytes.
        let by_hand = [
            b"\xa2\x65input\xa1\x64chat\x81\xa2\x64role\x64user\x67content\x62hi".as_slice(),
            b"\x68sampling\xa1\x64seed\x07".as_slice(),
        ]
        .concat();
        assert_eq!(once, Digest::of(&by_hand));
    }

    #[test]
    fn whatever_changes_the_answer_changes_the_digest() {
        let plain = Sampling::default();
        let once = asked(&chat("hi"), &plain, 7);
        assert_ne!(asked(&chat("hi!"), &plain, 7), once);
        assert_ne!(asked(&Input::Text("hi".into()), &plain, 7), once);
        assert_ne!(asked(&chat("hi"), &plain, 8), once);
        let changes: [fn(&mut Sampling); 5] = [
            |s| s.max_tokens = Some(1),
            |s| s.temperature = 0.0,
            |s| s.top_k = 3,
            |s| s.stop = vec!["x".into()],
            |s| s.logit_bias = [(1, 0.5)].into(),
        ];
        for change in changes {
            let mut other = Sampling::default();
            change(&mut other);
            assert_ne!(asked(&chat("hi"), &other, 7), once);
        }
        let json = Output {
            format: Format::JsonObject,
            ..Output::default()
        };
        let plain = Sampling::default();
        assert_ne!(request(&chat("hi"), &plain, &json, 7), once);
        assert_eq!(request(&chat("hi"), &plain, &Output::default(), 7), once);
    }

    #[test]
    fn an_answer_has_the_same_digests_however_it_is_cut_into_pieces() {
        let chunk =
            |position, tokens: &[u32], text: &str| Chunk::new(position, tokens.to_vec(), text);
        let (mut whole, mut pieces) = (Given::default(), Given::default());
        whole.take(&chunk(0, &[1, 2, 700], "Paris"));
        pieces.take(&chunk(0, &[1], ""));
        pieces.take(&chunk(1, &[2, 700], "Par"));
        pieces.take(&chunk(3, &[], "is"));
        assert_eq!(whole.text(), pieces.text());
        assert_eq!(whole.tokens(), pieces.tokens());
        assert_eq!(whole.text(), text("Paris"));
        assert_eq!(
            whole.tokens(),
            Some(Digest::of(&[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 2, 188]))
        );
        pieces.take(&Chunk {
            position: 3,
            unnamed: 2,
            ..Chunk::default()
        });
        assert_eq!(pieces.tokens(), None, "not all are known");
    }

    #[test]
    fn calls_have_the_same_digest_however_their_arguments_are_cut() {
        let delta = |index, name: &str, arguments: &str| CallDelta {
            index,
            id: None,
            name: (!name.is_empty()).then(|| name.to_owned()),
            arguments: arguments.to_owned(),
        };
        let given = |deltas: &[CallDelta]| {
            let mut given = Given::default();
            for delta in deltas {
                given.take_call(delta);
            }
            given.calls()
        };
        assert_eq!(given(&[]), None);
        let whole = given(&[delta(0, "a", "{}"), delta(1, "b", "[1]")]);
        let cut = given(&[
            delta(0, "a", ""),
            delta(0, "", "{}"),
            delta(1, "b", "[1"),
            delta(1, "", "]"),
        ]);
        assert!(whole.is_some() && whole == cut);
        let other = given(&[delta(0, "a", "{}"), delta(1, "b", "[2]")]);
        assert_ne!(whole, other);
        let digests = ["a", "{}", "b", "[1]"].map(|part| Digest::of(part.as_bytes()).0);
        assert_eq!(whole, Some(Digest::of(&digests.concat())), "by hand");
        // Of a hostile worker: as many as there are indices.
        let mut endless = Given::default();
        for index in 0..10_000 {
            endless.take_call(&delta(index, "a", "x"));
        }
        assert_eq!(endless.calls.len(), MAX_TOOL_CALLS);
        endless.take_call(&delta(u32::MAX, "a", "x"));
    }
}
