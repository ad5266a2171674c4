//! Drives a server: looks after its health and asks it for answers.
//!
//! What holds of engines of our own holds here: an answer that makes no progress in time fails, a
//! reader that is too slow is cut off, and what a request occupies is given back when the
//! connection that asked for it is dropped. What cannot be done is to end a server that hangs.
//!
//! An answer that failed may show that the server does not serve, and a request can be made to fail so
//! that it seems to. So the server is asked for its health at once, and goes out of service only where
//! that is gone. Whoever asked is told after that: who then looks for another worker should not find
//! this one.

use super::client::{Client, Failed, Sign, Trouble};
use super::events::Events;
use super::reply::{Reply, Said};
use super::request::{self, Body};
use super::usage::{Asked, Claim, Seen};
use super::{ServerSpec, numerics_class};
use crate::engine::again::Request;
use crate::engine::handle::{Channels, EngineState, Ready};
use crate::engine::in_flight::{InFlight, StepLimits};
use crate::engine::protocol::{FromEngine, Generate};
use crate::engine::supervisor::{TICK, ticks};
use futures_util::future::BoxFuture;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::infer::{Chunk, Usage};
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::task::AbortOnDropHandle;

/// Words of all answers that wait for the driver; who asks waits with reading until there is room.
const MAX_WAITING: usize = 256;
/// How long a server that refused the key is left alone: asking again does not change it.
const KEY_PAUSE: Duration = Duration::from_secs(30);

/// What an asker says of its answer.
enum Word {
    Said(FromEngine),
    Failed(Failed),
}

type Mouth = mpsc::Sender<(u64, Word)>;
type Probe = BoxFuture<'static, Result<Option<u32>, Trouble>>;

pub(super) struct Driver {
    pub(super) spec: ServerSpec,
    pub(super) client: Arc<Client>,
    pub(super) metrics: Arc<WorkerMetrics>,
    pub(super) channels: Channels,
}

impl Driver {
    pub(super) async fn run(mut self) {
        let began = Instant::now();
        let (mouth, mut ear) = mpsc::channel(MAX_WAITING);
        let mut asking: HashMap<u64, AbortOnDropHandle<()>> = HashMap::new();
        let config = &self.spec.deadlines;
        let limits = StepLimits {
            first: ticks(config.first_token_timeout_ms),
            next: ticks(config.step_timeout_ms),
        };
        let mut in_flight = InFlight::new(limits, self.spec.context_tokens);
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let every = Duration::from_millis(self.spec.server.probe_interval_ms);
        let mut probe = self.probe_after(Duration::ZERO);
        // Answers that failed and wait for the probe; at most as many as there are in flight.
        let mut doubtful: Vec<(u64, RpcError)> = Vec::new();
        loop {
            // Answers that are over, or are to be.
            let over: Vec<u64> = tokio::select! {
                () = self.channels.stop.cancelled() => break,
                found = &mut probe => {
                    match found {
                        Ok(context) => self.up(context, began.elapsed()),
                        Err(trouble) => self.down(trouble),
                    }
                    probe = self.probe_after(every);
                    fail(&mut in_flight, &mut doubtful)
                }
                Some(Request { generate, sink, .. }) = self.channels.requests.recv() => {
                    let id = generate.id;
                    if in_flight.begin(id, &generate.task, sink) {
                        let task = tokio::spawn(self.answer(generate, mouth.clone()));
                        asking.insert(id, AbortOnDropHandle::new(task));
                    }
                    Vec::new()
                }
                Some(id) = self.channels.cancels.recv() => {
                    in_flight.leave(id);
                    vec![id]
                }
                Some((id, word)) = ear.recv() => match word {
                    Word::Said(message) => {
                        let is_done = matches!(message, FromEngine::Done { .. });
                        let cut_off = in_flight.on_message(message);
                        cut_off.or(is_done.then_some(id)).into_iter().collect()
                    }
                    Word::Failed(Failed { error, sign: Sign::Doubt }) => {
                        if doubtful.is_empty() {
                            probe = self.probe_after(Duration::ZERO);
                        }
                        doubtful.push((id, error));
                        Vec::new()
                    }
                    Word::Failed(Failed { error, sign }) => {
                        let mut failed = vec![(id, error)];
                        if let Sign::Down(trouble) = sign {
                            self.down(trouble);
                            probe = self.probe_after(KEY_PAUSE);
                            failed.append(&mut doubtful);
                        }
                        fail(&mut in_flight, &mut failed)
                    }
                },
                _ = ticker.tick() => in_flight.tick().cancel,
            };
            for id in over {
                // Drops the connection, and with it what the request occupied.
                asking.remove(&id);
                doubtful.retain(|(doubted, _)| *doubted != id);
                in_flight.on_message(FromEngine::Cancelled { id });
            }
        }
        drop(asking);
        // First, so that who learns of the end finds it stopped.
        self.channels.post.set(EngineState::Stopped);
        in_flight.fail_all(&RpcError::new(Code::Unavailable, "the engine was stopped"));
    }

    fn probe_after(&self, wait: Duration) -> Probe {
        let client = self.client.clone();
        let timeout = Duration::from_millis(self.spec.deadlines.hang_timeout_ms);
        Box::pin(async move {
            tokio::time::sleep(wait).await;
            client.probe(timeout).await
        })
    }

    fn up(&self, context: Option<u32>, since: Duration) {
        let context_tokens = context.map_or(self.spec.context_tokens, |theirs| {
            theirs.min(self.spec.context_tokens)
        });
        self.channels.post.change(|state| {
            if let EngineState::Ready(ready) = state
                && ready.context_tokens == context_tokens
            {
                return;
            }
            let server = &self.spec.server;
            tracing::info!(url = server.url, model = server.model, "the server serves");
            *state = EngineState::Ready(Ready {
                // It is the provider's own process, and none of ours.
                shields: Vec::new(),
                context_tokens,
                engine: format!("openai:{}", server.kind.as_str()),
                // Anew each time: another may serve there now.
                numerics_class: numerics_class(server.kind),
                sequences: server.concurrency,
                max_token_bytes: None,
                load_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
                pids: Vec::new(),
                fallen: Vec::new(),
            });
        });
    }

    /// Answers that it gives go on: they end by themselves if it really is down.
    fn down(&self, trouble: Trouble) {
        let Trouble { code, reason } = trouble;
        let server = &self.spec.server;
        let now = EngineState::Down { code, reason };
        self.channels.post.change(|state| {
            if *state != now {
                tracing::warn!(
                    url = server.url,
                    model = server.model,
                    ?now,
                    "the server does not serve"
                );
                *state = now;
            }
        });
    }

    /// Asks for one answer and says what becomes of it.
    fn answer(
        &self,
        generate: Generate,
        mouth: Mouth,
    ) -> impl Future<Output = ()> + Send + 'static {
        let Generate { id, task } = generate;
        let server = &self.spec.server;
        let body = request::body(server.kind, &server.model, &task);
        let asker = Asker {
            id,
            client: self.client.clone(),
            metrics: self.metrics.clone(),
            asked: Asked::of(&task, self.spec.context_tokens),
            reply: Reply::new(&server.model, task.correlation, &task.output),
            mouth: mouth.clone(),
        };
        async move {
            let result = match body {
                Ok(body) => asker.ask(&body).await,
                Err(error) => Err(error.into()),
            };
            if let Err(failed) = result {
                // The driver is gone only with everything else.
                let _ = mouth.send((id, Word::Failed(failed))).await;
            }
        }
    }
}

/// One answer being asked for.
struct Asker {
    id: u64,
    client: Arc<Client>,
    metrics: Arc<WorkerMetrics>,
    asked: Asked,
    reply: Reply,
    mouth: Mouth,
}

impl Asker {
    async fn ask(mut self, body: &Body) -> Result<(), Failed> {
        let began = Instant::now();
        let mut times: Option<(Instant, Instant)> = None;
        let mut response = self.client.ask(body).await?;
        let mut events = Events::default();
        let mut position = 0;
        let mut data = Vec::new();
        loop {
            let bytes = match response.chunk().await {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return Err(self.reply.cut("the connection ended").into()),
                Err(_) => return Err(self.reply.cut("the connection broke").into()),
            };
            events
                .push(&bytes, &mut data)
                .map_err(|error| self.reply.cut(&error.to_string()))?;
            for data in data.drain(..) {
                match self.reply.take(&data)? {
                    Said::Nothing => {}
                    Said::Piece(piece) => {
                        let now = Instant::now();
                        times.get_or_insert((now, now)).1 = now;
                        let unnamed = self.asked.positions(position);
                        self.chunk(Chunk {
                            position,
                            unnamed,
                            ..piece
                        })
                        .await;
                        position += unnamed;
                    }
                    Said::End(finish, claim) => {
                        let usage = self.settle(claim, position);
                        let unnamed = usage.completion_tokens.saturating_sub(position);
                        if unnamed > 0 {
                            let rest = Chunk {
                                position,
                                unnamed,
                                ..Chunk::default()
                            };
                            self.chunk(rest).await;
                        }
                        let now = Instant::now();
                        let (first, last) = times.unwrap_or((now, now));
                        self.say(FromEngine::Done {
                            id: self.id,
                            finish,
                            usage,
                            prefill_ms: ms(first.duration_since(began)),
                            decode_ms: ms(last.duration_since(first)),
                        })
                        .await;
                        return Ok(());
                    }
                }
            }
        }
    }

    fn settle(&self, claim: Option<Claim>, pieces: u32) -> Usage {
        let bytes = self.reply.bytes();
        let settled = self.asked.settle(claim, Seen { pieces, bytes });
        for doubt in settled.doubts {
            self.metrics.usage_doubted(doubt);
            tracing::debug!(
                doubt,
                ?claim,
                pieces,
                bytes,
                "the server's counts are not believed"
            );
        }
        settled.usage
    }

    async fn chunk(&self, chunk: Chunk) {
        self.say(FromEngine::Chunk { id: self.id, chunk }).await;
    }

    /// Waits while the driver has too much to hear; it never waits for a reader.
    async fn say(&self, message: FromEngine) {
        let _ = self.mouth.send((self.id, Word::Said(message))).await;
    }
}

/// Tells those whose answers failed; gives their numbers.
fn fail(in_flight: &mut InFlight, failed: &mut Vec<(u64, RpcError)>) -> Vec<u64> {
    let tell = |(id, error)| {
        in_flight.on_message(FromEngine::Failed { id, error });
        id
    };
    failed.drain(..).map(tell).collect()
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
