//! One answer being given: what an engine says about it, until it is cancelled.

use super::outbox::Outbox;
use crate::engine::protocol::{FromEngine, brief_error};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tether_wire::infer::{Chunk, Finish, Usage};
use tether_wire::rpc::{Code, RpcError};
use tokio_util::sync::CancellationToken;

/// Where an engine puts an answer. After a cancellation no more of it is said; its end is said
/// exactly once, and by [`Answer::close`] at the latest.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    id: u64,
    outbox: Outbox,
    cancelled: CancellationToken,
    /// When its turn came.
    begun: Arc<OnceLock<Instant>>,
    /// Whether its end was said.
    ended: Arc<AtomicBool>,
}

/// When the tokens of an answer came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    first: Instant,
    last: Instant,
}

impl Times {
    /// With the first token.
    pub(crate) fn first_token() -> Self {
        let now = Instant::now();
        Self {
            first: now,
            last: now,
        }
    }

    /// With each further token.
    pub(crate) fn token(&mut self) {
        self.last = Instant::now();
    }
}

impl Answer {
    pub(crate) fn new(id: u64, outbox: Outbox) -> Self {
        Self {
            id,
            outbox,
            cancelled: CancellationToken::new(),
            begun: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Cancelled when the worker wants no more of it.
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancelled
    }

    fn say(&self, message: FromEngine) {
        if !self.cancelled.is_cancelled() {
            self.outbox.send(message);
        }
    }

    /// A cancelled answer has one end only, when it is gone.
    fn finish(&self, message: FromEngine) {
        if !self.cancelled.is_cancelled() {
            self.end(message);
        }
    }

    fn end(&self, message: FromEngine) {
        if !self.ended.swap(true, Ordering::Relaxed) {
            self.outbox.send(message);
        }
    }

    /// Its turn has come.
    pub(crate) fn started(&self, prompt_tokens: u32) {
        let id = self.id;
        self.begun.get_or_init(Instant::now);
        self.say(FromEngine::Started { id, prompt_tokens });
    }

    pub(crate) fn chunk(&self, chunk: Chunk) {
        let id = self.id;
        self.say(FromEngine::Chunk { id, chunk });
    }

    /// What was given already, in its order.
    pub(crate) fn retold(&self, pieces: Vec<Chunk>) {
        let id = self.id;
        for chunk in pieces {
            self.say(FromEngine::Retold { id, chunk });
        }
    }

    /// More of what was given already was gone through.
    pub(crate) fn replayed(&self) {
        let id = self.id;
        self.say(FromEngine::Replayed { id });
    }

    pub(crate) fn done(&self, finish: Finish, usage: Usage, times: Times) {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let prefill = self
            .begun
            .get()
            .map_or(Duration::ZERO, |begun| times.first.duration_since(*begun));
        self.finish(FromEngine::Done {
            id: self.id,
            finish,
            usage,
            prefill_ms: ms(prefill),
            decode_ms: ms(times.last.duration_since(times.first)),
        });
    }

    pub(crate) fn failed(&self, error: RpcError) {
        let (id, error) = (self.id, brief_error(error));
        self.finish(FromEngine::Failed { id, error });
    }

    /// The engine has let go of it.
    pub(crate) fn close(&self) {
        let id = self.id;
        self.end(if self.cancelled.is_cancelled() {
            FromEngine::Cancelled { id }
        } else {
            let message = "the engine left the answer without an end";
            let error = RpcError::new(Code::Internal, message);
            FromEngine::Failed { id, error }
        });
    }
}
