//! Answers as server-sent events: one event per piece, one write per event.
//!
//! The body is polled by the connection as the client reads, so a slow reader slows the answer
//! down and grows nothing. An answer that breaks ends in an error event, never in `[DONE]`.
//!
//! Source: WHATWG HTML, section 9.2, server-sent events.

use crate::account::Account;
use crate::answer::Piece;
use crate::limits::Permit;
use crate::problem::Problem;
use crate::submit::Answer;
use axum::body::{Body, Bytes};
use futures_util::stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// Content type of a stream.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream; charset=utf-8";
/// A line that clients ignore.
const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// How a dialect writes the pieces of an answer.
pub(crate) trait Dialect: Send + 'static {
    /// What comes before the first piece.
    fn open(&self) -> Vec<Bytes>;
    /// One piece; the end may take several events.
    fn piece(&self, piece: &Piece) -> Vec<Bytes>;
    /// An answer that broke.
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
    /// Nothing once the answer is over.
    answer: Option<Answer>,
    account: Account,
    keep_alive: Duration,
    _permit: Permit,
}

/// The body of a streamed answer, whose first piece is here already.
pub(crate) fn body<D: Dialect>(
    dialect: D,
    first: &Piece,
    answer: Answer,
    account: Account,
    permit: Permit,
    keep_alive: Duration,
) -> Body {
    let waiting = dialect.open().into();
    let mut streaming = Streaming {
        dialect,
        waiting,
        answer: Some(answer),
        account,
        keep_alive,
        _permit: permit,
    };
    streaming.take(first);
    Body::from_stream(stream::unfold(streaming, |mut streaming| async move {
        let bytes = streaming.next().await?;
        Some((Ok::<_, Infallible>(bytes), streaming))
    }))
}

impl<D: Dialect> Streaming<D> {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.waiting.pop_front() {
            return Some(bytes);
        }
        let answer = self.answer.as_mut()?;
        match tokio::time::timeout(self.keep_alive, answer.next()).await {
            Err(_) => return Some(Bytes::from_static(KEEP_ALIVE)),
            Ok(Ok(piece)) => self.take(&piece),
            Ok(Err(error)) => {
                let problem = Problem::from(error);
                self.account.failed(&problem);
                self.answer = None;
                return Some(self.dialect.problem(&problem));
            }
        }
        self.waiting.pop_front()
    }

    fn take(&mut self, piece: &Piece) {
        self.waiting.extend(self.dialect.piece(piece));
        if let Piece::Done(done) = piece {
            self.account.finished(done.usage);
            self.answer = None;
        }
    }
}
