//! What came: a response of a gateway, in one piece or as a stream. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

/// One of the answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) finish: Option<String>,
    /// Name and arguments of each call of a tool.
    pub(super) calls: Vec<(String, String)>,
    /// What the tokens spell, where log probabilities were asked for.
    pub(super) spelt: Option<Vec<u8>>,
    /// The sealed receipt.
    pub(super) receipt: Option<Vec<u8>>,
}

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) prompt: u64,
    pub(super) completion: u64,
    pub(super) total: u64,
}

/// A response.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Reply {
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Option<Usage>,
    /// The error that it is, or that it ends with.
    pub(super) error: Option<Value>,
    /// Whether it said that it is at its end.
    pub(super) done: bool,
    /// Events of a stream with something of an answer.
    pub(super) pieces: usize,
    pending: Vec<u8>,
}

impl Reply {
    /// A response in one piece.
    pub(super) fn whole(body: &[u8]) -> Self {
        let mut reply = Self::default();
        if let Ok(body) = serde_json::from_slice::<Value>(body) {
            reply.read(&body, "message");
            reply.done = reply.error.is_none();
        }
        reply
    }

    /// The next bytes of a stream.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            let Some(data) = line.trim_ascii_end().strip_prefix(b"data: ") else {
                continue;
            };
            if data == b"[DONE]" {
                self.done = true;
            } else if let Ok(event) = serde_json::from_slice::<Value>(data) {
                self.pieces += usize::from(event["choices"].get(0).is_some());
                self.read(&event, "delta");
            }
        }
    }

    /// Why it is no answer, if it is none: it ended without an end, and without saying why.
    pub(super) fn silence(&self) -> Option<&'static str> {
        if !self.done {
            return Some("it ended without its end");
        }
        let unfinished = self.choices.iter().any(|it| it.finish.is_none());
        (unfinished || self.choices.is_empty()).then_some("it says nothing of why it ended")
    }

    fn read(&mut self, body: &Value, part: &str) {
        if !body["error"].is_null() {
            self.error = Some(body["error"].clone());
        }
        let count = |field: &str| body["usage"][field].as_u64();
        if let (Some(prompt), Some(completion), Some(total)) = (
            count("prompt_tokens"),
            count("completion_tokens"),
            count("total_tokens"),
        ) {
            self.usage = Some(Usage {
                prompt,
                completion,
                total,
            });
        }
        for piece in body["choices"].as_array().into_iter().flatten() {
            let index = piece["index"].as_u64().and_then(|it| it.try_into().ok());
            let index: usize = index.unwrap_or_default();
            // Far beyond every number of answers there is something else wrong.
            if index < 64 && self.choices.len() <= index {
                self.choices.resize_with(index + 1, Choice::default);
            }
            if let Some(choice) = self.choices.get_mut(index) {
                // Of several answers each has its own.
                let receipt = [&piece["tether"], &body["tether"]]
                    .into_iter()
                    .find_map(|it| STANDARD.decode(it["receipt"].as_str()?).ok());
                choice.receipt = receipt.or(choice.receipt.take());
                choice.read(piece, part);
            }
        }
    }
}

impl Choice {
    fn read(&mut self, piece: &Value, part: &str) {
        let said = &piece[part];
        self.text
            .push_str(said["content"].as_str().unwrap_or_default());
        for (at, call) in said["tool_calls"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let index = call["index"].as_u64().and_then(|it| it.try_into().ok());
            let index: usize = index.unwrap_or(at);
            if index == self.calls.len() {
                self.calls.push(Default::default());
            }
            if let Some((name, arguments)) = self.calls.get_mut(index) {
                let text = |field: &str| call["function"][field].as_str().unwrap_or_default();
                name.push_str(text("name"));
                arguments.push_str(text("arguments"));
            }
        }
        for token in piece["logprobs"]["content"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let spelt = self.spelt.get_or_insert_default();
            let bytes = token["bytes"].as_array().into_iter().flatten();
            spelt.extend(bytes.filter_map(|it| u8::try_from(it.as_u64()?).ok()));
        }
        if let Some(finish) = piece["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const USAGE: &str = r#"{"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}"#;

    fn stream(events: &[Value]) -> Reply {
        let text: String = events.iter().map(|it| format!("data: {it}\n\n")).collect();
        let mut reply = Reply::default();
        for bytes in text.as_bytes().chunks(5) {
            reply.take(bytes);
        }
        reply
    }

    #[test]
    fn a_stream_is_the_same_as_the_whole() {
        let usage: Value = serde_json::from_str(USAGE).expect("JSON");
        let call = |arguments: &str, name: Option<&str>| json!([{"index": 0, "function": {"name": name, "arguments": arguments}}]);
        let mut streamed = stream(&[
            json!({"choices": [{"index": 1, "delta": {"content": "é"}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": call("{", Some("f"))}}]}),
            json!({"choices": [{"index": 0, "delta": {"tool_calls": call("}", None)}}]}),
            json!({"choices": [
                {"index": 0, "delta": {}, "finish_reason": "tool_calls", "tether": {"receipt": "AAEC"}},
            ]}),
            json!({"choices": [{"index": 1, "delta": {}, "finish_reason": "stop"}]}),
            json!({"choices": [], "usage": usage}),
        ]);
        assert_eq!(streamed.silence(), Some("it ended without its end"));
        streamed.take(b"data: [DONE]\n\n");
        assert_eq!(streamed.silence(), None);
        assert_eq!(streamed.pieces, 5);
        let whole = Reply::whole(
            json!({"usage": usage, "choices": [
                {"index": 0, "finish_reason": "tool_calls", "tether": {"receipt": "AAEC"},
                 "message": {"content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}},
                {"index": 1, "finish_reason": "stop", "message": {"content": "é"}},
            ]})
            .to_string()
            .as_bytes(),
        );
        assert_eq!(whole.silence(), None);
        assert_eq!(
            (whole.choices, whole.usage),
            (streamed.choices, streamed.usage)
        );
    }

    #[test]
    fn what_breaks_off_is_no_answer() {
        let piece = json!({"choices": [{"index": 0, "delta": {"content": "a"}}]});
        let mut cut = stream(std::slice::from_ref(&piece));
        cut.take(b"data: [DONE]\n\n");
        assert_eq!(cut.silence(), Some("it says nothing of why it ended"));
        let told = stream(&[piece, json!({"error": {"code": "x"}})]);
        assert_eq!(told.error, Some(json!({"code": "x"})));
        assert!(Reply::whole(b"{\"choi").silence().is_some());
    }
}
