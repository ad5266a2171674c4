//! One streamed answer, with the times of its pieces.

use crate::events::Events;
use crate::mesh::{MODEL, client};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime};

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Question {
    text: String,
    temperature: f64,
    seed: u64,
}

impl Question {
    /// Half of them are greedy, the others drawn, each with a seed of its own.
    pub(super) fn nth(number: usize) -> Self {
        let to = 40 + 10 * (number % 12);
        Self {
            text: format!("Count to {to}."),
            temperature: if number.is_multiple_of(2) { 0.0 } else { 0.8 },
            seed: number as u64,
        }
    }
}

/// What was told for a question.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Told {
    pub(super) text: String,
    pub(super) finish: Option<String>,
    pub(super) completion_tokens: u64,
    pub(super) prompt_tokens: u64,
    /// Why it is no whole answer.
    pub(super) error: Option<String>,
    /// The longest time between two pieces, once the first was there.
    pub(super) gap: Duration,
    /// When that ended.
    pub(super) gap_until: Option<SystemTime>,
    /// Its name in the logs.
    pub(super) correlation: String,
    pub(super) first: Option<Duration>,
}

impl Told {
    /// What has to be equal.
    pub(super) fn content(&self) -> (&str, Option<&str>, u64, u64) {
        let finish = self.finish.as_deref();
        (
            &self.text,
            finish,
            self.completion_tokens,
            self.prompt_tokens,
        )
    }
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Asker {
    client: reqwest::Client,
    url: String,
    key: String,
}

impl Asker {
    pub(super) fn new(gateway: &str, key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client()?,
            url: format!("{gateway}/v1/chat/completions"),
            key: key.to_owned(),
        })
    }

    pub(super) async fn ask(&self, question: &Question) -> Told {
        let mut told = Told::default();
        if let Err(error) = self.stream(question, &mut told).await {
            told.error = Some(error);
        }
        told
    }

    async fn stream(&self, question: &Question, told: &mut Told) -> Result<(), String> {
        let began = Instant::now();
        let request = self.client.post(&self.url).bearer_auth(&self.key);
        let request = request.json(&json!({
            "model": MODEL,
            "messages": [{"role": "user", "content": question.text}],
            "temperature": question.temperature,
            "seed": question.seed,
            "max_tokens": 256,
            "stream": true,
            "stream_options": {"include_usage": true},
        }));
        let mut response = request.send().await.map_err(|it| it.to_string())?;
        let correlation = response.headers().get("x-tether-correlation-id");
        let correlation = correlation.and_then(|it| it.to_str().ok());
        told.correlation = correlation.unwrap_or_default().to_owned();
        let status = response.status();
        if !status.is_success() {
            return Err(format!(
                "{status}: {}",
                response.text().await.unwrap_or_default()
            ));
        }
        let (mut events, mut last) = (Events::default(), None);
        while let Some(bytes) = response.chunk().await.map_err(|it| it.to_string())? {
            let now = Instant::now();
            for event in events.take(&bytes)? {
                if told.take(&event) {
                    told.first.get_or_insert(now - began);
                    let gap = last.map_or(Duration::ZERO, |last| now - last);
                    if gap > told.gap {
                        told.gap = gap;
                        told.gap_until = Some(SystemTime::now());
                    }
                    last = Some(now);
                }
            }
        }
        if events.is_done() {
            Ok(())
        } else {
            Err("the stream ended without its end".to_owned())
        }
    }
}

impl Told {
    /// Whether the event is a piece.
    fn take(&mut self, event: &Value) -> bool {
        let choice = &event["choices"][0];
        let piece = choice["delta"]["content"].as_str().unwrap_or_default();
        self.text.push_str(piece);
        if let Some(finish) = choice["finish_reason"].as_str() {
            self.finish = Some(finish.to_owned());
        }
        let usage = &event["usage"];
        if let (Some(completion), Some(prompt)) = (
            usage["completion_tokens"].as_u64(),
            usage["prompt_tokens"].as_u64(),
        ) {
            (self.completion_tokens, self.prompt_tokens) = (completion, prompt);
        }
        !piece.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_and_counts_are_read() {
        let mut told = Told::default();
        assert!(told.take(&json!({"choices": [{"delta": {"content": "a"}}]})));
        assert!(!told.take(&json!({"choices": [{"delta": {}, "finish_reason": "stop"}]})));
        let usage = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
        assert!(!told.take(&usage));
        assert_eq!(told.content(), ("a", Some("stop"), 2, 3));
    }

    #[test]
    fn half_of_the_questions_are_greedy_and_no_two_have_a_seed() {
        let some: Vec<Question> = (0..10).map(Question::nth).collect();
        assert_eq!(some.iter().filter(|it| it.temperature == 0.0).count(), 5);
        assert!(some.windows(2).all(|pair| pair[0].seed != pair[1].seed));
    }
}
