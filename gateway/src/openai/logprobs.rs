//! Logarithmic probabilities of tokens, as OpenAI has them.

use serde::{Serialize, Serializer};
use std::fmt::Write;
use tether_wire::infer::{MIN_LOGPROB, TokenLogprob};

/// `logprobs` of a choice.
#[derive(Serialize)]
pub(super) struct Logprobs<'a> {
    content: Content<'a>,
    refusal: Option<()>,
}

impl<'a> Logprobs<'a> {
    pub(super) fn new(tokens: &'a [TokenLogprob]) -> Self {
        Self {
            content: Content(tokens),
            refusal: None,
        }
    }
}

/// Tokens that stand for something: that which ended the answer is none of its content.
struct Content<'a>(&'a [TokenLogprob]);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let shown = self.0.iter().filter(|token| !token.bytes.is_empty());
        serializer.collect_seq(shown.map(|token| Token {
            likely: Likely::new(token.token, token.logprob, &token.bytes),
            top_logprobs: Top(token),
        }))
    }
}

#[derive(Serialize)]
struct Token<'a> {
    #[serde(flatten)]
    likely: Likely<'a>,
    top_logprobs: Top<'a>,
}

struct Top<'a>(&'a TokenLogprob);

impl Serialize for Top<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let top = self.0.top.iter();
        serializer.collect_seq(top.map(|it| Likely::new(it.token, it.logprob, &it.bytes)))
    }
}

#[derive(Serialize)]
struct Likely<'a> {
    token: String,
    logprob: f32,
    /// Nothing where the token stands for no text.
    bytes: Option<&'a [u8]>,
}

impl<'a> Likely<'a> {
    fn new(id: u32, logprob: f32, bytes: &'a [u8]) -> Self {
        // JSON has no numbers for what is none.
        let logprob = if logprob.is_nan() {
            MIN_LOGPROB
        } else {
            logprob
        };
        Self {
            token: text(id, bytes),
            logprob: logprob.clamp(MIN_LOGPROB, 0.0),
            bytes: (!bytes.is_empty()).then_some(bytes),
        }
    }
}

/// A token as text. Part of a character is written as OpenAI does, `\xf0\x9f`; one that stands for
/// no text by its id, as vLLM does.
fn text(id: u32, bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return format!("token_id:{id}");
    }
    std::str::from_utf8(bytes).map_or_else(
        |_| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "\\x{byte:02x}");
                text
            })
        },
        str::to_owned,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use tether_wire::infer::TopLogprob;

    #[test]
    fn tokens_are_text_bytes_and_the_likely_ones_beside_them() {
        let top = |token, logprob, bytes: &[u8]| TopLogprob {
            token,
            logprob,
            bytes: bytes.to_vec(),
        };
        let token = |token, logprob, bytes: &[u8], top| TokenLogprob {
            token,
            logprob,
            bytes: bytes.to_vec(),
            top,
        };
        let tokens = [
            token(
                7,
                -0.5,
                b"Par",
                vec![top(7, -0.5, b"Par"), top(2, f32::NAN, b"")],
            ),
            token(8, f32::NEG_INFINITY, b"\xf0\x9f", Vec::new()),
            token(2, 0.5, b"", Vec::new()),
        ];
        let expected = json!({
            "content": [
                {"token": "Par", "logprob": -0.5, "bytes": [80, 97, 114], "top_logprobs": [
                    {"token": "Par", "logprob": -0.5, "bytes": [80, 97, 114]},
                    {"token": "token_id:2", "logprob": -9999.0, "bytes": null},
                ]},
                {"token": "\\xf0\\x9f", "logprob": -9999.0, "bytes": [240, 159], "top_logprobs": []},
            ],
            "refusal": null,
        });
        let found = serde_json::to_value(Logprobs::new(&tokens)).expect("JSON");
        assert_eq!(found, expected);
    }
}
