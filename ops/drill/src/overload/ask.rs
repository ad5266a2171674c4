//! One streamed answer, or why there is none.

use crate::events::Events;
use crate::load::Question;
use crate::mesh::{PATIENCE, client};
use anyhow::ensure;
use serde_json::json;
use std::time::{Duration, Instant};

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum End {
    /// With the whole answer, and the right one.
    Whole,
    /// 429 or 503 before anything of an answer, and when to come again.
    Refused { retry_after: Option<Duration> },
    /// In any other way.
    Broken(String),
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) at: Instant,
    /// Until the first piece of its answer.
    pub(super) first: Option<Duration>,
    pub(super) took: Duration,
    pub(super) end: End,
}

/// Who asks.
#[derive(Clone)]
pub(super) struct Asker {
    client: reqwest::Client,
    gateway: String,
    key: String,
}

impl Asker {
    pub(super) fn new(gateway: &str, key: &str) -> anyhow::Result<Self> {
        Ok(Self {
            client: client()?,
            gateway: gateway.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Waits until the gateway has heard of the key.
    pub(super) async fn until_known(&self) -> anyhow::Result<()> {
        let (url, begin) = (format!("{}/v1/models", self.gateway), Instant::now());
        while !(self.client.get(&url).bearer_auth(&self.key).send().await)
            .is_ok_and(|it| it.status().is_success())
        {
            ensure!(
                begin.elapsed() < PATIENCE,
                "a tenant's key is not known at its gateway"
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        Ok(())
    }

    pub(super) async fn ask(&self, question: &Question) -> Asked {
        let at = Instant::now();
        let mut first = None;
        let end = self.stream(question, at, &mut first).await;
        Asked {
            at,
            first,
            took: at.elapsed(),
            end: end.unwrap_or_else(End::Broken),
        }
    }

    async fn stream(
        &self,
        question: &Question,
        at: Instant,
        first: &mut Option<Duration>,
    ) -> Result<End, String> {
        let url = format!("{}/v1/chat/completions", self.gateway);
        let request = self.client.post(url).bearer_auth(&self.key).json(&json!({
            "model": question.model,
            "messages": [{"role": "user", "content": question.text}],
            "max_tokens": question.answer.split(' ').count(),
            "stream": true,
        }));
        let mut response = request.send().await.map_err(|it| format!("{it:?}"))?;
        let status = response.status().as_u16();
        if matches!(status, 429 | 503) {
            let retry_after = retry_after(response.headers());
            // So that the connection can be used again.
            let _ = response.bytes().await;
            return Ok(End::Refused { retry_after });
        }
        if status != 200 {
            let text = response.text().await.unwrap_or_default();
            return Err(format!("{status}: {text}"));
        }
        let (mut events, mut text) = (Events::default(), String::new());
        while let Some(bytes) = response.chunk().await.map_err(|it| format!("{it:?}"))? {
            for event in events.take(&bytes)? {
                let piece = event["choices"][0]["delta"]["content"].as_str();
                let piece = piece.unwrap_or_default();
                if !piece.is_empty() {
                    first.get_or_insert_with(|| at.elapsed());
                }
                text.push_str(piece);
            }
        }
        if events.is_done() && text == question.answer {
            return Ok(End::Whole);
        }
        Err(format!("not the whole answer: {} bytes", text.len()))
    }
}

/// The finer of both headers; the other is in whole seconds.
fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.parse::<u64>().ok();
    let seconds = || number("retry-after").map(Duration::from_secs);
    number("retry-after-ms")
        .map(Duration::from_millis)
        .or_else(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderMap, HeaderValue};

    #[test]
    fn when_to_come_again_is_read_as_finely_as_it_is_told() {
        let mut headers = HeaderMap::new();
        assert_eq!(retry_after(&headers), None);
        headers.insert("retry-after", HeaderValue::from(2));
        assert_eq!(retry_after(&headers), Some(Duration::from_secs(2)));
        headers.insert("retry-after-ms", HeaderValue::from(1_250));
        assert_eq!(retry_after(&headers), Some(Duration::from_millis(1_250)));
    }
}
