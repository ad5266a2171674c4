//! Answers as server-sent events: one event per piece, one write per event.
//!
//! The body is polled by the connection as the client reads, so a slow reader slows the answer
//! down and grows nothing. An answer that breaks ends in an error event, never in `[DONE]`.
//!
//! Source: WHATWG HTML, section 9.2, server-sent events.

use crate::account::Account;
use crate::choices::{Choices, Told};
use crate::limits::Permit;
use crate::problem::Problem;
use axum::body::{Body, Bytes};
use futures_util::stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tether_wire::infer::Usage;

/// Content type of a stream.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";
/// A line that clients ignore.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// How a dialect writes what the answers to a request tell.
pub(crate) trait Dialect: Send + 'static {
    /// What one of them tells; it may take several events, or none.
    fn told(&mut self, answer: u32, told: &Told) -> Vec<Bytes>;
    /// All have ended.
    fn end(&mut self, usage: Usage) -> Vec<Bytes>;
    /// One of them broke.
    fn problem(&self, problem: &Problem) -> Bytes;
}

/// One event.
pub(crate) fn event(data: &impl Serialize) -> Bytes {
    let mut bytes = b"data: ".to_vec();
    serde_json::to_writer(&mut bytes, data).expect("our own types serialise to JSON");
    bytes.extend_from_slice(b"\n\n");
    Bytes::from(bytes)
}

struct Streaming<D> {
    dialect: D,
    waiting: VecDeque<Bytes>,
    /// Nothing once it is over.
    choices: Option<Choices>,
    account: Account,
    keep_alive: Duration,
    _permit: Permit,
}

/// The body of a streamed response, whose first piece is here already.
pub(crate) fn body<D: Dialect>(
    dialect: D,
    choices: Choices,
    account: Account,
    permit: Permit,
    keep_alive: Duration,
) -> Body {
    let streaming = Streaming {
        dialect,
        waiting: VecDeque::new(),
        choices: Some(choices),
        account,
        keep_alive,
        _permit: permit,
    };
    Body::from_stream(stream::unfold(streaming, |mut streaming| async move {
        let bytes = streaming.next().await?;
        Some((Ok::<_, Infallible>(bytes), streaming))
    }))
}

impl<D: Dialect> Streaming<D> {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            let choices = self.choices.as_mut()?;
            match tokio::time::timeout(self.keep_alive, choices.next()).await {
                Err(_) => return Some(Bytes::from_static(KEEP_ALIVE)),
                Ok(Some(Ok((answer, told)))) => {
                    self.waiting.extend(self.dialect.told(answer, &told));
                }
                Ok(Some(Err(problem))) => {
                    self.account.failed(&problem);
                    self.choices = None;
                    return Some(self.dialect.problem(&problem));
                }
                Ok(None) => {
                    let usage = choices.usage();
                    self.account.finished(usage);
                    self.choices = None;
                    self.waiting.extend(self.dialect.end(usage));
                }
            }
        }
    }
}
