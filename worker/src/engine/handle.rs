//! An engine as the rest of the worker sees it, and an answer that it makes.

use crate::engine::again::{Again, Request, Tries};
use crate::engine::board::{Board, Post};
use crate::engine::protocol::{Generate, Task};
use crate::engine::reader::{self, EngineDone, Hold, Source};
use crate::engine::spec::{EngineSpec, Refused};
use crate::engine::supervisor::Supervisor;
use crate::sandbox::Shield;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::infer::Chunk;
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Requests on their way to a supervisor; the quota lets far fewer through.
const MAX_REQUESTS: usize = 256;

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
    /// It must not start: what comes before refused. Nothing starts it again, but a process of it while
    /// others answer.
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
    /// Most answers that it gives at once, over the processes that are there now; at least 1.
    pub sequences: u32,
    /// Most bytes of text that one token stands for, where the engine knows.
    pub max_token_bytes: Option<u32>,
    /// Milliseconds that loading took.
    pub load_ms: u64,
    /// Its processes that answer, where they are ours.
    pub pids: Vec<u32>,
    /// What keeps it in.
    pub shields: Vec<Shield>,
    /// Why each of its processes that do not answer does not, where it is known.
    pub fallen: Vec<Fallen>,
}

/// Why a process does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallen {
    /// As a code.
    pub code: &'static str,
    /// For people.
    pub reason: String,
}

/// An engine: one process, or several alike, of which each answer is given by the one that has the
/// least to do. Cheap to clone; dropping the last one ends its processes.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    board: Arc<Board>,
    lines: Arc<[Line]>,
    next_id: AtomicU64,
    stop: DropGuard,
}

/// The way to one process.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) requests: mpsc::Sender<Request>,
    // Each answer cancels at most once, so what is bounded by the quota bounds this too.
    cancels: mpsc::UnboundedSender<u64>,
}

/// What drives a process, or a server, holds these ends.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) cancels: mpsc::UnboundedReceiver<u64>,
    pub(super) post: Post,
    pub(super) stop: CancellationToken,
    pub(super) again: Again,
}

/// An answer that is being made. Dropping it cancels it in the engine.
#[derive(Debug)]
pub struct Answer {
    id: u64,
    source: Source,
    lines: Arc<[Line]>,
    ended: bool,
}

impl Engine {
    /// Starts an engine and watches over it. To be called within a runtime whose threads live as
    /// long as the engine should: its processes are killed with the thread that started them.
    ///
    /// Its first process comes alone. The others follow when that is ready: a model that does not
    /// load is tried once at a time, and who waits for it is answered as soon as one process can.
    #[must_use]
    pub fn start(spec: EngineSpec, metrics: Arc<WorkerMetrics>) -> Self {
        let (engine, channels) = Self::open(spec.processes.max(1));
        for channels in channels {
            let supervisor = Supervisor::new(spec.clone(), metrics.clone(), channels);
            tokio::spawn(supervisor.run());
        }
        engine
    }

    /// An engine of so many processes, and the ends of what drives each of them.
    pub(super) fn open(processes: u32) -> (Self, Vec<Channels>) {
        let stop = CancellationToken::new();
        let board = Board::new(processes);
        let (lines, receivers): (Vec<_>, Vec<_>) = (0..processes)
            .map(|_| {
                let (requests, requests_receiver) = mpsc::channel(MAX_REQUESTS);
                let (cancels, cancels_receiver) = mpsc::unbounded_channel();
                (
                    Line { requests, cancels },
                    (requests_receiver, cancels_receiver),
                )
            })
            .unzip();
        let lines: Arc<[Line]> = lines.into();
        let again = Again {
            board: board.clone(),
            lines: lines.clone(),
            stop: stop.clone(),
        };
        let channels = (0..processes).zip(receivers);
        let channels = channels.map(|(process, (requests, cancels))| Channels {
            requests,
            cancels,
            post: board.post(process),
            stop: stop.clone(),
            again: again.clone(),
        });
        let channels = channels.collect();
        let engine = Self {
            inner: Arc::new(Inner {
                board,
                lines,
                next_id: AtomicU64::new(1),
                stop: stop.drop_guard(),
            }),
        };
        (engine, channels)
    }

    /// What it is doing, as it changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<EngineState> {
        self.inner.board.watch()
    }

    /// Asks for an answer. `hold` is dropped when nothing of the request is left in the engine: at
    /// once when it never gets there, later than the answer when that is dropped in the middle. Where
    /// its process ends before anything of the answer was given, another of them takes it up.
    ///
    /// # Errors
    /// [`Code::Unavailable`] when the engine is not ready.
    pub fn generate(&self, task: Task, hold: Box<dyn Hold>) -> Result<Answer, RpcError> {
        let place = self.inner.board.take()?;
        let line = &self.inner.lines[place.process()];
        let id = self.inner.next_id.fetch_add(1, Ordering::Relaxed);
        let (mut sink, source) = reader::channel(hold);
        sink.occupied.sit(place);
        let request = Request {
            generate: Generate { id, task },
            sink,
            tries: Tries::default(),
        };
        line.requests
            .try_send(request)
            .map_err(|_| RpcError::new(Code::Unavailable, "the engine takes no requests now"))?;
        Ok(Answer {
            id,
            source,
            lines: self.inner.lines.clone(),
            ended: false,
        })
    }

    /// Ends the engine for good and waits until its processes are gone.
    pub async fn stop(&self) {
        let mut state = self.state();
        self.inner.stop_now();
        // An error means that nobody drives it any more.
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
            for line in &*self.lines {
                // Whichever has it now. A supervisor that is gone took its process with it.
                let _ = line.cancels.send(self.id);
            }
        }
    }
}
