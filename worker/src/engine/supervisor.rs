//! The parent's side of an engine's process: starts it, watches it, starts it again. (WRK-2)
//!
//! A crash, abort or hang of the engine fails the answers it was making, at once and with a reason,
//! and nothing else. What it had given nothing of goes to another process of the same engine.
//!
//! * `watched` – what its process uses
//! * `ending` – why its process ends

mod ending;
mod watched;

use crate::engine::again::{Again, Request};
use crate::engine::board::Post;
use crate::engine::handle::{Channels, EngineState, Ready};
use crate::engine::in_flight::{InFlight, StepLimits};
use crate::engine::process::{NotSent, Process};
use crate::engine::protocol::{FromEngine, ToEngine, brief};
use crate::engine::restart::{self, Cause, HEALTHY_AFTER};
use crate::engine::spec::{EngineSpec, Refused};
use crate::sandbox::{self, Shield};
use ending::{Ending, Why};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tether_telemetry::metrics::WorkerMetrics;
use tether_wire::rpc::{Code, RpcError};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use watched::Watched;

/// How often an engine is asked whether it lives, and the unit of its other deadlines.
pub(super) const TICK: Duration = Duration::from_millis(500);

/// Looks after one process of an engine.
pub(super) struct Supervisor {
    spec: EngineSpec,
    metrics: Arc<WorkerMetrics>,
    requests: mpsc::Receiver<Request>,
    cancels: mpsc::UnboundedReceiver<u64>,
    post: Post,
    stop: CancellationToken,
    again: Again,
    /// What held of the last process.
    shields: Vec<Shield>,
}

impl Supervisor {
    pub(super) fn new(
        mut spec: EngineSpec,
        metrics: Arc<WorkerMetrics>,
        channels: Channels,
    ) -> Self {
        let Channels {
            requests,
            cancels,
            post,
            stop,
            again,
        } = channels;
        let (layout, threads) = (spec.layout, spec.load.threads);
        spec.load.confine.first_processor = layout.first_processor(threads, post.process());
        Self {
            spec,
            metrics,
            requests,
            cancels,
            post,
            stop,
            again,
            shields: Vec::new(),
        }
    }

    pub(super) async fn run(mut self) {
        let has_turn = tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = self.post.turn() => true,
        };
        if has_turn {
            self.keep_alive().await;
        } else {
            self.post.set(EngineState::Stopped);
        }
    }

    async fn keep_alive(&mut self) {
        let (mut failures, mut refusals) = (0, 0);
        loop {
            self.post.set(EngineState::Starting);
            let mut ready_at = None;
            let ending = self.live(&mut ready_at).await;
            failures = if ready_at.is_some_and(|at: Instant| at.elapsed() >= HEALTHY_AFTER) {
                1
            } else {
                failures + 1
            };
            let again = match ending {
                Ending::Stopped => break,
                Ending::Refused(refused) => {
                    refusals += 1;
                    self.refused(refused, refusals).await
                }
                Ending::Failed(cause, reason) => {
                    refusals = 0;
                    self.failed(cause, reason, failures).await
                }
            };
            if !again {
                return;
            }
        }
        self.post.set(EngineState::Stopped);
    }

    /// The process ended, the last of so many times in a row. Waits until it is to be started again;
    /// false when it is not.
    async fn failed(&mut self, cause: Cause, reason: String, failures: u32) -> bool {
        let wait = restart::delay(cause, failures, rand::random());
        tracing::warn!(
            model = %self.spec.load.model_name,
            cause = cause.as_str(),
            reason,
            wait_ms = ms(wait),
            "the engine is down and will be started again"
        );
        let code = cause.as_str();
        let down = EngineState::Down {
            code,
            reason: reason.clone(),
        };
        self.fell(down, code);
        let again = self.refuse_for(wait, &reason).await;
        if again {
            self.metrics.engine_restarted(code);
        } else {
            self.post.set(EngineState::Stopped);
        }
        again
    }

    /// The process must not start. While others of the engine answer, or will, that is tried again now
    /// and then: what was wrong may be mended. With the last of them the model is given up.
    async fn refused(&mut self, refused: Refused, failures: u32) -> bool {
        let Refused { code, reason, .. } = refused.clone();
        let model = self.spec.load.model_name.clone();
        if !self.fell(EngineState::Refused(refused), code) {
            tracing::error!(model, code, reason, "the engine must not start again");
            return false;
        }
        let wait = restart::delay(Cause::Load, failures, rand::random());
        tracing::error!(
            model,
            code,
            reason,
            wait_ms = ms(wait),
            "one of the engine's processes must not start; it is tried again while others answer"
        );
        self.refuse_for(wait, &reason).await && self.post.has_hope()
    }

    /// Says what became of its process. What the others hide is counted here, all else by who keeps
    /// the model. Whether there is hope for the engine.
    fn fell(&self, state: EngineState, code: &'static str) -> bool {
        self.post.set(state);
        if self.post.is_hidden() {
            self.metrics.model_fault(code);
        }
        self.post.has_hope()
    }

    /// Waits, and refuses what is asked for meanwhile. False when the engine is to stop.
    async fn refuse_for(&mut self, wait: Duration, reason: &str) -> bool {
        let over = tokio::time::sleep(wait);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return false,
                () = &mut over => return true,
                Some(request) = self.requests.recv() => {
                    self.again.pass_on(request, RpcError::new(Code::Unavailable, reason));
                }
                Some(_) = self.cancels.recv() => {}
            }
        }
    }

    /// What comes before a start. Asked for here, done elsewhere: the process is killed with the
    /// thread that starts it, so it is this one that starts it.
    async fn prepare(&mut self) -> Result<PathBuf, Ending> {
        let prepared = self.spec.prepare.ask(self.post.process());
        tokio::pin!(prepared);
        loop {
            tokio::select! {
                // First, so that nothing is started behind the back of who stopped the engine.
                biased;
                () = self.stop.cancelled() => return Err(Ending::Stopped),
                root = &mut prepared => return root.map_err(|refused| {
                    if refused.passing {
                        Ending::Failed(Cause::Load, refused.reason)
                    } else {
                        Ending::Refused(refused)
                    }
                }),
                Some(request) = self.requests.recv() => {
                    let why = RpcError::new(Code::Unavailable, "the model is being verified");
                    self.again.pass_on(request, why);
                }
                Some(_) = self.cancels.recv() => {}
            }
        }
    }

    /// One life: prepare, spawn, load, serve.
    async fn live(&mut self, ready_at: &mut Option<Instant>) -> Ending {
        match self.prepare().await {
            Ok(root) => self.spec.load.root = root,
            Err(ending) => return ending,
        }
        let model = self.spec.load.model_name.clone();
        let (threads, device) = (self.spec.load.threads, self.spec.load.compute.device);
        let mut process = match Process::spawn(&self.spec.command, &model, threads, device) {
            Ok(process) => process,
            Err(error) => {
                return Ending::Failed(
                    Cause::Load,
                    format!("the engine's process cannot be started: {error}"),
                );
            }
        };
        let watched = Watched::begin(process.id(), &mut self.spec.load.confine);
        let ready = match self.load(&mut process, &watched).await {
            Ok(ready) => ready,
            Err(why) => return why.end(process, watched).await,
        };
        tracing::info!(
            model,
            engine = ready.engine,
            load_ms = ready.load_ms,
            pid = watched.pid,
            "model loaded"
        );
        let context_tokens = ready.context_tokens;
        if let Err(reason) = self.post.ready(ready) {
            return Why::Differs(reason).end(process, watched).await;
        }
        *ready_at = Some(Instant::now());

        let config = &self.spec.config;
        let limits = StepLimits {
            first: ticks(config.first_token_timeout_ms),
            next: ticks(config.step_timeout_ms),
        };
        let mut in_flight = InFlight::new(limits, context_tokens);
        let why = self.serve(&mut process, &mut in_flight, &watched).await;
        // Out of service before anybody is told that an answer failed: who then looks for another
        // worker should not find this one.
        if !matches!(why, Why::Stopped) {
            self.post.set(EngineState::Starting);
        }
        // How it ended is known within milliseconds, and part of what its callers are told.
        let awaited = in_flight.awaited();
        let ending = why.end(process, watched).await;
        let Ending::Failed(_, reason) = &ending else {
            in_flight.fail_all(&RpcError::new(Code::Unavailable, "the engine was stopped"));
            return ending;
        };
        let error = RpcError::new(Code::Unavailable, reason.clone());
        let moved = self.again.take_up(in_flight.over(&error), &error);
        let lost = awaited.saturating_sub(moved);
        if lost > 0 {
            tracing::warn!(model, lost, reason, "answers were lost with their engine");
        }
        if moved > 0 {
            tracing::info!(model, moved, reason, "requests go to another process");
        }
        ending
    }

    async fn load(&mut self, process: &mut Process, watched: &Watched) -> Result<Ready, Why> {
        process
            .send(&ToEngine::Load(self.spec.load.clone()))
            .map_err(|why| match why {
                NotSent::NotReading => Why::NotReading,
                NotSent::TooLarge(error) => Why::LoadFailed(error.to_string()),
            })?;
        let timeout_ms = self.spec.config.start_timeout_ms;
        let late = tokio::time::sleep(Duration::from_millis(timeout_ms));
        tokio::pin!(late);
        let mut ticker = tokio::time::interval(TICK);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut confined = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(Why::Stopped),
                () = &mut late => return Err(Why::LoadLate(timeout_ms)),
                _ = ticker.tick() => watched.look()?,
                message = process.recv() => match message {
                    // Said once: whatever it says of it later is no news.
                    Some(Ok(FromEngine::Confined { shields, took_us })) if confined.is_none() => {
                        self.confined(&shields, took_us)?;
                        confined = Some(shields);
                    }
                    Some(Ok(FromEngine::Loaded {
                        context_tokens, engine, numerics_class, sequences, max_token_bytes, load_ms,
                    })) => {
                        // One that never said what holds has to be refused just so.
                        let shields = confined.unwrap_or_default();
                        self.demand(&shields)?;
                        let (engine, numerics_class) = (brief(engine), brief(numerics_class));
                        let (sequences, pids) = (sequences.max(1), watched.pid.into_iter().collect());
                        return Ok(Ready {
                            context_tokens, engine, numerics_class, sequences, max_token_bytes, load_ms, pids,
                            shields, fallen: Vec::new(),
                        });
                    }
                    Some(Ok(FromEngine::LoadFailed { reason })) => return Err(Why::LoadFailed(brief(reason))),
                    Some(Ok(FromEngine::AdapterUnfit { reason })) => return Err(Why::Unfit(brief(reason))),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(Why::broken(&error)),
                    None => return Err(Why::Gone),
                },
                Some(request) = self.requests.recv() => {
                    let why = RpcError::new(Code::Unavailable, "the model is being loaded");
                    self.again.pass_on(request, why);
                }
                Some(_) = self.cancels.recv() => {}
            }
        }
    }

    /// Its process has confined itself: told once, and again when something of it has changed.
    fn confined(&mut self, shields: &[Shield], took_us: u64) -> Result<(), Why> {
        if self.shields != shields {
            let names = |enforced: bool| {
                let those = shields.iter().filter(|it| it.enforced == enforced);
                let names: Vec<_> = those.map(|it| it.protection.as_str()).collect();
                names.join(" ")
            };
            let (enforced, missing) = (names(true), names(false));
            let model = &self.spec.load.model_name;
            tracing::info!(model, enforced, missing, took_us, "the engine is confined");
            self.shields = shields.to_vec();
        }
        self.demand(shields)
    }

    fn demand(&self, shields: &[Shield]) -> Result<(), Why> {
        let required = &self.spec.load.confine.require;
        sandbox::lacking(required, shields).map_or(Ok(()), |why| Err(Why::Unprotected(why)))
    }

    /// Gives the process a request.
    fn ask(
        &self,
        process: &Process,
        in_flight: &mut InFlight,
        request: Request,
    ) -> Result<(), NotSent> {
        let Request {
            generate,
            sink,
            tries,
        } = request;
        let id = generate.id;
        if !in_flight.begin(id, &generate.task, sink) {
            return Ok(());
        }
        let message = ToEngine::Generate(generate);
        let sent = process.send(&message);
        if let Err(NotSent::TooLarge(error)) = sent {
            let why = format!("no engine takes a request of this size: {error}");
            in_flight.refuse(id, RpcError::new(Code::Invalid, why));
            return Ok(());
        }
        if let ToEngine::Generate(generate) = message
            && self.again.is_possible()
        {
            in_flight.keep(id, generate.task, tries);
        }
        sent
    }

    /// Serves until the engine ends or has to be ended.
    async fn serve(
        &mut self,
        process: &mut Process,
        in_flight: &mut InFlight,
        watched: &Watched,
    ) -> Why {
        let hang_ticks = ticks(self.spec.config.hang_timeout_ms);
        let mut ticker = tokio::time::interval(TICK);
        // A worker that was stopped for a while must not hold that against its engine.
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut silent_ticks = 0;
        let mut pings = 0;
        loop {
            let sent = tokio::select! {
                () = self.stop.cancelled() => return Why::Stopped,
                message = process.recv() => {
                    silent_ticks = 0;
                    match message {
                        Some(Ok(message)) => match in_flight.on_message(message) {
                            Some(id) => process.send(&ToEngine::Cancel { id }),
                            None => Ok(()),
                        },
                        Some(Err(error)) => return Why::broken(&error),
                        None => return Why::Gone,
                    }
                }
                Some(request) = self.requests.recv() => self.ask(process, in_flight, request),
                Some(id) = self.cancels.recv() => {
                    if in_flight.leave(id) {
                        process.send(&ToEngine::Cancel { id })
                    } else {
                        Ok(())
                    }
                }
                _ = ticker.tick() => {
                    if let Err(why) = watched.look() {
                        return why;
                    }
                    silent_ticks += 1;
                    if silent_ticks > hang_ticks {
                        return Why::Silent(self.spec.config.hang_timeout_ms);
                    }
                    let overdue = in_flight.tick();
                    if overdue.is_stuck {
                        return Why::Stuck;
                    }
                    pings += 1;
                    overdue
                        .cancel
                        .into_iter()
                        .map(|id| ToEngine::Cancel { id })
                        .chain([ToEngine::Ping { n: pings }])
                        .try_for_each(|message| process.send(&message))
                }
            };
            if sent.is_err() {
                return Why::NotReading;
            }
        }
    }
}

fn ms(wait: Duration) -> u64 {
    u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)
}

/// A deadline in ticks, at least one.
pub(super) fn ticks(ms: u64) -> u32 {
    let tick = u64::try_from(TICK.as_millis()).unwrap_or(u64::MAX);
    u32::try_from(ms.div_ceil(tick)).unwrap_or(u32::MAX).max(1)
}
