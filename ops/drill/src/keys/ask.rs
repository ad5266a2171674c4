//! A request under a key, and all that is told of its answer.

use crate::events::Events;
use crate::mesh::{MODEL, client};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// What is asked, and under which key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    key: String,
    text: String,
    /// Each second one: its tokens are told one by one.
    logprobs: bool,
}

impl Question {
    /// Long enough that its answer is still given when its orchestrator is killed. All are drawn, and
    /// from a seed that nobody gave: a second run would say something else.
    pub(super) fn nth(number: usize) -> Self {
        Self {
            key: format!("drill-{number}"),
            text: format!("Count to {}.", 120 + number % 30),
            logprobs: number % 2 == 1,
        }
    }

    /// Another question under the same key.
    pub(super) fn other(&self) -> Self {
        Self {
            text: "What is the capital of France?".to_owned(),
            ..self.clone()
        }
    }

    fn body(&self, stream: bool) -> Value {
        let mut body = json!({
            "model": MODEL,
            "messages": [{"role": "user", "content": self.text}],
            "temperature": 0.8,
            "max_tokens": 256,
            "logprobs": self.logprobs,
        });
        if stream {
            body["stream"] = true.into();
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }
}

/// All of an answer that does not depend on how it was asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Content {
    pub(super) text: String,
    pub(super) finish: Option<String>,
    pub(super) usage: Value,
    pub(super) id: Value,
    pub(super) created: Value,
    pub(super) seed: Value,
    /// What the worker signed: the ids of all tokens are part of it.
    pub(super) receipt: Value,
    /// Of each token, where they were asked for.
    pub(super) tokens: Vec<Value>,
}

impl Content {
    /// Tokens that were counted for prompt or answer.
    pub(super) fn counted(&self, of: &str) -> u64 {
        self.usage[of].as_u64().unwrap_or_default()
    }

    /// Takes a whole answer, or an event of a stream. Whether it has some of the text.
    fn take(&mut self, body: &Value) -> bool {
        let keep = |into: &mut Value, from: &Value| {
            if !from.is_null() {
                into.clone_from(from);
            }
        };
        keep(&mut self.usage, &body["usage"]);
        keep(&mut self.id, &body["id"]);
        keep(&mut self.created, &body["created"]);
        keep(&mut self.seed, &body["tether"]["seed"]);
        keep(&mut self.receipt, &body["tether"]["receipt"]);
        let choice = &body["choices"][0];
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
        let tokens = choice["logprobs"]["content"].as_array();
        self.tokens.extend(tokens.into_iter().flatten().cloned());
        let part = ["delta", "message"].map(|part| choice[part]["content"].as_str());
        let part = part.into_iter().flatten().next().unwrap_or_default();
        self.text.push_str(part);
        !part.is_empty()
    }
}

/// What was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) content: Content,
    /// Why it is no whole answer: status, if it came so far, and what was said.
    pub(super) error: Option<(u16, String)>,
    pub(super) took: Duration,
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Asker {
    client: reqwest::Client,
    url: String,
    api_key: String,
}

impl Asker {
    pub(super) fn new(gateway: &str, api_key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client()?,
            url: format!("{gateway}/v1/chat/completions"),
            api_key: api_key.to_owned(),
        })
    }

    /// One answer. `began` is told of the first piece of it.
    pub(super) async fn ask(&self, question: &Question, stream: bool, began: &Notify) -> Told {
        let at = Instant::now();
        let mut content = Content::default();
        let error = self.take(question, stream, &mut content, began).await.err();
        Told {
            content,
            error,
            took: at.elapsed(),
        }
    }

    async fn take(
        &self,
        question: &Question,
        stream: bool,
        content: &mut Content,
        began: &Notify,
    ) -> Result<(), (u16, String)> {
        let broken = |error: reqwest::Error| (0, error.to_string());
        let request = (self.client.post(&self.url).bearer_auth(&self.api_key))
            .header("idempotency-key", &question.key)
            .json(&question.body(stream));
        let mut response = request.send().await.map_err(broken)?;
        let status = response.status().as_u16();
        if status != 200 || !stream {
            let text = response.text().await.map_err(broken)?;
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            if status != 200 || !body["error"].is_null() {
                return Err((status, text));
            }
            content.take(&body);
            return Ok(());
        }
        let mut events = Events::default();
        while let Some(bytes) = response.chunk().await.map_err(broken)? {
            for event in events.take(&bytes).map_err(|why| (status, why))? {
                if content.take(&event) {
                    began.notify_one();
                }
            }
        }
        if events.is_done() {
            return Ok(());
        }
        Err((status, "the stream ended without its end".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_and_a_whole_answer_are_the_same_content() {
        let tether = json!({"seed": 7, "receipt": "abc", "worker": "w"});
        let token = |text: &str| json!({"token": text, "logprob": -0.5});
        let usage = json!({"prompt_tokens": 3, "completion_tokens": 2});
        let whole = json!({
            "id": "i", "created": 5, "usage": usage, "tether": tether,
            "choices": [{
                "message": {"content": "ab"}, "finish_reason": "stop",
                "logprobs": {"content": [token("a"), token("b")]},
            }],
        });
        let piece = |text: &str| {
            json!({"id": "i", "created": 5, "choices": [{
                "delta": {"content": text}, "logprobs": {"content": [token(text)]},
            }]})
        };
        let mut content = Content::default();
        assert!(content.take(&whole));
        let mut streamed = Content::default();
        assert!(streamed.take(&piece("a")) && streamed.take(&piece("b")));
        let last = json!({"choices": [{"delta": {}, "finish_reason": "stop"}], "tether": tether});
        assert!(!streamed.take(&last));
        assert!(!streamed.take(&json!({"choices": [], "usage": usage})));
        assert_eq!(content, streamed);
        assert_eq!(content.counted("completion_tokens"), 2);
    }

    #[test]
    fn how_it_is_asked_for_is_no_part_of_the_question() {
        let question = Question::nth(1);
        let (streamed, whole) = (question.body(true), question.body(false));
        for field in ["model", "messages", "temperature", "max_tokens", "logprobs"] {
            assert_eq!(streamed[field], whole[field]);
        }
        assert_ne!(question.other().body(false), whole);
    }
}
