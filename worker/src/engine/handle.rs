//! An engine as the rest of the worker sees it, and an answer that it makes.

use crate::config::EngineConfig;
use crate::engine::in_flight::{self, EngineDone, Sink, Source};
use crate::engine::process::EngineCommand;
use crate::engine::protocol::{Generate, Load};
use crate::engine::supervisor::Supervisor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::infer::{Chunk, Input, Sampling};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Requests on their way to the supervisor; the quota lets far fewer through.
const MAX_REQUESTS: usize = 256;

/// Everything about an engine that does not change over its restarts.
#[derive(Clone, Debug)]
pub struct EngineSpec {
    /// How its process is started.
    pub command: EngineCommand,
    /// The model.
    pub load: Load,
    /// Its deadlines.
    pub config: EngineConfig,
}

/// What an engine is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineState {
    /// Its process starts or loads the model.
    Starting,
    /// It answers.
    Ready(Ready),
    /// It is down and will be started again.
    Down {
        /// Why, as a code.
        code: &'static str,
        /// Why, for people.
        reason: String,
    },
    /// It was stopped for good.
    Stopped,
}

/// A loaded model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Most tokens of prompt and answer together.
    pub context_tokens: u32,
    /// Engine and version.
    pub engine: String,
    /// Answers are bit equal only within one class.
    pub numerics_class: String,
    /// Milliseconds that loading took.
    pub load_ms: u64,
    /// The engine's process.
    pub pid: Option<u32>,
}

/// An engine. Cheap to clone; dropping the last one ends its process.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    requests: mpsc::Sender<Request>,
    cancels: mpsc::UnboundedSender<u64>,
    state: watch::Receiver<EngineState>,
    next_id: AtomicU64,
    stop: DropGuard,
}

#[derive(Debug)]
pub(super) struct Request {
    pub(super) generate: Generate,
    pub(super) sink: Sink,
}

/// An answer that is being made. Dropping it cancels it in the engine.
#[derive(Debug)]
pub struct Answer {
    id: u64,
    source: Source,
    // Each answer cancels at most once, so what is bounded by the quota bounds this too.
    cancels: mpsc::UnboundedSender<u64>,
    ended: bool,
}

impl Engine {
    /// Starts an engine and watches over it. To be called within a runtime whose threads live as
    /// long as the engine should: its process is killed with the thread that started it.
    #[must_use]
    pub fn start(spec: EngineSpec, metrics: Arc<WorkerMetrics>) -> Self {
        let (requests, requests_receiver) = mpsc::channel(MAX_REQUESTS);
        let (cancels, cancels_receiver) = mpsc::unbounded_channel();
        let (state_sender, state) = watch::channel(EngineState::Starting);
        let stop = CancellationToken::new();
        let supervisor = Supervisor {
            spec,
            metrics,
            requests: requests_receiver,
            cancels: cancels_receiver,
            state: state_sender,
            stop: stop.clone(),
        };
        tokio::spawn(supervisor.run());
        Self {
            inner: Arc::new(Inner {
                requests,
                cancels,
                state,
                next_id: AtomicU64::new(1),
                stop: stop.drop_guard(),
            }),
        }
    }

    /// What it is doing, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.inner.state.clone()
    }

    /// Asks for an answer.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the engine is not ready.
    pub fn generate(&self, input: Input, sampling: Sampling) -> Result<Answer, RpcError> {
        let down = match &*self.inner.state.borrow() {
            EngineState::Down { reason, .. } => Some(reason.clone()),
            EngineState::Stopped => Some("the engine was stopped".to_owned()),
            EngineState::Starting | EngineState::Ready(_) => None,
        };
        if let Some(reason) = down {
            return Err(RpcError::new(Code::Unavailable, reason));
        }
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (sink, source) = in_flight::channel();
        let generate = Generate {
            id,
            input,
            sampling,
        };
        self.inner
            .requests
            .try_send(Request { generate, sink })
            .map_err(|_| RpcError::new(Code::Unavailable, "the engine takes no requests now"))?;
        Ok(Answer {
            id,
            source,
            cancels: self.inner.cancels.clone(),
            ended: false,
        })
    }

    /// Ends the engine for good and waits until its process is gone.
    pub async fn stop(&self) {
        let mut state = self.state();
        self.inner.stop_now();
        // An error means that the supervisor is gone already.
        let _ = state.wait_for(|state| *state == EngineState::Stopped).await;
    }
}

impl Inner {
    fn stop_now(&self) {
        self.stop.token().cancel();
    }
}

impl Answer {
    /// The next piece; nothing once the answer is over, well or not: [`Answer::end`] says which.
    pub async fn chunk(&mut self) -> Option<Chunk> {
        self.source.chunks.recv().await
    }

    /// The end of the answer.
    ///
    /// # Errors
    /// Why it did not end well.
    pub async fn end(mut self) -> Result<EngineDone, RpcError> {
        let end = (&mut self.source.end).await;
        self.ended = true;
        end.unwrap_or_else(|_| Err(RpcError::new(Code::Unavailable, "the engine was stopped")))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.ended {
            // A supervisor that is gone took the engine with it.
            let _ = self.cancels.send(self.id);
        }
    }
}
