//! An engine as the rest of the worker sees it, and an answer that it makes.

use crate::config::EngineConfig;
use crate::engine::process::EngineCommand;
use crate::engine::protocol::{Generate, Load, Task};
use crate::engine::reader::{self, EngineDone, Hold, Sink, Source};
use crate::engine::supervisor::Supervisor;
use crate::sandbox::Shield;
use futures_util::future::BoxFuture;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::infer::Chunk;
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
    /// What comes before each start of its process.
    pub prepare: Prepare,
}

/// What comes before each start of an engine's process: gives the folder that it may read, which
/// takes the place of [`Load::root`], or says why it must not start. Files that were right once may
/// have changed since, so it is asked every time.
#[derive(Clone)]
pub struct Prepare(Arc<PrepareFn>);

type PrepareFn = dyn Fn() -> BoxFuture<'static, Result<PathBuf, Refused>> + Send + Sync;

/// Why an engine must not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A stable code.
    pub code: &'static str,
    /// For people.
    pub reason: String,
    /// Whether it may be otherwise at the next try: the disk's fault, not the artifact's.
    pub passing: bool,
}

impl Prepare {
    /// `step` must not block: the process is started on the thread that asks.
    pub fn new(
        step: impl Fn() -> BoxFuture<'static, Result<PathBuf, Refused>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(step))
    }

    pub(super) fn ask(&self) -> BoxFuture<'static, Result<PathBuf, Refused>> {
        (self.0)()
    }
}

impl fmt::Debug for Prepare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepare")
    }
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
    /// It must not start: what comes before refused. Nothing starts it again.
    Refused(Refused),
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
    /// Most answers that it gives at once; at least 1.
    pub sequences: u32,
    /// Most bytes of text that one token stands for, where the engine knows.
    pub max_token_bytes: Option<u32>,
    /// Milliseconds that loading took.
    pub load_ms: u64,
    /// The engine's process.
    pub pid: Option<u32>,
    /// What keeps it in.
    pub shields: Vec<Shield>,
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

/// What drives an engine holds these ends.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) cancels: mpsc::UnboundedReceiver<u64>,
    pub(super) state: watch::Sender<EngineState>,
    pub(super) stop: CancellationToken,
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
        let (engine, channels) = Self::open();
        let supervisor = Supervisor {
            shields: Vec::new(),
            spec,
            metrics,
            requests: channels.requests,
            cancels: channels.cancels,
            state: channels.state,
            stop: channels.stop,
        };
        tokio::spawn(supervisor.run());
        engine
    }

    /// An engine, and the ends of what drives it.
    pub(super) fn open() -> (Self, Channels) {
        let (requests, requests_receiver) = mpsc::channel(MAX_REQUESTS);
        let (cancels, cancels_receiver) = mpsc::unbounded_channel();
        let (state_sender, state) = watch::channel(EngineState::Starting);
        let stop = CancellationToken::new();
        let channels = Channels {
            requests: requests_receiver,
            cancels: cancels_receiver,
            state: state_sender,
            stop: stop.clone(),
        };
        let engine = Self {
            inner: Arc::new(Inner {
                requests,
                cancels,
                state,
                next_id: AtomicU64::new(1),
                stop: stop.drop_guard(),
            }),
        };
        (engine, channels)
    }

    /// What it is doing, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.inner.state.clone()
    }

    /// Asks for an answer. `hold` is dropped when nothing of the request is left in the engine: at
    /// once when it never gets there, later than the answer when that is dropped in the middle.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the engine is not ready.
    pub fn generate(&self, task: Task, hold: Box<dyn Hold>) -> Result<Answer, RpcError> {
        let down = match &*self.inner.state.borrow() {
            EngineState::Down { reason, .. } => Some(reason.clone()),
            EngineState::Refused(refused) => Some(refused.reason.clone()),
            EngineState::Stopped => Some("the engine was stopped".to_owned()),
            EngineState::Starting | EngineState::Ready(_) => None,
        };
        if let Some(reason) = down {
            return Err(RpcError::new(Code::Unavailable, reason));
        }
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (sink, source) = reader::channel(hold);
        let generate = Generate { id, task };
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
        let is_over =
            |state: &EngineState| matches!(state, EngineState::Stopped | EngineState::Refused(_));
        let _ = state.wait_for(is_over).await;
    }
}

impl Inner {
    fn stop_now(&self) {
        self.stop.token().cancel();
    }
}

impl Answer {
    /// Waits until the engine turns to it: the tokens of its prompt. Nothing when the engine does
    /// not say, or the answer failed before; what follows is the same then.
    pub async fn begun(&mut self) -> Option<u32> {
        (&mut self.source.begun).await.ok()
    }

    /// The next piece, from position 0 on: what was given before this request comes again first, in
    /// pieces of its own. Nothing once the answer is over, well or not: [`Answer::end`] says which.
    pub async fn chunk(&mut self) -> Option<Chunk> {
        self.source.chunk().await
    }

    /// The pieces that came already; one is not waited for.
    pub fn given(&mut self) -> Vec<Chunk> {
        self.source.given()
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
            // First, so that a wish to cancel that overtakes its request is not lost.
            self.source.end.close();
            // A supervisor that is gone took the engine with it.
            let _ = self.cancels.send(self.id);
        }
    }
}
